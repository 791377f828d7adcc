"""Small networks on who a row is, many of them: the competition's winners, trained as one program."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from pertcast.errors import NotFittedError
from pertcast.models.registry import register
from pertcast.nn.encoding import CODES, Encoding
from pertcast.nn.fit import choose_device
from pertcast.nn.fit_stack import fit_stack
from pertcast.nn.members import (
    MEMBER_SEEDS,
    EmbeddingTraining,
    load_members,
    numbered,
    restore_members,
    save_members,
    stacked_seeds,
)
from pertcast.nn.stacked import Streams
from pertcast.nn.token_stack import Reader, Token, TokenNetSettings, TokenStack
from pertcast.types import Examples, Floats

PREDICT_ROWS = 256  # rows a block of prediction


class NetworkConfig(TokenNetSettings):
    """Two learned vectors and a head. Held out by task, averaging members is worth more than any input beside them."""

    blocks: tuple[Token, ...] = ()  # a token each, beside cell type and compound; blocks grouped share a mixed one
    schemes: tuple[tuple[Token, ...], ...] = ()  # several lists of blocks instead of one: networks for each
    readers: tuple[Reader, ...] = ("concat",)  # what reads the tokens: networks for each
    compound_start: str | None = None  # block of compound structure from which learned compound vectors start
    components: int = Field(300, ge=1)  # principal scores of the response, fewer where the rank is lower
    loss: Literal["mrrmse", "mse", "huber", "mae", "log_cosh", "mixed"] = "mrrmse"  # the first two: over scores
    delta: float = Field(1.0, gt=0)  # bend of huber, in the unit of the response
    members: int = Field(8, ge=1)  # networks of each scheme and reader, from different starts
    keep: float = Field(1.0, gt=0, le=1)  # share of the training rows that each member sees, drawn without repeats
    average: Literal["mean", "median"] = "mean"  # over all networks, gene by gene
    stack_megabytes: int = Field(512, ge=1)  # of weights and what trains them, in one stack
    training: EmbeddingTraining = EmbeddingTraining()

    @field_validator("blocks", mode="before")
    @classmethod
    def _of_one(cls, blocks: object) -> object:
        return _tokens(blocks)

    @field_validator("schemes", mode="before")
    @classmethod
    def _of_many(cls, schemes: object) -> object:
        return tuple(map(_tokens, schemes)) if isinstance(schemes, (list, tuple)) else schemes

    def kinds(self) -> list[tuple[tuple[Token, ...], Reader]]:
        """Scheme and reader of each kind of network."""
        return [(scheme, reader) for scheme in self.schemes or (self.blocks,) for reader in self.readers]

    def block_names(self) -> list[str]:
        """Every feature block that some network reads, once."""
        return list(dict.fromkeys(name for scheme, _ in self.kinds() for token in scheme for name in token))


@register("network", config=NetworkConfig, seeded=True)
class Network:
    """Learned vectors of cell type and compound, statistics beside them, many members averaged."""

    def __init__(self, config: NetworkConfig):
        self.config = config
        self.encoding: Encoding | None = None
        self.stacks: list[TokenStack] = []
        self.history: list[dict[str, float]] = []  # one entry per stack and epoch

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int) -> Network:
        """Learn from the training rows; valid rows are not looked at (S004-03)."""
        config = self.config
        self.encoding = Encoding.of(train, blocks=config.block_names(), components=config.components)
        device = choose_device(config.training.device)
        data = {**self.encoding.index(train, device), **self.encoding.targets(train, loss=config.loss)}
        tables = self.encoding.tables(train, device)
        response_loss = self.encoding.response_loss(
            config.loss, delta=config.delta, genes=len(train.genes), device=device
        )

        def loss_fn(stack: TokenStack, rows: dict[str, Tensor]) -> Tensor:
            outputs = stack(tables, rows).flatten(0, 1)  # (M * b, k)
            return response_loss(outputs, {name: tensor.flatten(0, 1) for name, tensor in rows.items()})

        self.stacks, self.history = [], []
        for number, (kind, seeds) in enumerate(self._seeds(seed)):
            stack = self._new_stack(*kind, seeds)
            self._start_from_structure(stack, train)
            seen = _subsets(len(train), config.keep, seeds)  # (M, n)
            rows, given = _doubled(seen, data) if config.input_mask > 0 else (seen, data)
            log = partial(self._log, number)
            fit_stack(stack, given, loss_fn, config.training, rows=rows, seeds=seeds, log=log)
            _forget_unseen(stack, data, seen)
            self.stacks.append(stack)
        return self

    def predict(self, rows: Examples) -> Floats:
        """Average the members, block of rows by block of rows: (n, g) in the unit of `y`."""
        encoding = self._fitted("predict")
        device = choose_device(self.config.training.device)
        tables, index = encoding.tables(rows, device), encoding.index(rows, device)
        averaged = []
        for start in range(0, len(rows), PREDICT_ROWS):
            part = {name: tensor[start : start + PREDICT_ROWS] for name, tensor in index.items()}
            with torch.no_grad():
                outputs = [_member_scores(stack.to(device), tables, part) for stack in self.stacks]
            scores = encoding.unit * np.concatenate(outputs)  # (members, rows, k)
            if self.config.average == "mean":  # decoding is linear: once for all
                averaged.append(scores.mean(axis=0))
            else:
                averaged.append(np.median([encoding.svd.decode(of_member) for of_member in scores], axis=0))
        together = np.concatenate(averaged)
        return encoding.svd.decode(together) if self.config.average == "mean" else together

    def save(self, folder: Path) -> None:
        encoding = self._fitted("save")
        save_members(folder, "network", numbered(self.stacks), encoding, self.config)

    def load(self, folder: Path) -> Network:
        """Restore what `save` wrote, settings included; only the device stays that of this machine's settings."""
        arrays, facts, self.config = load_members(folder, "network", self.config)
        self.encoding = Encoding.restored(arrays, facts, blocks=self.config.block_names())
        self.stacks = [self._new_stack(*kind, seeds) for kind, seeds in self._seeds(0)]
        restore_members(numbered(self.stacks), arrays)
        return self

    def _seeds(self, seed: int) -> Iterator[tuple[tuple[tuple[Token, ...], Reader], list[int]]]:
        """Cut the networks into stacks of one kind within the memory budget: kind and seeds of each stack."""
        count = self.config.members
        for number, kind in enumerate(self.config.kinds()):
            first = MEMBER_SEEDS * seed + number * count
            one = self._new_stack(*kind, [0])
            for seeds in stacked_seeds(first, count, one=one, megabytes=self.config.stack_megabytes):
                yield kind, seeds

    def _new_stack(self, scheme: tuple[Token, ...], reader: Reader, seeds: list[int]) -> TokenStack:
        encoding = self.encoding
        return TokenStack(
            self.config,
            reader,
            tokens=scheme,
            codes=encoding.codes,
            widths=encoding.widths(self.config.block_names()),
            k=encoding.svd.k,
            streams=Streams(seeds),
        )

    @torch.no_grad()
    def _start_from_structure(self, stack: TokenStack, train: Examples) -> None:
        """Begin learned compound vectors at scores of their structure, rescaled; they are trained from there on."""
        if self.config.compound_start is None:
            return
        block, code = train.block(self.config.compound_start), train.block("compound").index
        weight = stack.embeddings["compound"].weight  # (M, codes, width)
        table = torch.zeros(weight.shape[1], block.table.shape[1])
        table[torch.tensor(code)] = torch.tensor(block.dense(), dtype=torch.float32)
        known = torch.zeros(len(table), dtype=torch.bool)
        known[torch.tensor(code)] = True
        start = table[:, : weight.shape[2]]  # (codes, d)  principal scores: the leading ones
        start = start - start[known].mean(dim=0)
        start *= self.config.embedding_scale / start[known].square().mean().sqrt().clamp_min(1e-6)
        weight[:, known, : start.shape[1]] = start[known]

    def _log(self, stack: int, facts: dict[str, float]) -> None:
        self.history.append({"stack": stack, **facts})

    def _fitted(self, verb: str) -> Encoding:
        if self.encoding is None or not self.stacks:
            raise NotFittedError(f"Network was asked to {verb} before `fit`. Call `fit` or `load` first.")
        return self.encoding


