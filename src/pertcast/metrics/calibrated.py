"""Scores between what costs nothing and what nothing can beat: 0 is the floor, 1 the ceiling."""

from __future__ import annotations

import math


def calibrated(*, value: float, floor: float, ceiling: float, better: str = "higher") -> float:
    """Return (value - floor) / (ceiling - floor).

    value    of a model; `floor` and `ceiling` are the same score of a reference and of the truth itself
    better   "higher", "lower", or "one": of a ratio whose best is 1, the size of its logarithm is compared
    Range minus infinity to infinity, no unit: 0 as good as the floor, 1 as good as the ceiling, below 0 worse than the
    floor. NaN where one of the three is not known, or the ceiling is no better than the floor.
    Source: OpenProblems scales its scores by control methods in this way.
    """
    if better == "one":
        if not all(number > 0 for number in (value, floor, ceiling)):
            return math.nan
        value, floor, ceiling = (abs(math.log(number)) for number in (value, floor, ceiling))
    span = ceiling - floor if better == "higher" else floor - ceiling
    gain = value - floor if better == "higher" else floor - value
    return gain / span if span > 0 else math.nan
