"""Context transfer: an untreated cell keeps its counts, and loses or gains molecules as other contexts tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array

from pertcast.cells.count_shift import MOST_CONTROLS, CountShift, Totals
from pertcast.cells.registry import register
from pertcast.cells.seen import Seen, fitted
from pertcast.config import Config
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.types import Cells

NAME = "context-transfer"


class ContextTransferConfig(Config):
    """What counts are compared by."""

    totals: Totals = "auto"  # each cell's own total; none: as they are; auto: by the panel
    most_controls: int = Field(MOST_CONTROLS, ge=1)  # untreated cells of a context that rates are searched on


@register(NAME, config=ContextTransferConfig)
class ContextTransfer:
    """Counts of untreated cells, moved to the gene means that other contexts predict.

    Mean: other contexts stand for a context as far as their untreated means make up its own, and as they are near;
    it moves as they do on a scale between folds and differences, less where that is no more than noise. Cells:
    molecules are thinned out, or added from a negative binomial as dispersed as the treated cells of training. Values
    that are log1p of counts are turned to counts and back.
    """

    def __init__(self, config: ContextTransferConfig):
        self.config = config
        self.seen: Seen | None = None
        self.shift: CountShift | None = None

    def fit(self, cells: Cells, *, seed: int) -> ContextTransfer:  # noqa: ARG002 - the same whatever the seed
        """Measure means per context and condition. Raises InputError without cells."""
        self.seen = Seen.of(NAME, cells, ())
        self.shift = CountShift.of(cells, totals=self.config.totals, most_controls=self.config.most_controls)
        self.seen = Seen.of(NAME, cells, self.shift.means.measured)
        return self

    def predict(self, control_cells: Cells, condition: str, *, seed: int, sample: bool = False) -> Cells:
        """Predict these cells under a condition: molecules drawn if `sample`, else expected.

        Raises InputError as `Seen.asked`.
        """
        cells = fitted(self.seen, NAME, "predict").asked(control_cells, condition)
        rng = np.random.default_rng(seed) if sample else None
        moved = self.shift.move(cells, np.arange(len(cells.genes)), {condition: 1.0}, source={}, rng=rng)
        named = np.full(len(cells), condition, dtype=object)
        return replace(cells, x=csr_array(moved.astype(np.float32)), condition=named)

    def save(self, folder: Path) -> None:
        seen, (arrays, shift) = fitted(self.seen, NAME, "save"), self.shift.parts()
        facts = {"config": self.config.model_dump(mode="json"), "seen": seen.as_dict(), "shift": shift}
        save_arrays(folder, NAME, arrays, facts)

    def load(self, folder: Path) -> ContextTransfer:
        arrays, facts = load_arrays(folder, NAME)
        self.config = ContextTransferConfig.model_validate(facts["config"])
        self.seen = Seen.restored(facts["seen"])
        self.shift = CountShift.restored(self.seen.genes, arrays, facts["shift"])
        return self
