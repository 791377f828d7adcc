"""A reference: principal scores move by their mean change, and the move is decoded."""

from __future__ import annotations

from dataclasses import replace

from pertcast.cells.group_means import LogShift
from pertcast.cells.log_scale import as_log1p
from pertcast.cells.principal import Axes
from pertcast.cells.registry import register
from pertcast.types import Cells, Floats

NAME = "pca-shift"


@register(NAME, floor=True)
class PcaShift(LogShift):
    """The mean change of principal scores over contexts, decoded, is added to every cell; what axes miss of it stays.

    Latent arithmetic with a linear code. Of group means only the part on the axes is kept: what they differ by is then
    what differences of mean scores decode to.
    """

    NAME = NAME

    def fit(self, cells: Cells, *, seed: int) -> PcaShift:
        super().fit(cells, seed=seed)
        found = Axes.of(as_log1p(cells))
        self.means = replace(self.means, mean=found.mean + found.scores(self.means.mean) @ found.axes)
        return self

    def change(self, condition: str, profile: Floats) -> Floats:  # noqa: ARG002 - the same everywhere
        return self.means.measured(condition)[1].mean(axis=0, keepdims=True)
