"""Two stages (system 004): an autoencoder learns codes of responses, a network then predicts the code of a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pertcast.errors import NotFittedError
from pertcast.models.registry import register
from pertcast.nn.autoencoder import RESPONSE, AutoencoderConfig, ComplexAutoencoder
from pertcast.nn.encoding import CODES, Encoding, ResponseLoss
from pertcast.nn.finetune import FineTune, fine_tune
from pertcast.nn.fit import LossFn, Rows, choose_device, fit_network, seeded
from pertcast.nn.losses import row_mean
from pertcast.nn.members import MEMBER_SEEDS, EmbeddingTraining, load_members, restore_members, save_members
from pertcast.nn.sampling import Sampling, sampled, set_aside
from pertcast.nn.token_net import TokenNet, TokenNetConfig
from pertcast.types import Examples, Floats

PREDICT_ROWS = 256  # rows a block of prediction
STAGES = ("autoencoder", "net")
LEAST_SPREAD = 1e-6  # of a code: one that does not vary is predicted by its mean

Tables = Mapping[str, Tensor]  # {block: (., d)}
Log = Callable[[int, dict[str, float]], None]  # stage and what is known of an epoch


class AutoencoderTraining(EmbeddingTraining):
    """First stage: slower and shorter. Its device is that of the second."""

    epochs: int = Field(25, ge=1)
    lr: float = Field(3e-3, gt=0)


class ComplexNetConfig(TokenNetConfig):
    """Sized for two CPU cores; the published sizes are the recipe `system-004-complexnet`."""

    blocks: tuple[str, ...] = ()  # a token each, beside cell type and compound
    components: int = Field(300, ge=1)  # principal scores of the response; a large number keeps all there are
    loss: Literal["mrrmse", "mse", "huber", "mae", "log_cosh"] = "mrrmse"  # of the response, in both stages
    delta: float = Field(1.0, gt=0)  # bend of huber, in the unit of the response
    target: Literal["response", "code"] = "response"  # of the second stage: what the code decodes to, or the code
    members: int = Field(4, ge=1)  # pairs of autoencoder and network, from different starts, averaged
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    autoencoder_training: AutoencoderTraining = AutoencoderTraining()
    training: EmbeddingTraining = EmbeddingTraining()
    sampling: Sampling | None = None  # second stage: rows of some cell types weigh more, or are seen more often
    finetune: FineTune | None = None  # second stage: train on with the rows of some cell types, early layers frozen

    def block_names(self) -> list[str]:
        """Every feature block that either stage reads, once."""
        return list(dict.fromkeys((*self.blocks, *self.autoencoder.blocks)))


class ComplexNet(TokenNet):
    """Tokens of one sample -> attention -> code of its response.

    center, spread   (latent,)  of the training rows' codes: what the head predicts is in this unit
    """

    def __init__(self, config: TokenNetConfig, codes: Mapping[str, int], widths: Mapping[str, int], latent: int):
        super().__init__(config, codes, widths, latent)
        self.register_buffer("center", torch.zeros(latent))
        self.register_buffer("spread", torch.ones(latent))

    def set_unit(self, codes: Tensor) -> None:
        """Learn center and spread from the codes of the training rows (n, latent)."""
        self.center = codes.mean(dim=0)
        self.spread = codes.std(dim=0, unbiased=False).clamp_min(LEAST_SPREAD)

    def forward(self, tables: Tables, rows: Mapping[str, Tensor]) -> Tensor:
        """Predict codes: arguments as `TokenNet.forward` -> (n, latent)."""
        return self.center + self.spread * super().forward(tables, rows)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows as tensors, the same for every member and stage."""

    tables: dict[str, Tensor]  # {block: (., d)}  of training and valid rows
    data: dict[str, Tensor]  # {name: (n, ...)}  codes, rows of the tables, targets
    valid: dict[str, Tensor] | None  # the same of rows that decide when to stop
    train: Examples


