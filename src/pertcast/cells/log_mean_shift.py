"""A reference: every cell moves by the mean over contexts of what the condition did to log means."""

from __future__ import annotations

from pertcast.cells.group_means import LogShift
from pertcast.cells.registry import register
from pertcast.types import Floats

NAME = "log-mean-shift"


@register(NAME, floor=True)
class LogMeanShift(LogShift):
    """The change of log1p(counts per 10,000) means, averaged over contexts, is added to every cell; never below 0.

    Contexts count once, however many cells they have. Zeros move, too: means are met and shapes are not.
    """

    NAME = NAME

    def change(self, condition: str, profile: Floats) -> Floats:  # noqa: ARG002 - the same everywhere
        return self.means.measured(condition)[1].mean(axis=0, keepdims=True)
