"""Zero-inflated counts by inversion of tabulated distributions: cheap where few of them serve many cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pertcast.metrics.count_likelihood import SMALLEST, zero_probability
from pertcast.types import Floats, Ints

LEFT_OUT = 54 * np.log(2)  # what lies beyond a table has less than 2^-54, which a uniform number of 53 bits never meets
MOST = 1 << 20  # numbers in all tables and guides: what a cache holds; beyond it, looking up costs what drawing does
GUIDES = 1024


@dataclass(frozen=True, slots=True)
class CountTables:
    """Cumulative distributions of d kinds of counts, 0 to w - 1."""

    below: Floats  # (d, w) probability of at most 0, 1, ...; the last is 1
    guide: Ints  # (d * 1025,) first count whose probability exceeds 0, 1 / 1024, ...

    @property
    def zero(self) -> Floats:
        """Return the probability of a zero: (d,)."""
        return self.below[:, 0]

    def invert(self, kind: Ints, uniform: Floats) -> Ints:
        """Return the counts (m,) of kinds (m,) at uniform numbers (m,): the smallest whose probability exceeds them.

        A guide, the count at every 1024th of the unit interval, settles most of them; bisection the rest.
        Source: Chen and Asau 1974, doi:10.1080/05695557408974949.
        """
        cell = (uniform * GUIDES).astype(np.int32)
        cell += kind * np.int32(GUIDES + 1)
        low = self.guide[cell]
        open_ = np.flatnonzero(low != self.guide[cell + 1])
        low[open_] = self._bisect(kind[open_], uniform[open_], low[open_], self.guide[cell[open_] + 1])
        return low

    def _bisect(self, kind: Ints, uniform: Floats, low: Ints, high: Ints) -> Ints:
        """Find the counts between `low` and `high`, both included."""
        flat, start = self.below.ravel(), kind.astype(np.int64) * self.below.shape[1]
        while (low < high).any():
            middle = (low + high) // 2
            beyond = flat[start + middle] <= uniform
            low, high = np.where(beyond, middle + 1, low), np.where(beyond, high, middle)
        return low


def count_tables(mean: Floats, dispersion: Floats, zero_inflation: Floats, *, most: int = MOST) -> CountTables | None:
    """Tabulate d zero-inflated negative binomials (d,), or return None where that takes more than `most` numbers."""
    width = _width(mean, dispersion)
    if (width + GUIDES) * len(mean) > most:
        return None
    a = np.maximum(dispersion, SMALLEST)
    k = np.arange(1, width)
    # P(k) / P(k - 1) = (1 + (k - 1) a) m / (k (1 + a m))
    steps = np.multiply.outer(a, k - 1)
    steps += 1
    steps *= (mean / (1 + a * mean))[:, None]
    steps /= k
    with np.errstate(divide="ignore"):  # a mean of 0 has no other counts
        np.log(steps, out=steps)
    log_p = np.empty((len(mean), width))
    log_p[:, 0] = -np.log1p(a * mean) / a
    np.cumsum(steps, axis=1, out=log_p[:, 1:])
    log_p[:, 1:] += log_p[:, :1]
    below = np.cumsum(np.exp(log_p, out=log_p), axis=1, out=log_p)
    below *= (1 - zero_inflation)[:, None]
    below += zero_inflation[:, None]
    below[:, 0] = zero_probability(mean, dispersion, zero_inflation)
    below[:, -1] = 1.0
    return CountTables(below, _guide(np.minimum(below, 1, out=below)))


def _width(mean: Floats, dispersion: Floats) -> int:
    """Return a number of counts beyond which every tail is left out.

    Chernoff's bound, P(X >= x) <= exp(-(x log(x / m) - (x + r) log((x + r) / (m + r)))), for the widest of all.
    Source: Chernoff 1952, doi:10.1214/aoms/1177729330.
    """
    m, r = np.maximum(mean, 1e-12), 1 / np.maximum(dispersion, SMALLEST)
    low, high = m, m + 1
    while (_bound(high, m, r) < LEFT_OUT).any():
        high = high * 2
    for _ in range(30):
        middle = (low + high) / 2
        enough = _bound(middle, m, r) >= LEFT_OUT
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return int(np.ceil(high.max())) + 2


def _bound(x: Floats, m: Floats, r: Floats) -> Floats:
    return x * np.log(x / m) - (x + r) * np.log1p((x - m) / (m + r))


def _guide(below: Floats) -> Ints:
    """Count the probabilities of each kind (d, w) that are at most 0, 1 / 1024, ... 1; at most w - 1: (d * 1025,)."""
    d, w = below.shape
    first = np.ceil(below * GUIDES).astype(np.int64)  # the mark from which on each one counts
    first += np.arange(d)[:, None] * (GUIDES + 1)
    at_most = np.bincount(first.ravel(), minlength=d * (GUIDES + 1)).reshape(d, -1).cumsum(axis=1)
    return np.minimum(at_most, w - 1).astype(np.int32).ravel()
