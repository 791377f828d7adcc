"""A second stage that also learns from pairs nobody measured, labelled by a first stage (third place).

Honest by construction: a unit of work fits both stages on its fold's training rows, so a held-out row is labelled, if
at all, by a model that never saw it. Which pairs are labelled follows from the training rows and the seed; what is
asked for is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from pertcast.config import Config
from pertcast.errors import InputError, NotFittedError, shorten
from pertcast.features.assemble import CHEMISTRY
from pertcast.models.registry import build, register
from pertcast.types import Block, Examples, Floats, Ints, Model

STATIC = {"cell_type": "cell_type", "compound": "compound", **dict.fromkeys(CHEMISTRY, "compound")}


class PseudoLabelsConfig(Config):
    base: str = "network"  # model of both stages, a name of `pertcast models`
    settings: dict[str, Any] = Field(default_factory=dict)  # of the base that differ from its defaults
    training: dict[str, Any] = Field(default_factory=dict)  # of the base's training, where it has such settings
    share: float = Field(0.5, gt=0)  # pseudo-labelled rows for each measured one, where there are so many pairs
    copies: int = Field(1, ge=1)  # how often a measured row counts for each pseudo-labelled one
    sparsest: float = Field(2.0, ge=0)  # odds of a pair fall with this power of its cell type's measured rows

    def stage(self) -> Model:
        """Build an unfitted model of a stage."""
        training = {**self.settings.get("training", {}), **self.training}
        return build(self.base, {**self.settings, **({"training": training} if training else {})})


@register("pseudo-labels", config=PseudoLabelsConfig, seeded=True)
class PseudoLabels:
    """A base model fitted twice: on measured rows, then on these and on pairs that its first fit labelled."""

    def __init__(self, config: PseudoLabelsConfig):
        """Refuse, before anything is fitted, a base that reads blocks which unmeasured pairs cannot have."""
        self.config = config
        made = [name for name in _blocks_of(config.stage()) if name not in STATIC]
        if made:
            raise InputError(
                f"Pseudo-labels need blocks that follow from cell type or compound alone ({', '.join(STATIC)}), but "
                f"the base '{config.base}' reads {shorten(made)}. Change `settings.settings` of the recipe."
            )
        self.fitted: Model | None = None
        self.history: list[dict[str, float]] = []  # of the second stage

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int) -> PseudoLabels:
        """Learn from the training rows and from labels that a model of these alone gave; valid rows are not used."""
        first = self.config.stage().fit(train, seed=seed)
        pairs = unmeasured(train, most=round(self.config.share * len(train)), power=self.config.sparsest, seed=seed)
        if len(pairs):
            train = joined([train] * self.config.copies + [replace(pairs, y=first.predict(pairs))])
        self.fitted = self.config.stage().fit(train, seed=seed)
        self.history = list(getattr(self.fitted, "history", []))
        return self

    def predict(self, rows: Examples) -> Floats:
        if self.fitted is None:
            raise NotFittedError("PseudoLabels was asked to predict before `fit`. Call `fit` or `load` first.")
        return self.fitted.predict(rows)

    def save(self, folder: Path) -> None:
        if self.fitted is None:
            raise NotFittedError("PseudoLabels was asked to save before `fit`. Call `fit` or `load` first.")
        self.fitted.save(folder)

    def load(self, folder: Path) -> PseudoLabels:
        self.fitted = self.config.stage().load(folder)
        return self


def unmeasured(train: Examples, *, most: int, power: float, seed: int) -> Examples:
    """Draw pairs of a cell type and a compound that training shows apart but not together; no more than `most`.

    power   the odds of a pair are its cell type's number of measured rows to minus this power: sparse types first

    Blocks are looked up from rows of the same cell type, or of the same compound; other blocks are left out.
    """
    type_rows, of_type = np.unique(train.cell_type.astype(str), return_index=True, return_inverse=True)[1:]
    compound_rows, of_compound = np.unique(train.compound.astype(str), return_index=True, return_inverse=True)[1:]
    measured = np.zeros((len(type_rows), len(compound_rows)), bool)
    measured[of_type, of_compound] = True
    t, c = np.nonzero(~measured)
    odds = measured.sum(1).astype(float)[t] ** -power
    keys = np.random.default_rng(seed).exponential(size=len(t)) / odds  # the smallest keys are a weighted draw
    drawn = np.sort(np.argsort(keys, kind="stable")[:most])
    row_of = {"cell_type": type_rows[t[drawn]], "compound": compound_rows[c[drawn]]}  # a row that shows the name
    blocks = {name: train.block(name).take(row_of[STATIC[name]]) for name in train.blocks if name in STATIC}
    names = {column: getattr(train, column)[rows] for column, rows in row_of.items()}
    return replace(train, ids=np.full(len(drawn), -1), **names, blocks=blocks, y=None)


def joined(parts: list[Examples]) -> Examples:
    """Put rows below each other, with the blocks that all of them have."""
    shared = set.intersection(*(set(part.blocks) for part in parts))
    first = parts[0]
    blocks = {
        name: Block(block.table, _stacked(part.block(name).index for part in parts))
        for name, block in first.blocks.items()
        if name in shared
    }
    columns = {name: _stacked(getattr(part, name) for part in parts) for name in ("ids", "cell_type", "compound", "y")}
    return replace(first, **columns, blocks=blocks)


def _stacked(arrays: Iterable[Ints | Floats]) -> Ints | Floats:
    return np.concatenate(list(arrays))


def _blocks_of(model: Model) -> list[str]:
    """Name the feature blocks that a model's settings ask for."""
    config = model.config
    return list(config.block_names() if hasattr(config, "block_names") else getattr(config, "blocks", ()))
