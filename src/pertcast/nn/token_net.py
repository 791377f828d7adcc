"""A network that attends over the tokens of one sample: learned codes, projected statistics, a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pertcast.config import Config
from pertcast.nn.encoding import CODES
from pertcast.nn.layers import CodeEmbedding, LookupProjection, TokenAttentionBlock


class TokenNetConfig(Config):
    """What one network looks like."""

    blocks: tuple[str, ...] = ("compound_residual_mean", "cell_type_mean")  # a token each
    width: int = Field(64, ge=1)  # of a token
    heads: int = Field(4, ge=1)
    layers: int = Field(1, ge=0)  # attention blocks; 0 leaves the tokens to the head alone
    feedforward: int = Field(64, ge=1)  # hidden width inside an attention block
    dropout: float = Field(0.3, ge=0, lt=1)  # inside attention and the head
    token_dropout: float = Field(0.2, ge=0, lt=1)  # of what the head reads
    readout: Literal["cls", "mean", "concat"] = "concat"  # an extra token, the mean, all before and after attention
    head: int = Field(1024, ge=0)  # hidden width of the head; 0 is a linear head
    embedding_scale: float = Field(0.3, gt=0)  # spread of learned vectors at the start
    unknown_rate: float = Field(0.05, ge=0, lt=1)  # share of training rows whose compound is hidden from the network


class TokenNet(nn.Module):
    """Tokens of one sample -> attention -> k numbers: scores of the response, or a code.

    codes   number of codes of cell type and compound, unknown included
    widths  width of each feature block
    k       numbers to predict
    """

    def __init__(self, config: TokenNetConfig, codes: Mapping[str, int], widths: Mapping[str, int], k: int):
        super().__init__()
        width, self.readout = config.width, config.readout
        rates = {"cell_type": 0.0, "compound": config.unknown_rate}
        self.embeddings = nn.ModuleDict(
            {
                name: CodeEmbedding(codes[name], width, unknown_rate=rates[name], scale=config.embedding_scale)
                for name in CODES
            }
        )
        self.projections = nn.ModuleDict({name: LookupProjection(d, width) for name, d in widths.items()})
        extra = 1 if self.readout == "cls" else 0
        tokens = extra + len(self.embeddings) + len(self.projections)
        self.kind = nn.Parameter(0.02 * torch.randn(tokens, width))  # what each token is
        self.attention = nn.ModuleList(
            TokenAttentionBlock(
                width, config.heads, feedforward=config.feedforward, dropout=config.dropout, identity_start=True
            )
            for _ in range(config.layers)
        )
        read = {"cls": 1, "mean": 1, "concat": 2 * tokens if config.layers else tokens}[self.readout]
        self.head = _head(read * width, config, k)

    def forward(self, tables: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        """Predict k standardised numbers.

        tables   {block: (., d)}  standardised feature tables
        rows     {name: (n,)}     codes of cell type and compound, and rows of the tables
        returns  (n, k)
        """
        x = first = self.tokens(tables, rows)  # (n, t, d)
        for block in self.attention:
            x = block(x)
        if self.readout == "concat":
            return self.head((torch.cat([first, x], dim=1) if self.attention else x).flatten(1))
        return self.head(x[:, 0] if self.readout == "cls" else x.mean(dim=1))

    def tokens(self, tables: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        parts = [embed(rows[name]) for name, embed in self.embeddings.items()]
        parts += [project(tables[name], rows[name]) for name, project in self.projections.items()]
        if self.readout == "cls":
            parts.insert(0, torch.zeros_like(parts[0]))
        return torch.stack(parts, dim=1) + self.kind  # (n, t, d)


def _head(width: int, config: TokenNetConfig, k: int) -> nn.Module:
    if not config.head:
        return nn.Sequential(nn.Dropout(config.token_dropout), nn.LayerNorm(width), nn.Linear(width, k))
    hidden = [nn.Linear(width, config.head), nn.BatchNorm1d(config.head), nn.GELU(), nn.Dropout(config.dropout)]
    return nn.Sequential(nn.Dropout(config.token_dropout), nn.BatchNorm1d(width), *hidden, nn.Linear(config.head, k))
