"""Cell-type effect plus compound effect, fitted together and shrunk; how far is chosen by leaving rows out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from pertcast.config import Config
from pertcast.errors import NotFittedError
from pertcast.features.groups import group_sums
from pertcast.features.target_svd import TargetSVD
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.models.registry import register
from pertcast.types import Examples, Floats, Ints, Strings


class AdditiveConfig(Config):
    cell_type_grid: tuple[float, ...] = (0.5, 4.0, 32.0, 1000.0)  # pseudo-rows that draw a cell type to no effect
    compound_grid: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 32.0)  # pseudo-rows that draw a compound
    components: int = 120  # principal scores in which the pseudo-rows are chosen


@register("additive", config=AdditiveConfig, floor=True)
class Additive:
    """Cell-type effect plus compound effect, shrunk.

    The two are fitted together: where a cell type was measured with strong compounds only, its mean is theirs.
    """

    def __init__(self, config: AdditiveConfig):
        self.config = config
        self.effects: dict[str, Floats] = {}
        self.facts: dict[str, list] = {}

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int = 0) -> Additive:
        """Fit the effects with the pseudo-rows that best predict training rows left out one at a time."""
        types, of_type = np.unique(train.cell_type.astype(str), return_inverse=True)
        compounds, of_compound = np.unique(train.compound.astype(str), return_inverse=True)
        layout = _Layout(of_type, of_compound)
        svd = TargetSVD.fit(train.y, self.config.components)
        scores = svd.encode(train.y).astype(np.float64)  # (n, k)
        rest = svd.residual_norm2(train.y)  # (n,)  what no choice changes
        grid = list(product(self.config.cell_type_grid, self.config.compound_grid))
        errors = [np.sqrt(layout.left_out_errors(scores, pseudo) + rest).mean() for pseudo in grid]
        best = grid[int(np.argmin(errors))]
        overall = train.y.mean(0, dtype=np.float64)
        effects = layout.effects(train.y - overall, best)  # (c + d, g)
        self.effects = {
            "overall": overall.astype(np.float32),
            "cell_type": effects[: len(types)].astype(np.float32),
            "compound": effects[len(types) :].astype(np.float32),
        }
        self.facts = {"cell_types": types.tolist(), "compounds": compounds.tolist(), "pseudo_rows": list(best)}
        return self

    def predict(self, rows: Examples) -> Floats:
        if not self.effects:
            raise NotFittedError("Additive was asked to predict before `fit`. Call `fit` or `load` first.")
        type_effect = _look_up(self.effects["cell_type"], self.facts["cell_types"], rows.cell_type)
        compound_effect = _look_up(self.effects["compound"], self.facts["compounds"], rows.compound)
        return self.effects["overall"] + type_effect + compound_effect  # (n, g)

    def save(self, folder: Path) -> None:
        save_arrays(folder, "effects", self.effects, self.facts)

    def load(self, folder: Path) -> Additive:
        self.effects, self.facts = load_arrays(folder, "effects")
        return self


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which cell type and which compound each row has: a design of two ones a row, never written out."""

    of_type: Ints  # (n,)  0..c-1
    of_compound: Ints  # (n,)  0..d-1

    @property
    def columns(self) -> tuple[Ints, Ints]:
        return self.of_type, self.of_compound + self.of_type.max() + 1

    def inverse(self, pseudo: tuple[float, float]) -> Floats:
        """Inverse of X'X plus the pseudo-rows of each effect on its diagonal: (c + d, c + d).

        No two cell types, and no two compounds, share a row, so only a block of the size of the cell types needs a
        real inversion (Schur complement).
        """
        count = np.zeros((self.of_type.max() + 1, self.of_compound.max() + 1))  # (c, d)
        np.add.at(count, (self.of_type, self.of_compound), 1.0)
        share = count / (count.sum(0) + pseudo[1])  # (c, d)
        top = np.linalg.inv(np.diag(count.sum(1) + pseudo[0]) - share @ count.T)  # (c, c)
        corner = -top @ share  # (c, d)
        bottom = np.diag(1 / (count.sum(0) + pseudo[1])) - share.T @ corner  # (d, d)
        return np.block([[top, corner], [corner.T, bottom]])

    def effects(self, y: Floats, pseudo: tuple[float, float]) -> Floats:
        """Solve for all effects at once: y (n, g) -> (c + d, g)."""
        left, right = self.columns
        count = right.max() + 1
        return self.inverse(pseudo) @ (group_sums(y, left, count) + group_sums(y, right, count))

    def left_out_errors(self, y: Floats, pseudo: tuple[float, float]) -> Floats:
        """Squared error of each row (n,) when it is predicted without itself, by the hat matrix.

        Source: Allen 1974 (PRESS), doi:10.1080/00401706.1974.10489157.
        """
        left, right = self.columns
        inverse, effects = self.inverse(pseudo), self.effects(y, pseudo)
        leverage = inverse[left, left] + inverse[right, right] + 2 * inverse[left, right]
        residual = y - effects[left] - effects[right]
        return (residual**2).sum(1) / np.maximum(1 - leverage, 1e-6) ** 2


def _look_up(table: Floats, names: list[str], keys: Strings) -> Floats:
    """Effect of each row's name; none for a name that training did not show."""
    code = {name: i for i, name in enumerate(names)}
    padded = np.concatenate([table, np.zeros_like(table[:1])])
    return padded[[code.get(str(key), len(names)) for key in keys]]
