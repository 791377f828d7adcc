"""Attention over the tokens of one sample: its cell type, its compound, what is known of either (system 004)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pertcast.errors import NotFittedError
from pertcast.models.registry import register
from pertcast.nn.encoding import Encoding
from pertcast.nn.finetune import FineTune, fine_tune
from pertcast.nn.fit import LossFn, choose_device, fit_network, seeded
from pertcast.nn.members import MEMBER_SEEDS, EmbeddingTraining, load_members, numbered, restore_members, save_members
from pertcast.nn.sampling import Sampling, sampled, set_aside
from pertcast.nn.token_net import TokenNet, TokenNetConfig
from pertcast.types import Examples, Floats

PREDICT_ROWS = 256  # rows a block of prediction


class TransformerConfig(TokenNetConfig):
    """Sized for two CPU cores.

    The published system: width 128, heads 8, layers 6, feedforward 2048, dropout 0.3, readout mean, head 0, and no
    plain members. Those are the same network without attention and statistics: two learned vectors and the head. Held
    out by task on measured data one of them does better than one that attends, and both together better than twice
    either.
    """

    components: int = Field(300, ge=1)  # principal scores of the response, fewer where the rank is lower
    loss: Literal["mrrmse", "mse", "huber", "mae", "log_cosh"] = "mrrmse"  # the first two are taken over scores
    delta: float = Field(1.0, gt=0)  # bend of huber, in the unit of the response
    members: int = Field(1, ge=1)  # networks that attend, from different starts; all members are averaged
    plain_members: int = Field(2, ge=0)  # networks of learned vectors and head only
    training: EmbeddingTraining = EmbeddingTraining()
    sampling: Sampling | None = None  # rows of some cell types weigh more, or are seen more often
    finetune: FineTune | None = None  # train on with the rows of some cell types, early layers frozen

    def of_members(self) -> list[TransformerConfig]:
        """Settings of each network that is averaged."""
        plain = self.model_copy(update={"blocks": (), "layers": 0, "readout": "concat"})
        return [self] * self.members + [plain] * self.plain_members


@register("transformer", config=TransformerConfig, seeded=True, weighted=True)
class Transformer:
    """Attention over the tokens of one sample, target reduced by SVD, several starts averaged."""

    def __init__(self, config: TransformerConfig):
        self.config = config
        self.encoding: Encoding | None = None
        self.nets: list[TokenNet] = []
        self.history: list[dict[str, float]] = []  # one entry per member, stage and epoch

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int) -> Transformer:
        """Learn from the training rows.

        With `training.patience` set, the epochs are chosen on the valid rows, or on a tenth of the training rows where
        there are none. Without it the valid rows are not looked at (S004-03).
        """
        config, settings = self.config, self.config.training
        if settings.patience is None:
            valid = None
        elif valid is None:
            train, valid = set_aside(train, seed)
        self.encoding = Encoding.of(train, blocks=config.blocks, components=config.components)
        device = choose_device(settings.device)
        tables, data = self._tensors(train, device)
        held_out = None
        if valid is not None:
            more, held_out = self._tensors(valid, device)
            held_out |= {name: held_out[name] + len(tables[name]) for name in tables}
            tables = {name: torch.cat([tables[name], more[name]]) for name in tables}
        loss_fn = self._loss_fn(tables, genes=len(train.genes), device=device)
        seen = sampled(data, train, config.sampling)  # after the split: copies stay on this side
        self.nets, self.history = [], []
        for member, of_member in enumerate(config.of_members()):
            start = MEMBER_SEEDS * seed + member
            net = new_net(self.encoding, of_member, start)
            log = partial(self._log, member)
            fit_network(net, seen, loss_fn, settings, seed=start, valid=held_out, log=log)
            if config.finetune is not None:
                log = partial(log, stage=2)
                rare = config.finetune
                fine_tune(net, data, loss_fn, rare, training=settings, cell_type=train.cell_type, seed=start, log=log)
            self.nets.append(net)
        return self

    def predict(self, rows: Examples) -> Floats:
        """Average the members, block of rows by block of rows: (n, g) in the unit of `y`."""
        encoding = self._fitted("predict")
        device = choose_device(self.config.training.device)
        tables, index = encoding.tables(rows, device), encoding.index(rows, device)
        scores = np.zeros((len(rows), encoding.svd.k))
        with torch.no_grad():
            for start in range(0, len(rows), PREDICT_ROWS):
                part = {name: tensor[start : start + PREDICT_ROWS] for name, tensor in index.items()}
                members = [net.to(device)(tables, part).double().cpu().numpy() for net in self.nets]
                scores[start : start + PREDICT_ROWS] = np.mean(members, axis=0)
        return encoding.svd.decode(scores * encoding.unit)

    def save(self, folder: Path) -> None:
        encoding = self._fitted("save")
        save_members(folder, "transformer", numbered(self.nets), encoding, self.config)

    def load(self, folder: Path) -> Transformer:
        """Restore what `save` wrote, settings included; only the device stays that of this machine's settings."""
        arrays, facts, self.config = load_members(folder, "transformer", self.config)
        self.encoding = Encoding.restored(arrays, facts, blocks=self.config.blocks)
        self.nets = [new_net(self.encoding, of_member, seed=0) for of_member in self.config.of_members()]
        restore_members(numbered(self.nets), arrays)
        return self

    def _tensors(self, rows: Examples, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Tables and, row by row, codes, table rows and targets."""
        targets = self.encoding.targets(rows, loss=self.config.loss)
        return self.encoding.tables(rows, device), {**self.encoding.index(rows, device), **targets}

    def _loss_fn(self, tables: Mapping[str, Tensor], *, genes: int, device: torch.device) -> LossFn:
        loss = self.encoding.response_loss(self.config.loss, delta=self.config.delta, genes=genes, device=device)
        return lambda net, rows: loss(net(tables, rows), rows)

    def _log(self, member: int, facts: dict[str, float], *, stage: int = 1) -> None:
        self.history.append({"member": member, "stage": stage, **facts})

    def _fitted(self, verb: str) -> Encoding:
        if self.encoding is None or not self.nets:
            raise NotFittedError(f"Transformer was asked to {verb} before `fit`. Call `fit` or `load` first.")
        return self.encoding


def new_net(encoding: Encoding, config: TransformerConfig, seed: int) -> TokenNet:
    with seeded(seed):
        return TokenNet(config, encoding.codes, encoding.widths(config.blocks), encoding.svd.k)
