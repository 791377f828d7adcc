"""Attention over the tokens of one sample: its cell type, its compound, what is known of either (system 004)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from pertcast.config import Config, validated
from pertcast.errors import InputError, NotFittedError
from pertcast.features.target_svd import TargetSVD
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.models.registry import register
from pertcast.nn.fit import FitSettings, choose_device, fit_network, seeded
from pertcast.nn.layers import CodeEmbedding, LookupProjection, TokenAttentionBlock
from pertcast.nn.losses import SCORE_LOSSES, make_loss
from pertcast.types import Examples, Floats

CODES = ("cell_type", "compound")  # one-hot blocks; their row index is the code, 0 for a name training did not show
PREDICT_ROWS = 256  # rows a block of prediction
MEMBER_SEEDS = 1000  # member m of seed s starts from seed 1000 s + m


class TransformerConfig(Config):
    """The published system is width 128, heads 8, layers 6, feedforward 2048, dropout 0.3, readout mean, head 0."""

    blocks: tuple[str, ...] = ("compound_residual_mean", "compound_residual_q80", "cell_type_mean")  # a token each
    width: int = Field(64, ge=1)  # of a token
    heads: int = Field(4, ge=1)
    layers: int = Field(1, ge=0)  # attention blocks; 0 leaves the tokens to the head alone
    feedforward: int = Field(128, ge=1)  # hidden width inside an attention block
    dropout: float = Field(0.3, ge=0, lt=1)
    readout: Literal["cls", "mean", "concat"] = "concat"  # what the head reads: an extra token, the mean, all tokens
    head: int = Field(256, ge=0)  # hidden width of the head; 0 is a linear head
    embedding_scale: float = Field(0.3, gt=0)  # spread of learned vectors at the start
    unknown_rate: float = Field(0.05, ge=0, lt=1)  # share of training rows whose compound is hidden from the network
    components: int = Field(120, ge=1)  # principal scores of the response, fewer where the rank is lower
    loss: Literal["mrrmse", "mse", "huber", "mae", "log_cosh"] = "mrrmse"  # the first two are taken over scores
    delta: float = Field(1.0, gt=0)  # bend of huber, in the unit of the response
    members: int = Field(2, ge=1)  # networks from different starts, averaged
    training: FitSettings = FitSettings(epochs=60, batch=128, lr=1e-2, schedule="one_cycle", warmup=0.2)


class TokenNet(nn.Module):
    """Tokens of one sample -> attention -> scores of the response.

    codes   number of codes of cell type and compound, unknown included
    widths  width of each feature block
    k       number of scores
    """

    def __init__(self, config: TransformerConfig, codes: Mapping[str, int], widths: Mapping[str, int], k: int):
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
            TokenAttentionBlock(width, config.heads, feedforward=config.feedforward, dropout=config.dropout)
            for _ in range(config.layers)
        )
        self.head = _head(width * tokens if self.readout == "concat" else width, config, k)

    def forward(self, tables: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        """Predict standardised scores.

        tables   {block: (., d)}  standardised feature tables
        rows     {name: (n,)}     codes of cell type and compound, and rows of the tables
        returns  (n, k)
        """
        x = self.tokens(tables, rows)  # (n, t, d)
        for block in self.attention:
            x = block(x)
        if self.readout == "concat":
            return self.head(x.flatten(1))
        return self.head(x[:, 0] if self.readout == "cls" else x.mean(dim=1))

    def tokens(self, tables: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        parts = [embed(rows[name]) for name, embed in self.embeddings.items()]
        parts += [project(tables[name], rows[name]) for name, project in self.projections.items()]
        if self.readout == "cls":
            parts.insert(0, torch.zeros_like(parts[0]))
        return torch.stack(parts, dim=1) + self.kind  # (n, t, d)


def _head(width: int, config: TransformerConfig, k: int) -> nn.Module:
    if not config.head:
        return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, k))
    hidden = [nn.Linear(width, config.head), nn.BatchNorm1d(config.head), nn.GELU(), nn.Dropout(config.dropout)]
    return nn.Sequential(nn.BatchNorm1d(width), *hidden, nn.Linear(config.head, k))


@register("transformer", config=TransformerConfig, seeded=True)
class Transformer:
    """Attention over the tokens of one sample, target reduced by SVD, several starts averaged."""

    def __init__(self, config: TransformerConfig):
        self.config = config
        self.history: list[dict[str, float]] = []  # one entry per member and epoch
        self.svd: TargetSVD | None = None
        self.unit = 1.0  # root mean square of a score: the network's outputs are in this unit
        self.centers: dict[str, Floats] = {}  # (d,) per block, over the training rows
        self.spreads: dict[str, float] = {}  # per block: its columns keep their relative weight
        self.codes: dict[str, int] = {}
        self.nets: list[TokenNet] = []

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int) -> Transformer:
        """Learn from the training rows.

        With `training.patience` set, the epochs are chosen on the valid rows, or on a tenth of the training rows where
        there are none. Without it the valid rows are not looked at (S004-03).
        """
        c, settings = self.config, self.config.training
        self._describe(train)
        if settings.patience is None:
            valid = None
        elif valid is None:
            train, valid = _split(train, seed)
        device = choose_device(settings.device)
        tables, data = self._inputs(train, device)
        data |= self._targets(train)
        held_out = None
        if valid is not None:
            tables, held_out = self._appended(tables, valid, device)
        loss_fn = self._loss(tables, genes=len(train.genes), device=device)
        self.history, self.nets = [], []
        for member in range(c.members):
            start = MEMBER_SEEDS * seed + member
            with seeded(start):
                net = self._new_net()
            log = lambda facts, member=member: self.history.append({"member": member, **facts})  # noqa: E731
            self.nets.append(fit_network(net, data, loss_fn, settings, seed=start, valid=held_out, log=log))
        return self
