"""Zero-inflated negative-binomial counts: one convention of dispersion, exact likelihood, zeros and moments.

`dispersion` is the `a` in variance = mean + a * mean^2 everywhere; its inverse, which scipy, R and most networks use,
is called `size` and comes only out of the converters below. `zero_inflation` is a probability, never a logit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

from pertcast.errors import InputError, several
from pertcast.types import Floats, Ints

SMALLEST = 1e-200  # stands for dispersion 0, the Poisson limit: 1 / SMALLEST is finite and every term has its limit
STIRLING_FROM = 20.0  # sizes above it: three terms of Stirling's series are exact to 1e-13, log-gammas cancel


@dataclass(frozen=True, slots=True)
class CountParameters:
    """What counts are drawn from: per gene (g,), or per cell and gene (n, g)."""

    mean: Floats  # of the negative binomial, before zero inflation; >= 0, expected counts
    dispersion: Floats  # a in variance = mean + a * mean^2; >= 0, 0 is Poisson
    zero_inflation: Floats  # probability that a count is replaced by 0; 0 to 1

    def tiled(self, n_cells: int) -> CountParameters:
        """Return (n, g) read-only views; parameters that are per cell already stay as they are."""
        shape = (n_cells, np.shape(self.mean)[-1])
        return CountParameters(*(np.broadcast_to(values, shape) for values in self._all()))

    def take(self, genes: Ints) -> CountParameters:
        """Return the parameters of some genes, by position in the last axis."""
        return CountParameters(*(values[..., genes] for values in self._all()))

    def _all(self) -> tuple[Floats, Floats, Floats]:
        return self.mean, self.dispersion, self.zero_inflation


class Moments(NamedTuple):
    mean: Floats
    variance: Floats


def size_from_dispersion(dispersion: Floats | float) -> Floats:
    """Convert the dispersion `a` (> 0, any shape) to the size 1 / a that scipy's `nbinom` and R's `dnbinom` take.

    Raises InputError at 0 or less: the Poisson limit has no finite size.
    """
    return 1 / _positive("dispersion", dispersion, "0 is the Poisson limit, which has no size; use a tiny one")


def dispersion_from_size(size: Floats | float) -> Floats:
    """Convert a size r (> 0, any shape), of variance = mean + mean^2 / r, to the dispersion 1 / r.

    Raises InputError at 0 or less.
    """
    return 1 / _positive("size", size, "a network's head should end in softplus or exp, so that it cannot reach 0")


def zero_probability(mean: Floats | float, dispersion: Floats | float, zero_inflation: Floats | float = 0.0) -> Floats:
    """Probability of a zero, in the broadcast shape: pi + (1 - pi) * (1 + a * mean)^(-1 / a).

    Raises InputError for parameters outside their range.
    """
    mean, dispersion, zero_inflation = checked_parameters(mean, dispersion, zero_inflation)
    return zero_inflation + (1 - zero_inflation) * np.exp(_log_zero(mean, dispersion))


def solve_zero_inflation(
    zero_share: float, mean: Floats | float, dispersion: Floats | float, *, clip: bool = False
) -> Floats:
    """Find the zero inflation that gives a wanted share of zeros, in the broadcast shape of mean and dispersion.

    zero_share  wanted probability of a zero, 0 <= zero_share < 1
    clip        where the negative binomial alone has more zeros than wanted, take 0 instead of refusing; such entries
                then keep more zeros than wanted, and are the ones that are exactly 0
    Raises InputError when a mean leaves more zeros than wanted (and `clip` is off), or for a share outside its range.
    """
    check_zero_share(zero_share)
    return zero_inflation_for(zero_share, zero_probability(mean, dispersion), clip=clip)


def check_zero_share(zero_share: float) -> None:
    """Raise InputError unless a share of zeros is a number from 0 to below 1."""
    if not 0 <= zero_share < 1:
        raise InputError(
            f"Zero share {zero_share} cannot be had: it must be at least 0 and below 1, since any mean above 0 leaves "
            "some counts. Ask for less, such as 0.8."
        )


def zero_inflation_for(zero_share: float, without: Floats, *, clip: bool) -> Floats:
    """Solve for zero inflation, given the share of zeros that there is without any; see `solve_zero_inflation`."""
    short = without > zero_share
    if short.any() and not clip:
        raise InputError(
            f"Zero share {zero_share:g} cannot be had: in {short.sum()} of {short.size} cases the negative binomial "
            f"alone has more zeros, up to {without.max():.3f}. Ask for more zeros, raise the means, lower the "
            "dispersions, or allow clipping, which leaves those cases without zero inflation."
        )
    return np.clip((zero_share - without) / np.maximum(1 - without, np.finfo(float).tiny), 0, 1)


def zinb_moments(mean: Floats | float, dispersion: Floats | float, zero_inflation: Floats | float = 0.0) -> Moments:
    """Mean and variance of the counts, in the broadcast shape.

    mean' = (1 - pi) * mean;  variance' = (1 - pi) * mean * (1 + (a + pi) * mean)
    Raises InputError for parameters outside their range.
    """
    mean, dispersion, zero_inflation = checked_parameters(mean, dispersion, zero_inflation)
    observed = (1 - zero_inflation) * mean
    return Moments(observed, observed * (1 + (dispersion + zero_inflation) * mean))


def zinb_log_likelihood(
    x: Ints | Floats,
    mean: Floats | float,
    dispersion: Floats | float,
    zero_inflation: Floats | float = 0.0,
) -> Floats:
    """Natural log of the probability of every count, float64 in the broadcast shape of all four.

    Works in log space: finite for every mean > 0 and zero inflation < 1, exact in the limits dispersion -> 0 (Poisson),
    zero inflation -> 0 and -> 1, mean -> 0. What cannot happen (a count above 0 where the mean is 0 or the zero
    inflation 1) has -inf. Raises InputError for negative or broken counts and for parameters outside their range.
    Source: the negative binomial of Lawless 1987, doi:10.2307/3314912; zero inflation as in Lambert 1992,
    doi:10.2307/1269547.
    """
    x = checked_counts(x)
    shape = np.broadcast_shapes(*(np.shape(part) for part in (x, mean, dispersion, zero_inflation)))
    thin = (_thin(np.asarray(part)) for part in (mean, dispersion, zero_inflation))
    mean, dispersion, zero_inflation = checked_parameters(*thin)
    with np.errstate(divide="ignore"):  # log 0 = -inf is what is meant
        log_kept, log_dropped = np.log1p(-zero_inflation), np.log(zero_inflation)
    log_zero = log_kept + _log_zero(mean, dispersion)
    every = (x, log_zero, np.logaddexp(log_zero, log_dropped), mean, dispersion)
    x, log_zero, zero, mean, dispersion = (np.broadcast_to(part, shape or (1,)) for part in every)
    out, some = zero.copy(), np.nonzero(x)
    out[some] = log_zero[some] + _log_beyond_zero(x[some].astype(float), mean[some], dispersion[some])
    return out.reshape(shape)


def checked_parameters(*parameters: Floats | float) -> tuple[Floats, ...]:
    """Return mean, dispersion and zero inflation as float64 arrays; raise InputError with all that is out of range."""
    arrays = tuple(np.asarray(values, float) for values in parameters)
    problems = [
        f"{name} must be finite, at least 0{'' if most == np.inf else f' and at most {most:g}'}, got {_range(values)}"
        for (name, most), values in zip(_LIMITS, arrays, strict=True)
        if not (np.isfinite(values) & (values >= 0) & (values <= most)).all()
    ]
    if problems:
        raise InputError(several("Parameters of counts", problems))
    return arrays


def checked_counts(x: Ints | Floats) -> Ints | Floats:
    """Return counts as an array; raise InputError when any is negative, not whole or not a number."""
    x = np.asarray(x)
    if x.dtype.kind in "ub":
        return x
    if x.dtype.kind not in "if":
        raise InputError(f"Counts must be numbers, got the type {x.dtype}.")
    # NaN and infinity fail both comparisons below; a comparison with NaN is no warning
    good = (x >= 0) if x.dtype.kind == "i" else (x >= 0) & (np.floor(x) == x) & (x < np.inf)
    if not good.all():
        raise InputError(
            f"Counts must be whole numbers of at least 0; {np.size(x) - good.sum()} of {np.size(x)} are not, the first "
            f"is {x[~good].flat[0]}. Give raw counts, not normalised or log values."
        )
    return x


def _thin(values: Floats) -> Floats:
    """Cut axes along which a view repeats itself to length 1: a gene's parameters are worked on once, not per cell."""
    return values[tuple(slice(1) if step == 0 else slice(None) for step in values.strides)]


