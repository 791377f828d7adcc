"""Linear model per gene, empirical-Bayes variances, moderated t and its signed -log10 p.

Sources: Smyth 2004, doi:10.2202/1544-6115.1027 (moderated t, moment estimates of the prior); the names follow limma.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pertcast.errors import InputError, several, shorten
from pertcast.types import Floats

LN10 = np.log(10.0)
TAIL_P = 1e-200  # below it the incomplete beta function nears underflow; the tail series takes over
TAIL_TERMS = 10  # at p = 1e-200 and any df the last term is below 1e-14 of the first


@dataclass(frozen=True, slots=True)
class LinearFit:
    """Least squares of every gene on the same design."""

    coefficients: Floats  # (p, g)
    residual_variance: Floats  # (g,)
    df: int  # samples minus columns of the design
    unscaled_covariance: Floats  # (p, p)  inverse of X'X


@dataclass(frozen=True, slots=True)
class Prior:
    """What the genes together say of one gene's variance."""

    df: float  # d0; infinite when the variances differ no more than chance makes them
    variance: float  # s0 squared
    posterior: Floats  # (g,)  variances shrunk towards the prior


@dataclass(frozen=True, slots=True)
class ModeratedT:
    """Contrasts with their moderated t."""

    effect: Floats  # (k, g)  in the unit of y
    t: Floats  # (k, g)
    df: float  # residual and prior df together
    unscaled_sd: Floats  # (k,)  sd of a contrast over the sd of the residuals
    prior: Prior


def fit_linear(y: Floats, design: Floats, *, names: Sequence[str] | None = None) -> LinearFit:
    """Fit every gene on the design by least squares.

    y       (n, g)  log expression, samples by genes
    design  (n, p)  full column rank, p < n
    names   (p,)    of the columns, for messages

    Raises InputError when shapes disagree, values are not finite, columns are aliased, or no residual df are left.
    """
    y, design = np.asarray(y, float), np.asarray(design, float)
    names = [f"column {j}" for j in range(design.shape[1])] if names is None else list(names)
    _check(y, design, names)
    n, p = design.shape
    q, r = np.linalg.qr(design)  # (n, p), (p, p)
    coefficients = np.linalg.solve(r, q.T @ y)  # (p, g)
    residual = y - design @ coefficients  # (n, g)
    variance = np.einsum("ng,ng->g", residual, residual) / (n - p)
    inverse = np.linalg.inv(r)
    return LinearFit(coefficients, variance, n - p, inverse @ inverse.T)


def _check(y: Floats, design: Floats, names: list[str]) -> None:
    problems = []
    if y.ndim != 2 or design.ndim != 2 or len(y) != len(design) or design.shape[1] != len(names):
        raise InputError(f"Design: y {y.shape}, design {design.shape} and {len(names)} names must agree.")
    for what, values in (("y", y), ("the design", design)):
        if not np.isfinite(values).all():
            problems.append(f"{what} has {np.count_nonzero(~np.isfinite(values))} values that are not finite")
    if not problems:
        aliased = aliased_columns(design)
        if aliased:
            problems.append(f"aliased with columns before them: {shorten((names[j] for j in aliased), most=10)}")
        if len(design) - design.shape[1] + len(aliased) < 1:
            problems.append(f"{len(design)} samples leave no residual degrees of freedom for {design.shape[1]} columns")
    if problems:
        raise InputError(several("Design", problems, fix="Drop aliased columns, or give more samples."))


def aliased_columns(design: Floats, *, tolerance: float = 1e-7) -> list[int]:
    """Return the columns that are linear combinations of columns before them; same tolerance as R's `lm`."""
    basis = np.zeros((len(design), 0))
    aliased = []
    for j, column in enumerate(design.T):
        rest = column - basis @ (basis.T @ column)
        rest = rest - basis @ (basis.T @ rest)  # once more: one pass of Gram-Schmidt loses digits
        size = np.linalg.norm(rest)
        if size <= tolerance * np.linalg.norm(column):
            aliased.append(j)
        else:
            basis = np.column_stack([basis, rest / size])
    return aliased


def squeeze_variance(variance: Floats, df: float) -> Prior:
    """Estimate the scaled inverse chi-square prior by moments of the log variances, and shrink towards it.

    variance  (g,)  residual variances
    df              their residual degrees of freedom

    Variances of exactly 0 count as 1e-5 of the median in the moments only, as in limma. Source: Smyth 2004, 6.2.
    """
    variance = np.asarray(variance, float)
    median = np.median(variance)
    if len(variance) < 2 or median <= 0:
        raise InputError(f"Residual variances: of {len(variance)} genes more than half must vary, and 2 at least.")
    log_variance = np.log(np.maximum(variance, 1e-5 * median))
    e = log_variance - special.digamma(df / 2) + np.log(df / 2)  # (g,)
    excess = e.var(ddof=1) - special.polygamma(1, df / 2)
    if excess > 0:
        prior_df = 2 * float(trigamma_inverse(excess))
        s0 = float(np.exp(e.mean() + special.digamma(prior_df / 2) - np.log(prior_df / 2)))
        posterior = (prior_df * s0 + df * variance) / (prior_df + df)
    else:
        prior_df, s0 = np.inf, float(variance.mean())
        posterior = np.full_like(variance, s0)
    return Prior(prior_df, s0, posterior)


def trigamma_inverse(y: float) -> float:
    """Solve trigamma(x) = y > 0 by Newton's method on 1 / trigamma, which is convex. Source: Smyth 2004, appendix."""
    if y > 1e7:  # trigamma(x) tends to 1 / x^2 for small x
        return 1 / np.sqrt(y)
    if y < 1e-6:  # and to 1 / x for large x
        return 1 / y
    x = 0.5 + 1 / y
    for _ in range(50):
        value = special.polygamma(1, x)
        step = value * (1 - value / y) / special.polygamma(2, x)
        x += step
        if -step / x < 1e-10:
            break
    return float(x)


def moderated_t(fit: LinearFit, contrasts: Floats) -> ModeratedT:
    """Test contrasts of the coefficients with variances shrunk over the genes.

    contrasts  (p, k)  one column per contrast
    """
    contrasts = np.asarray(contrasts, float)
    if contrasts.ndim != 2 or len(contrasts) != len(fit.coefficients):
        raise InputError(f"Contrasts {contrasts.shape} must have a row for each of {len(fit.coefficients)} columns.")
    prior = squeeze_variance(fit.residual_variance, fit.df)
    effect = contrasts.T @ fit.coefficients  # (k, g)
    unscaled_sd = np.sqrt(np.einsum("pk,pq,qk->k", contrasts, fit.unscaled_covariance, contrasts, optimize=True))
    t = effect / (unscaled_sd[:, None] * np.sqrt(prior.posterior))
    df = min(fit.df + prior.df, float(fit.df * len(fit.residual_variance)))  # never more than all genes hold together
    return ModeratedT(effect, t, df, unscaled_sd, prior)


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
