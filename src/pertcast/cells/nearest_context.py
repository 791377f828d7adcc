"""A reference: every cell moves as the cells of the one context that is most like its own."""

from __future__ import annotations

from scipy.spatial.distance import cdist

from pertcast.cells.group_means import LogShift
from pertcast.cells.registry import register
from pertcast.types import Floats

NAME = "nearest-context"


@register(NAME, floor=True)
class NearestContext(LogShift):
    """The change of log means in the context whose untreated mean is nearest is added to every cell; never below 0.

    Distances are Euclidean over all genes. A context where the condition was measured is nearest to itself.
    """

    NAME = NAME

    def change(self, condition: str, profile: Floats) -> Floats:
        centre, shift, _ = self.means.measured(condition)
        return shift[cdist(profile, centre).argmin(axis=1)]
