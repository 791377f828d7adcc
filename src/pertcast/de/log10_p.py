"""log10 of the two-sided p of Student's t, far into the tails, its inverse, and adjustment for many tests.

A p of 1e-400 is no number of its own in float64, but its logarithm is: everything here stays on the log scale.
"""

import numpy as np
from scipy import special

from pertcast.errors import InputError
from pertcast.types import Floats

LN10 = np.log(10.0)
TAIL_P = 1e-200  # below it the incomplete beta function nears underflow; the tail series takes over
TAIL_TERMS = 10  # at p = 1e-200 and any df the last term is below 1e-14 of the first


def log10_p(t: Floats, df: float) -> Floats:
    """Return log10 of the two-sided p of Student's t, finite for any finite t.

    t   any shape
    df  > 0, may be infinite (the normal distribution)
    """
    t = np.abs(np.asarray(t, float))
    if np.isinf(df):
        return np.asarray((special.log_ndtr(-t) + np.log(2)) / LN10)
    p = 2 * special.stdtr(df, -t)
    tail = p < TAIL_P
    result = np.array(np.log10(np.where(tail, 1.0, p)))  # an array for a single t too
    result[tail] = _log10_p_tail(t[tail], df)
    return result


def _log10_p_tail(t: Floats, df: float) -> Floats:
    """log10 p far out: p = x^a (1-x)^(b-1) / (a B(a,b)) 2F1(1, 1-b; a+1; x/(x-1)), x = df/(df+t^2), a = df/2, b = 1/2.

    Source: DLMF 8.17.7 with the transformation 15.8.1.
    """
    a = df / 2
    z = -df / t**2
    series = np.ones_like(t)
    term = np.ones_like(t)
    for k in range(TAIL_TERMS):
        term = term * (0.5 + k) / (a + 1 + k) * z
        series += term
    log_x = -np.log1p(t**2 / df)
    log_rest = -np.log1p(df / t**2)  # log(1 - x)
    return (a * log_x - 0.5 * log_rest - np.log(a) - special.betaln(a, 0.5) + np.log(series)) / LN10


def signed_log10_p(t: Floats, df: float) -> Floats:
    """Return sign(t) times -log10 of the two-sided p: the competition's response. Any shape, same shape back."""
    t = np.asarray(t, float)
    return np.copysign(log10_p(t, df), t)


def t_from_signed_log10_p(value: Floats, df: float) -> Floats:
    """Invert `signed_log10_p`: the t whose two-sided p is 10**-|value|, with the sign of the value."""
    value = np.asarray(value, float)
    size = np.abs(value)
    near = np.minimum(size, -np.log10(TAIL_P))
    half = 0.5 * 10.0**-near
    t = np.array(-special.ndtri(half) if np.isinf(df) else -special.stdtrit(df, half))
    far = size > near
    t[far] = _t_far(size[far], df)
    return np.copysign(t, value)


def _t_far(size: Floats, df: float) -> Floats:
    """Newton's method in u = log t, in which log p is concave, so that no step from the left overshoots."""
    t = np.full_like(size, 1.0) * np.sqrt(2 * LN10 * size)
    for _ in range(60):
        excess = (-log10_p(t, df) - size) * LN10  # > 0 where t is too far out
        step = excess / _hazard_times_t(t, df)
        t = t * np.exp(-step)
        if np.abs(step).max(initial=0.0) < 1e-13:
            break
    return t


def _hazard_times_t(t: Floats, df: float) -> Floats:
    """-d log p / d log t = t f(t) / S(t), from a central difference exact enough for Newton's method."""
    h = 1e-4
    return (log10_p(t * np.exp(-h), df) - log10_p(t * np.exp(h), df)) * LN10 / (2 * h)


def adjust_log10_p(values: Floats) -> Floats:
    """Adjust p for the false discovery rate, each row by itself, on the log scale so that nothing underflows.

    values   (..., g)  log10 of p, at most 0, finite or -inf
    returns  (..., g)  log10 of the adjusted p, at most 0

    Raises InputError for values that are NaN or above 0. Source: Benjamini and Hochberg 1995,
    doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    values = np.asarray(values, float)
    wrong = np.count_nonzero(~(values <= 0))
    if wrong:
        raise InputError(f"log10 p: {wrong} values are NaN or above 0. Leave genes out that were not tested.")
    count = values.shape[-1] if values.ndim else 1
    order = np.argsort(values, axis=-1, kind="stable")
    ascending = np.take_along_axis(values, order, axis=-1)
    steps = ascending + np.log10(count / np.arange(1, count + 1))
    smallest_above = np.minimum.accumulate(steps[..., ::-1], axis=-1)[..., ::-1]
    adjusted = np.empty_like(values)
    np.put_along_axis(adjusted, order, np.minimum(smallest_above, 0.0), axis=-1)
    return adjusted
