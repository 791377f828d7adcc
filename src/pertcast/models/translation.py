"""Translation from the cell types where a compound was measured to the one asked for: linear, low rank, with gains.

The training table is taken apart (`features.decomposition`); a compound's profile then answers in any cell type with
that type's gains, on top of its own effect. What single rows stray by themselves is not predicted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pertcast.errors import NotFittedError
from pertcast.features.decomposition import DecompositionConfig, decompose
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.models.registry import register
from pertcast.types import Examples, Floats, Ints


@register("translation", config=DecompositionConfig)
class Translation:
    """Low-rank linear translation between cell types, with gains of components and genes."""

    def __init__(self, config: DecompositionConfig):
        self.config = config
        self.arrays: dict[str, Floats] = {}
        self.names: dict[str, list[str]] = {}

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int = 0) -> Translation:
        found = decompose(train.y, train.cell_type, train.compound, self.config)
        self.arrays = {name: array.astype(np.float32, order="C") for name, array in found.arrays().items()}
        sides = {"cell_types": train.cell_type, "compounds": train.compound}
        self.names = {name: np.unique(side.astype(str)).tolist() for name, side in sides.items()}
        return self

    def predict(self, rows: Examples) -> Floats:
        """Translate each compound's profile: (n, g). One never seen gets the cell type's own effect alone.

        A cell type never seen answers as the mean of those that were.
        """
        if not self.arrays:
            raise NotFittedError("Translation was asked to predict before `fit`. Call `fit` or `load` first.")
        of_type = _codes(self.names["cell_types"], rows.cell_type)
        of_compound = _codes(self.names["compounds"], rows.compound)
        mean, gain, gene_gain = (_or_mean(self.arrays[name], of_type) for name in ("mean", "gain", "gene_gain"))
        unseen = np.zeros_like(self.arrays["profile"][:1])
        profile = np.concatenate([self.arrays["profile"], unseen])[of_compound]  # (n, r)
        return mean + gene_gain * np.einsum("nr,gr->ng", profile * gain, self.arrays["loading"])

    def save(self, folder: Path) -> None:
        save_arrays(folder, "translation", self.arrays, self.names)

    def load(self, folder: Path) -> Translation:
        self.arrays, self.names = load_arrays(folder, "translation")
        return self


def _codes(names: list[str], keys: np.ndarray) -> Ints:
    """Place of each key among the names; -1 for one that is not there."""
    code = {name: place for place, name in enumerate(names)}
    return np.array([code.get(str(key), -1) for key in keys], int)


def _or_mean(table: Floats, code: Ints) -> Floats:
    """Rows of a table, and their mean for code -1."""
    return np.concatenate([table, table.mean(0, keepdims=True)])[code]
