"""How far a mean error can be trusted: bootstrap over compounds, because rows of one compound err together."""

from __future__ import annotations

import numpy as np

from pertcast.types import Floats, Strings

DRAWS = 1000
LEVEL = 0.95


def interval(values: Floats, groups: Strings, *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of `values` (n,), whole groups (n,) drawn with replacement.

    For paired comparisons pass the differences.
    Source: Efron and Tibshirani 1993, percentile method; groups as the unit: Field and Welsh 2007,
    doi:10.1111/j.1467-9868.2007.00593.x.
    """
    _, code = np.unique(groups.astype(str), return_inverse=True)
    total, count = np.bincount(code, values), np.bincount(code)  # (k,)
    drawn = np.random.default_rng(seed).integers(len(total), size=(DRAWS, len(total)))  # (draws, k)
    means = total[drawn].sum(1) / count[drawn].sum(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def centred_interval(value: float, draws: Floats) -> tuple[float, float]:
    """95 % interval around a score from its bootstrap draws (b,), moved so that their mean is the score.

    Drawing cells again adds their noise to gene means a second time, so squared errors of all draws lie above the score
    itself; only their spread can be used. Source: Efron and Tibshirani 1993, chapter 10, on the bootstrap's bias.
    """
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - draws.mean()
    return float(value + low), float(value + high)


def grouped_standard_error(values: Floats, groups: Strings) -> float:
    """Standard error of the mean of `values` (n,), where those of a group (n,) err together; 0 for a single group.

    For paired comparisons pass the differences.
    Source: Liang and Zeger 1986, doi:10.1093/biomet/73.1.13, with the usual correction for few groups.
    """
    _, code = np.unique(groups.astype(str), return_inverse=True)
    total = np.bincount(code, values - values.mean())  # (k,)
    k = len(total)
    return float(np.sqrt(k / (k - 1) * (total**2).sum()) / len(values)) if k > 1 else 0.0