def _tokens(blocks: object) -> object:
    """Read a name that stands alone as a token of one block."""
    if not isinstance(blocks, (list, tuple)):
        return blocks
    return tuple((token,) if isinstance(token, str) else token for token in blocks)


def _subsets(n: int, keep: float, seeds: list[int]) -> Tensor:
    """Draw each member's own rows, in order: (M, round(keep * n)), at least two rows."""
    count = max(min(n, 2), round(keep * n))
    drawn = [np.sort(np.random.default_rng(seed).permutation(n)[:count]) for seed in seeds]
    return torch.tensor(np.stack(drawn))


def _doubled(rows: Tensor, data: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Add a second copy of the rows, marked `masked`."""
    n = len(data[CODES[0]])
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in data.items()}
    masked = torch.arange(2 * n) >= n
    return torch.cat([rows, rows + n], dim=1), {**twice, "masked": masked}


def _forget_unseen(stack: TokenStack, data: dict[str, Tensor], rows: Tensor) -> None:
    """A code that a member's rows lack was never learned: it is as unknown as one that no row shows."""
    for name in CODES:
        embedding = stack.embeddings[name]
        unseen = torch.ones(embedding.weight.shape[:2], dtype=torch.bool, device=embedding.weight.device)
        unseen.scatter_(1, data[name][rows].to(unseen.device), False)
        embedding.forget(unseen)


def _member_scores(stack: TokenStack, tables: dict[str, Tensor], rows: dict[str, Tensor]) -> Floats:
    members = len(stack.embeddings["compound"].weight)
    outputs = stack(tables, {name: tensor.expand(members, -1) for name, tensor in rows.items()})
    return outputs.double().cpu().numpy()  # (M, n, k)
