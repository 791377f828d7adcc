"""The change of means of every condition, and how it hangs on the context's profile.

A ridge over the measured pairs of condition and context, as far as it predicts contexts that were left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pertcast.types import Floats, Ints

GRID = (1e9, 1e3, 100.0, 30.0, 10.0, 3.0, 1.0)  # penalties, in units of the kernel's mean; the first takes all profile
FREE = 100.0  # how much less a condition's common change is penalised than its dependence on the profile
NOISE = 30.0  # cells: a pair with so few counts half


@dataclass(frozen=True, slots=True)
class LinearStart:
    """Change of a cell's genes: code @ common + (code x profile) @ profile, linear in both."""

    common: Floats  # (c, g)
    profile: Floats  # (c, k, g)
    penalty: float  # the one that predicts left-out contexts best


def linear_start(*, codes: Floats, profiles: Floats, changes: Floats, cells: Ints, context: Ints) -> LinearStart:
    """Fit changes of means by ridge; the penalty is the one with the least error on contexts that are left out.

    codes     (p, c)  of each pair's condition
    profiles  (p, k)  mean of its context's source cells along principal axes
    changes   (p, g)  difference of gene means
    cells     (p,)    the smaller number of cells of the two means: small pairs count less
    context   (p,)    pairs of a context are left out together
    Errors of left-out blocks follow from one eigendecomposition: Hastie et al. 2009, doi:10.1007/978-0-387-84858-7,
    section 7.10. With fewer than 3 contexts the profile counts nothing.
    """
    noise = 1 / np.sqrt(1 + NOISE / np.maximum(cells, 1))  # (p,)
    alike, near = codes @ codes.T, profiles @ profiles.T  # (p, p)
    unit = max(float(np.diag(near).mean()), 1e-12)
    blocks = [np.flatnonzero(context == name) for name in np.unique(context)]
    best: tuple[float, float, Floats] | None = None
    for penalty in GRID[: 1 if len(blocks) < 3 else None]:  # noqa: PLR2004 - one to leave out, two to tell a slope
        kernel = alike * (FREE + near / unit * 100 / penalty)
        values, vectors = np.linalg.eigh(kernel * noise[:, None] * noise)
        weight = np.maximum(values, 0) / (np.maximum(values, 0) + 1.0)
        target = noise[:, None] * changes
        smooth = (vectors * weight) @ vectors.T
        apart = target - smooth @ target
        error = sum(
            np.square(np.linalg.solve(np.eye(len(rows)) - smooth[np.ix_(rows, rows)], apart[rows])).sum()
            for rows in blocks
        )
        if best is None or error < best[0]:
            best = error, penalty, noise[:, None] * (vectors / (np.maximum(values, 0) + 1.0)) @ (vectors.T @ target)
    _, penalty, dual = best  # dual: (p, g)
    common = FREE * codes.T @ dual
    profile = np.einsum("pc,pk,pg->ckg", codes, profiles, dual) * (100 / (unit * penalty))
    return LinearStart(common, profile, penalty)