_LIMITS = (("mean", np.inf), ("dispersion", np.inf), ("zero inflation", 1.0))


def _log_zero(mean: Floats, dispersion: Floats) -> Floats:
    """Log probability of 0 without zero inflation: -log(1 + a m) / a, which tends to -m."""
    a = np.maximum(dispersion, SMALLEST)
    return -np.log1p(a * mean) / a


def _log_beyond_zero(x: Floats, mean: Floats, dispersion: Floats) -> Floats:
    """Return log P(x) - log P(0) of the negative binomial for x > 0, (k,)."""
    a = np.maximum(dispersion, SMALLEST)
    return special.xlogy(x, mean) - x * np.log1p(a * mean) + _log_rising(x, a) - special.gammaln(x + 1)


def _log_rising(x: Floats, a: Floats) -> Floats:
    """Sum of log(1 + k a) over k < x: log Gamma(x + r) - log Gamma(r) - x log r, with r = 1 / a."""
    r, out = 1 / a, np.empty_like(x)
    far = r > STIRLING_FROM
    near = ~far
    size, count = r[near], x[near]
    out[near] = special.gammaln(count + size) - special.gammaln(size) - count * np.log(size)
    size, count = r[far], x[far]
    out[far] = (size + count - 0.5) * np.log1p(count / size) - count + _stirling(size + count) - _stirling(size)
    return out


def _stirling(z: Floats) -> Floats:
    inverse = 1 / z
    squared = inverse * inverse
    return inverse * (1 / 12 - squared * (1 / 360 - squared / 1260))


def _positive(name: str, values: Floats | float, why: str) -> Floats:
    values = np.asarray(values, float)
    if not (np.isfinite(values) & (values > 0)).all():
        raise InputError(f"The {name} of counts must be finite and above 0, got {_range(values)}: {why}.")
    return values


def _range(values: Floats) -> str:
    if np.isnan(values).any():
        return f"NaN in {np.isnan(values).sum()} of {values.size}"
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
