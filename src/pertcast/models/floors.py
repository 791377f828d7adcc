"""Floors: what can be said without learning. Every other model must beat them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pertcast.config import Config
from pertcast.errors import NotFittedError
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.models.registry import register
from pertcast.types import Examples, Floats, Strings


class Means:
    """Predict the mean response of the row's category, or of all training rows where the category is new."""

    def __init__(self, config: Config):
        self.config = config
        self.names: list[str] | None = None
        self.means: Floats = np.zeros((0, 0), np.float32)  # (k + 1, g)  the last row is the overall mean

    def category(self, rows: Examples) -> Strings:
        """Return the category of each row: (n,)."""
        raise TypeError("A floor says what its categories are.")

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int = 0) -> Means:
        keys = self.category(train).astype(str)
        self.names = sorted(set(keys))
        means = [train.y[keys == name].mean(0, dtype=np.float64) for name in self.names]
        self.means = np.stack([*means, train.y.mean(0, dtype=np.float64)]).astype(np.float32)
        return self

    def predict(self, rows: Examples) -> Floats:
        if self.names is None:
            name = type(self).__name__
            raise NotFittedError(f"{name} was asked to predict before `fit`. Call `fit` or `load` first.")
        code = {name: i for i, name in enumerate(self.names)}
        return self.means[[code.get(key, len(self.names)) for key in self.category(rows).astype(str)]]

    def save(self, folder: Path) -> None:
        save_arrays(folder, "means", {"means": self.means}, {"names": self.names})

    def load(self, folder: Path) -> Means:
        arrays, facts = load_arrays(folder, "means")
        self.means, self.names = arrays["means"], list(facts["names"])
        return self


@register("gene-mean", floor=True)
class GeneMean(Means):
    """Each gene's mean over all training rows."""

    def category(self, rows: Examples) -> Strings:
        return np.full(len(rows), "", dtype=object)


@register("cell-type-mean", floor=True)
class CellTypeMean(Means):
    """Each gene's mean over the training rows of the cell type."""

    def category(self, rows: Examples) -> Strings:
        return rows.cell_type


@register("compound-mean", floor=True)
class CompoundMean(Means):
    """Each gene's mean over the training rows of the compound."""

    def category(self, rows: Examples) -> Strings:
        return rows.compound


@register("zeros", floor=True)
class Zeros(GeneMean):
    """No effect of anything."""

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int = 0) -> Zeros:
        super().fit(train, valid, seed=seed)
        self.means = np.zeros_like(self.means)
        return self
