"""A reference: log values are the sum of what a context and what a condition contributes."""

from __future__ import annotations

import numpy as np

from pertcast.cells.group_means import LogShift
from pertcast.cells.registry import register
from pertcast.types import Floats

NAME = "additive"


@register(NAME, floor=True)
class AdditiveShift(LogShift):
    """Least squares of log values on condition plus context, over all cells; its condition term is added to every cell.

    Every cell counts, so large contexts weigh most. Least squares on group means, weighted by cells, is that on cells.
    """

    NAME = NAME

    def change(self, condition: str, profile: Floats) -> Floats:  # noqa: ARG002 - the same everywhere
        means, weight = self.means, np.sqrt(self.means.cells)
        context = np.eye(len(means.contexts))[means.context]  # (p, c)
        done = np.eye(len(means.conditions))[means.condition, 1:]  # (p, k): the untreated are where it begins
        solve = np.linalg.pinv(weight[:, None] * np.hstack([context, done]))  # (c + k, p)
        row = solve[len(means.contexts) + means.conditions.index(condition) - 1]
        return ((row * weight) @ means.mean)[None]
