"""A reference: what a condition does to a context follows linearly from its untreated cells."""

from __future__ import annotations

import numpy as np

from pertcast.cells.group_means import LogShift
from pertcast.cells.registry import register
from pertcast.nn.cycle_gan_start import linear_start
from pertcast.types import Floats

NAME = "ridge-shift"


@register(NAME, floor=True)
class RidgeShift(LogShift):
    """Ridge from principal scores of the contexts' untreated means to changes of log means; its answer is added.

    The penalty is the one that predicts contexts left out one after another best, and may leave nothing but the common
    change. All axes of the measured contexts are kept: ridge does not see a rotation.
    """

    NAME = NAME

    def change(self, condition: str, profile: Floats) -> Floats:
        centre, shift, cells = self.means.measured(condition)
        middle = centre.mean(axis=0)
        axes = np.linalg.svd(centre - middle, full_matrices=False)[2]  # (m, g)
        known = (centre - middle) @ axes.T  # (m, m)
        line = linear_start(
            codes=np.ones((len(shift), 1)), profiles=known, changes=shift, cells=cells, context=np.arange(len(shift))
        )
        return line.common + (profile - middle) @ axes.T @ line.profile[0]
