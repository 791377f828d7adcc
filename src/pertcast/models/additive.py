"""Cell-type effect plus compound effect, each shrunk by its number of rows; the shrinkage is fitted by leaving out."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from pertcast.config import Config
from pertcast.errors import NotFittedError
from pertcast.features.target_svd import TargetSVD
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.models.registry import register
from pertcast.types import Examples, Floats, Ints, Strings


class AdditiveConfig(Config):
    cell_type_grid: tuple[float, ...] = (0.0, 2.0, 8.0, 32.0)  # pseudo-rows that draw a cell type to the overall mean
    compound_grid: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # pseudo-rows that draw to no effect


@register("additive", config=AdditiveConfig, floor=True)
class Additive:
    """Shrunken cell-type mean plus shrunken compound effect."""

    def __init__(self, config: AdditiveConfig):
        self.config = config
        self.effects: dict[str, Floats] = {}
        self.facts: dict[str, list] = {}

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int = 0) -> Additive:
        """Fit the effects; pseudo-counts are those that best predict training rows left out one at a time."""
        types, of_type = np.unique(train.cell_type.astype(str), return_inverse=True)
        compounds, of_compound = np.unique(train.compound.astype(str), return_inverse=True)
        rotated = TargetSVD.fit(train.y, min(train.y.shape), center=False).encode(train.y)  # (n, r), lengths kept
        grid = list(product(self.config.cell_type_grid, self.config.compound_grid))
        errors = [_left_out_error(rotated, of_type, of_compound, pseudo=pseudo) for pseudo in grid]
        best = grid[int(np.argmin(errors))]
        y = train.y.astype(np.float64)
        overall = y.mean(0)
        type_effect = _shrunken_means(y - overall, of_type, best[0])
        compound_effect = _shrunken_means(y - overall - type_effect[of_type], of_compound, best[1])
        self.effects = {
            "overall": overall.astype(np.float32),
            "cell_type": type_effect.astype(np.float32),
            "compound": compound_effect.astype(np.float32),
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


def _shrunken_means(y: Floats, group: Ints, pseudo: float) -> Floats:
    """Mean of each group's rows with `pseudo` rows of zero added: (k, g)."""
    count = np.bincount(group)
    return _sums(y, group) / (count + pseudo)[:, None]


def _left_out_error(y: Floats, of_type: Ints, of_compound: Ints, *, pseudo: tuple[float, float]) -> float:
    """Mean row error (up to a constant factor) when each row is predicted from the other rows only."""
    y = y.astype(np.float64)
    overall = y.mean(0)
    count = np.bincount(of_type)[of_type][:, None]
    type_mean = (_sums(y - overall, of_type)[of_type] - (y - overall)) / np.maximum(count - 1 + pseudo[0], 1e-9)
    rest = y - overall - type_mean  # (n, r), the cell type's effect without the row itself
    count = np.bincount(of_compound)[of_compound][:, None]
    compound_mean = (_sums(rest, of_compound)[of_compound] - rest) / np.maximum(count - 1 + pseudo[1], 1e-9)
    return float(np.linalg.norm(rest - compound_mean, axis=1).mean())


def _sums(y: Floats, group: Ints) -> Floats:
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    return np.add.reduceat(y[order], starts, axis=0)


def _look_up(table: Floats, names: list[str], keys: Strings) -> Floats:
    """Effect of each row's name; none for a name that training did not show."""
    code = {name: i for i, name in enumerate(names)}
    padded = np.concatenate([table, np.zeros_like(table[:1])])
    return padded[[code.get(str(key), len(names)) for key in keys]]
