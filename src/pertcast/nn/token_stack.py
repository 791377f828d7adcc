"""M networks that read the tokens of one sample: learned codes, projected statistics, a reader, a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pertcast.config import Config
from pertcast.nn.encoding import CODES
from pertcast.nn.stacked import (
    Drawing,
    StackedBatchNorm,
    StackedDropout,
    StackedEmbedding,
    StackedLayerNorm,
    StackedLinear,
    StackedLookup,
    Streams,
)
from pertcast.nn.stacked_sequence import StackedConv1d, StackedGRU, StackedLSTM

Reader = Literal["concat", "lstm", "gru", "cnn"]
Token = tuple[str, ...]  # feature blocks that share a token; of several, training reads a random mixture


class TokenNetSettings(Config):
    """What one network looks like."""

    width: int = Field(64, ge=1)  # of a token
    hidden: int = Field(128, ge=1)  # width of lstm, gru and cnn
    reader_layers: int = Field(2, ge=1)  # of lstm, gru and cnn
    kernel: int = Field(3, ge=1)  # tokens that cnn sees at once
    token_dropout: float = Field(0.2, ge=0, lt=1)  # of what the head reads
    head: int = Field(1024, ge=0)  # hidden width of the head; 0 is a linear head
    dropout: float = Field(0.3, ge=0, lt=1)  # inside the head
    embedding_scale: float = Field(0.3, gt=0)  # spread of learned vectors at the start
    unknown_rate: float = Field(0.05, ge=0, lt=1)  # share of training rows whose compound is hidden from the network
    input_mask: float = Field(0.0, ge=0, lt=1)  # share of token values zeroed in a second copy of the training rows


class TokenStack(Drawing):
    """Tokens of one sample -> reader -> head -> k scores, for M members at once.

    tokens   blocks of each token beside the two learned codes
    codes    number of codes of cell type and compound, unknown included
    widths   width of each feature block
    k        number of scores
    """

    def __init__(
        self,
        settings: TokenNetSettings,
        reader: Reader,
        *,
        tokens: tuple[Token, ...],
        codes: Mapping[str, int],
        widths: Mapping[str, int],
        k: int,
        streams: Streams,
    ) -> None:
        super().__init__()
        self.tokens, self.input_mask = tokens, settings.input_mask
        rates = {"cell_type": 0.0, "compound": settings.unknown_rate}
        self.embeddings = nn.ModuleDict(
            {
                name: StackedEmbedding(
                    codes[name], settings.width, streams, scale=settings.embedding_scale, unknown_rate=rates[name]
                )
                for name in CODES
            }
        )
        self.projections = nn.ModuleList(StackedLookup(widths[names[0]], settings.width, streams) for names in tokens)
        count = len(CODES) + len(tokens)
        self.kind = None  # what each token is; a concatenation knows
        if reader != "concat":
            self.kind = nn.Parameter(streams.normal(count, settings.width, std=0.02))
        self.reader, read = _reader(reader, settings, streams)
        self.head = _head(count * read, settings, k, streams)

    def forward(self, tables: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        """Predict standardised scores.

        tables   {block: (., d)}   standardised feature tables
        rows     {name: (M, n)}    codes of cell type and compound, rows of the tables, and, where a second copy is
                                   trained, whether a row is `masked`
        returns  (M, n, k)
        """
        parts = [embed(rows[name]) for name, embed in self.embeddings.items()]
        parts += [
            self._token(project, names, tables, rows)
            for project, names in zip(self.projections, self.tokens, strict=True)
        ]
        x = torch.stack(parts, dim=2)  # (M, n, t, width)
        if self.kind is not None:
            x = x + self.kind[:, None]
        if self.training and "masked" in rows:
            kept = self.streams.uniform(*x.shape[1:]) >= self.input_mask
            x = x * (kept | ~rows["masked"][..., None, None])
        return self.head(self.reader(x).flatten(2))

    def _token(
        self, project: StackedLookup, names: Token, tables: Mapping[str, Tensor], rows: Mapping[str, Tensor]
    ) -> Tensor:
        """Project a token's blocks by one map; of several, mix them: at random in training, equally after it."""
        parts = [project(tables[name], rows[name]) for name in names]  # (M, n, width) each
        if len(parts) == 1:
            return parts[0]
        if not self.training:
            return torch.stack(parts).mean(dim=0)
        share = -self.streams.uniform(parts[0].shape[1], len(parts)).clamp_min(1e-12).log()  # uniform over mixtures
        share = share / share.sum(dim=-1, keepdim=True)  # (M, n, s)
        return torch.einsum("smnd,mns->mnd", torch.stack(parts), share)


def _reader(name: Reader, settings: TokenNetSettings, streams: Streams) -> tuple[nn.Module, int]:
    """Return the reader and its width per token."""
    if name == "concat":
        return nn.Identity(), settings.width
    width, hidden = settings.width, settings.hidden
    widths = [width] + [hidden] * (settings.reader_layers - 1)
    if name == "cnn":
        layers = [(StackedConv1d(d, hidden, settings.kernel, streams), nn.GELU()) for d in widths]
        return nn.Sequential(*(layer for pair in layers for layer in pair)), hidden
    cell = {"lstm": StackedLSTM, "gru": StackedGRU}[name]
    return nn.Sequential(*(cell(d, hidden, streams) for d in widths)), hidden


def _head(d: int, settings: TokenNetSettings, k: int, streams: Streams) -> nn.Module:
    members, hidden = len(streams), settings.head
    if not hidden:
        return nn.Sequential(
            StackedDropout(settings.token_dropout), StackedLayerNorm(members, d), StackedLinear(d, k, streams)
        )
    return nn.Sequential(
        StackedDropout(settings.token_dropout),
        StackedBatchNorm(members, d, affine=False),
        StackedLinear(d, hidden, streams, bias=False),
        StackedBatchNorm(members, hidden),
        nn.GELU(),
        StackedDropout(settings.dropout),
        StackedLinear(hidden, k, streams),
    )
