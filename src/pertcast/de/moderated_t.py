"""Empirical-Bayes variances and the moderated t.

Sources: Smyth 2004, doi:10.2202/1544-6115.1027 (moderated t, moment estimates of the prior); the names follow limma.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from pertcast.de.linear_model import ContrastFit, LinearFit, fit_contrasts
from pertcast.errors import InputError
from pertcast.types import Floats


@dataclass(frozen=True, slots=True)
class Prior:
    """What the genes together say of one gene's variance."""

    df: float  # d0; infinite when the variances differ no more than chance makes them
    variance: float | Floats  # s0 squared; (g,) where it follows a trend
    posterior: Floats  # (g,)  variances shrunk towards the prior


@dataclass(frozen=True, slots=True)
class ModeratedT:
    """Contrasts with their moderated t."""

    effect: Floats  # (k, g)  in the unit of y
    t: Floats  # (k, g)
    df: float  # residual and prior df together
    unscaled_sd: Floats  # (k, 1), with weights (k, g): sd of a contrast over the sd of the residuals
    prior: Prior


def squeeze_variance(variance: Floats, df: float, *, covariate: Floats | None = None) -> Prior:
    """Estimate the scaled inverse chi-square prior by moments of the log variances, and shrink towards it.

    variance   (g,)  residual variances
    df               their residual degrees of freedom
    covariate  (g,)  such as the mean log expression: the prior variance follows it along a natural cubic spline

    Variances of exactly 0 count as 1e-5 of the median in the moments only, as in limma. Source: Smyth 2004, 6.2; the
    trend as in limma's eBayes(trend=TRUE). Raises InputError when fewer than half of the variances are above 0.
    """
    variance = np.asarray(variance, float)
    median = np.median(variance) if len(variance) else 0.0
    if len(variance) < 2 or not median > 0:
        raise InputError(f"Residual variances: of {len(variance)} genes more than half must vary, and 2 at least.")
    lifted = np.maximum(variance, 1e-5 * median)
    e = np.log(lifted) - special.digamma(df / 2) + np.log(df / 2)  # (g,)
    mean, spread = (e.mean(), e.var(ddof=1)) if covariate is None else _trend(e, np.asarray(covariate, float))
    excess = spread - special.polygamma(1, df / 2)
    if excess > 0:
        prior_df = 2 * float(trigamma_inverse(excess))
        s0 = np.exp(mean + special.digamma(prior_df / 2) - np.log(prior_df / 2))
        posterior = (prior_df * s0 + df * variance) / (prior_df + df)
    else:
        prior_df, s0 = np.inf, lifted.mean() if covariate is None else np.exp(mean)
        posterior = np.full_like(variance, s0)
    return Prior(prior_df, s0 if np.ndim(s0) else float(s0), posterior)


def _trend(e: Floats, covariate: Floats) -> tuple[Floats, float]:
    """Fit e (g,) by a natural cubic spline in the covariate: fitted values (g,) and residual variance."""
    if covariate.shape != e.shape or not np.isfinite(covariate).all():
        raise InputError(f"The prior variance follows {covariate.shape} numbers; expected {e.shape}, all finite.")
    width = 1 + (len(e) >= 3) + (len(e) >= 6) + (len(e) >= 30)
    width = min(width, len(np.unique(covariate)))
    if width < 2:
        return np.full_like(e, e.mean()), float(e.var(ddof=1))
    low, high = covariate.min(), covariate.max()
    x = (covariate - low) / (high - low)
    knots = np.quantile(x, np.linspace(0, 1, width)[1:-1])
    q, _ = np.linalg.qr(_natural_spline(x, knots))  # (g, width)
    fitted = q @ (q.T @ e)
    return fitted, float(((e - fitted) ** 2).sum() / (len(e) - width))


def _natural_spline(x: Floats, knots: Floats) -> Floats:
    """Basis of cubic splines on [0, 1] that are straight lines outside: (g, knots + 2)."""

    def bend(knot: float) -> Floats:
        return (np.maximum(x - knot, 0) ** 3 - np.maximum(x - 1, 0) ** 3) / (1 - knot)

    last = np.concatenate([[0.0], knots])[-1]
    bends = [bend(knot) - bend(last) for knot in [0.0, *knots[:-1]]] if len(knots) else []
    return np.column_stack([np.ones_like(x), x, *bends])


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


def moderated_t(fit: LinearFit | ContrastFit, contrasts: Floats | None = None, *,
                trend: Floats | None = None) -> ModeratedT:  # fmt: skip
    """Test contrasts with variances shrunk over the genes.

    fit        of all genes; a LinearFit with `contrasts`, or contrasts that were taken already
    contrasts  (p, k)  one column per contrast
    trend      (g,)    mean log expression, where the prior variance should follow it
    """
    if isinstance(fit, LinearFit):
        if contrasts is None:
            raise InputError("A fit needs contrasts to test; the unit matrix tests every coefficient.")
        fit = fit_contrasts(fit, contrasts)
    elif contrasts is not None:
        raise InputError("These contrasts were taken with their fit; give no others.")
    prior = squeeze_variance(fit.residual_variance, fit.df, covariate=trend)
    t = fit.effect / (fit.unscaled_sd * np.sqrt(prior.posterior))
    df = min(fit.df + prior.df, float(fit.df * len(fit.residual_variance)))  # never more than all genes hold together
    return ModeratedT(fit.effect, t, df, fit.unscaled_sd, prior)