@register("complexnet", config=ComplexNetConfig, seeded=True, weighted=True)
class ComplexNets:
    """An autoencoder's code of the response, predicted by attention over tokens; several pairs averaged."""

    def __init__(self, config: ComplexNetConfig):
        self.config = config
        self.encoding: Encoding | None = None
        self.pairs: list[tuple[ComplexAutoencoder, ComplexNet]] = []
        self.history: list[dict[str, float]] = []  # one entry per member, stage (3: fine-tuning) and epoch

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int) -> ComplexNets:
        """Learn from the training rows, in both stages from the same ones (R07).

        With `patience` set in either stage, the epochs are chosen on the valid rows, or on a tenth of the training
        rows where there are none. Without it the valid rows are not looked at (S004-03).
        """
        config = self.config
        if config.training.patience is None and config.autoencoder_training.patience is None:
            valid = None
        elif valid is None:
            train, valid = set_aside(train, seed)
        self.encoding = Encoding.of(train, blocks=config.block_names(), components=config.components)
        rows = self._prepared(train, valid)
        self.pairs, self.history = [], []
        for member in range(config.members):
            start = MEMBER_SEEDS * seed + member
            autoencoder, net = self._new_pair(start)
            self._fit_autoencoder(autoencoder, rows, start=start, log=partial(self._log, member))
            self._fit_net(net, autoencoder, rows, start=start, log=partial(self._log, member))
            self.pairs.append((autoencoder, net))
        return self

    def predict(self, rows: Examples) -> Floats:
        """Decode each predicted code and average the members: (n, g) in the unit of `y`."""
        encoding = self._fitted("predict")
        device = choose_device(self.config.training.device)
        tables, index = encoding.tables(rows, device), encoding.index(rows, device)
        pairs = [(autoencoder.to(device), net.to(device)) for autoencoder, net in self.pairs]
        scores = np.zeros((len(rows), encoding.svd.k))
        with torch.no_grad():
            for start in range(0, len(rows), PREDICT_ROWS):
                part = {name: tensor[start : start + PREDICT_ROWS] for name, tensor in index.items()}
                members = [autoencoder.decode(net(tables, part)).double().cpu().numpy() for autoencoder, net in pairs]
                scores[start : start + PREDICT_ROWS] = np.mean(members, axis=0)
        return encoding.svd.decode(scores * encoding.unit)

    def save(self, folder: Path) -> None:
        encoding = self._fitted("save")
        save_members(folder, "complexnet", self._parts(), encoding, self.config)

    def load(self, folder: Path) -> ComplexNets:
        """Restore what `save` wrote, settings included; only the device stays that of this machine's settings."""
        arrays, facts, self.config = load_members(folder, "complexnet", self.config)
        self.encoding = Encoding.restored(arrays, facts, blocks=self.config.block_names())
        self.pairs = [self._new_pair(start=0) for _ in range(self.config.members)]
        restore_members(self._parts(), arrays)
        return self

    def _parts(self) -> dict[str, torch.nn.Module]:
        """Both networks of each pair, by member and stage."""
        pairs = enumerate(self.pairs)
        return {f"{m}.{stage}": part for m, pair in pairs for stage, part in zip(STAGES, pair, strict=True)}

    def _prepared(self, train: Examples, valid: Examples | None) -> Prepared:
        """Tables of all rows and, row by row, codes, table rows and targets."""
        encoding, device = self.encoding, choose_device(self.config.training.device)
        tables, data = encoding.tables(train, device), self._row_tensors(train, device)
        if valid is None:
            return Prepared(tables, data, None, train)
        more, held_out = encoding.tables(valid, device), self._row_tensors(valid, device)
        for name in tables.keys() - set(CODES):  # tables of codes are those of the training rows
            held_out[name] = held_out[name] + len(tables[name])
            tables[name] = torch.cat([tables[name], more[name]])
        return Prepared(tables, data, held_out, train)

    def _row_tensors(self, rows: Examples, device: torch.device) -> dict[str, Tensor]:
        targets = {**self.encoding.targets(rows, loss="mse"), **self.encoding.targets(rows, loss=self.config.loss)}
        return {**self.encoding.index(rows, device), **{name: tensor.to(device) for name, tensor in targets.items()}}

    def _fit_autoencoder(self, autoencoder: ComplexAutoencoder, rows: Prepared, *, start: int, log: Log) -> None:
        """First stage: rebuild the response and the chosen feature blocks of each training row."""
        config, response_loss = self.config, self._response_loss(rows)

        def loss_fn(net: ComplexAutoencoder, batch: Rows) -> Tensor:
            given = self._blocks(rows.tables, batch)
            rebuilt = net(given)
            loss = response_loss(rebuilt.pop(RESPONSE), batch)
            for name, block in rebuilt.items():
                loss = loss + config.autoencoder.feature_weight * (block - given[name]).square().mean()
            return loss

        settings = config.autoencoder_training.model_copy(update={"device": config.training.device})
        valid = rows.valid if settings.patience is not None else None
        fit_network(autoencoder, rows.data, loss_fn, settings, seed=start, valid=valid, log=partial(log, 1))
        autoencoder.requires_grad_(False)

    def _fit_net(
        self, net: ComplexNet, autoencoder: ComplexAutoencoder, rows: Prepared, *, start: int, log: Log
    ) -> None:
        """Second stage: the autoencoder is frozen, dropout off, whatever the loss looks at."""
        config, settings = self.config, self.config.training
        data = rows.data | {"code": autoencoder.encode(self._blocks(rows.tables, rows.data))}
        net.set_unit(data["code"])
        valid = rows.valid
        if valid is not None:
            valid = valid | {"code": autoencoder.encode(self._blocks(rows.tables, valid))}
        loss_fn = self._net_loss(autoencoder, rows)
        seen = sampled(data, rows.train, config.sampling)  # after the split: copies stay on this side
        fit_network(net, seen, loss_fn, settings, seed=start, valid=valid, log=partial(log, 2))
        if config.finetune is not None:
            cell_type = rows.train.cell_type
            fine_tune(
                net, data, loss_fn, config.finetune,
                training=settings, cell_type=cell_type, seed=start, log=partial(log, 3),
            )  # fmt: skip

    def _net_loss(self, autoencoder: ComplexAutoencoder, rows: Prepared) -> LossFn:
        if self.config.target == "response":
            response_loss = self._response_loss(rows)
            return lambda net, batch: response_loss(autoencoder.decode(net(rows.tables, batch)), batch)

        def code_loss(net: ComplexNet, batch: Rows) -> Tensor:
            """Squared error of the standardised code, a mean over codes and rows."""
            error = (net(rows.tables, batch) - batch["code"]) / net.spread  # (n, latent)
            return row_mean(error.square().mean(dim=1), batch.get("weight"))

        return code_loss

    def _blocks(self, tables: Tables, rows: Rows) -> dict[str, Tensor]:
        """What the autoencoder reads: {block: (n, d)}."""
        features = {name: tables[name][rows[name]] for name in self.config.autoencoder.blocks}
        return {**features, RESPONSE: rows["scores"] / self.encoding.unit}

    def _response_loss(self, rows: Prepared) -> ResponseLoss:
        config, device = self.config, choose_device(self.config.training.device)
        return self.encoding.response_loss(config.loss, delta=config.delta, genes=len(rows.train.genes), device=device)

    def _new_pair(self, start: int) -> tuple[ComplexAutoencoder, ComplexNet]:
        config, encoding = self.config, self.encoding
        widths = {**encoding.widths(config.autoencoder.blocks), RESPONSE: encoding.svd.k}
        with seeded(start):
            autoencoder = ComplexAutoencoder(config.autoencoder, widths)
            net = ComplexNet(config, encoding.codes, encoding.widths(config.blocks), config.autoencoder.latent)
        return autoencoder, net

    def _log(self, member: int, stage: int, facts: dict[str, float]) -> None:
        self.history.append({"member": member, "stage": stage, **facts})

    def _fitted(self, verb: str) -> Encoding:
        if self.encoding is None or not self.pairs:
            raise NotFittedError(f"ComplexNet was asked to {verb} before `fit`. Call `fit` or `load` first.")
        return self.encoding
