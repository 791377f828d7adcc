"""The reference that every model of cells must beat: treated cells are the untreated ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pertcast.cells.registry import register
from pertcast.cells.seen import Seen, fitted
from pertcast.config import Config
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.types import Cells

NAME = "no-change"


@register(NAME, floor=True)
class NoChange:
    """Untreated cells as they are; counts or log1p values."""

    def __init__(self, config: Config):
        self.config = config
        self.seen: Seen | None = None

    def fit(self, cells: Cells, *, seed: int) -> NoChange:  # noqa: ARG002 - nothing is drawn
        """Note which genes and conditions there are. Raises InputError without cells."""
        self.seen = Seen.of(NAME, cells, cells.conditions)
        return self

    def predict(self, control_cells: Cells, condition: str, *, seed: int, sample: bool = False) -> Cells:  # noqa: ARG002
        """Return these cells under the name of the condition. Raises InputError as `Seen.asked`."""
        cells = fitted(self.seen, NAME, "predict").asked(control_cells, condition)
        return replace(cells, condition=np.full(len(cells), condition, dtype=object))

    def save(self, folder: Path) -> None:
        save_arrays(folder, NAME, {}, fitted(self.seen, NAME, "save").as_dict())

    def load(self, folder: Path) -> NoChange:
        self.seen = Seen.restored(load_arrays(folder, NAME)[1])
        return self
