"""B: the log odds that a gene responds to a contrast, given how many genes do.

Source: Smyth 2004, doi:10.2202/1544-6115.1027, section 6.3 and appendix; the numbers are those of limma's eBayes.
"""

import numpy as np
from scipy import special

from pertcast.de.moderated_t import ModeratedT
from pertcast.errors import InputError
from pertcast.types import Floats

NORMAL_DF = 1e6  # above it the prior counts as certain, and t as normal


def log_odds(tests: ModeratedT, *, proportion: float = 0.01, sd_limits: tuple[float, float] = (0.1, 4.0)) -> Floats:
    """Return B, natural log odds of responding, for each contrast and gene: (k, g).

    proportion  of genes that respond, in (0, 1)
    sd_limits   between which the sd of true effects lies, in the unit of y
    """
    if not 0 < proportion < 1 or not 0 < sd_limits[0] <= sd_limits[1]:
        raise InputError(f"Give a proportion in (0, 1) and ascending limits above 0, got {proportion}, {sd_limits}.")
    limits = np.square(sd_limits) / np.median(tests.prior.variance)
    own = np.broadcast_to(tests.unscaled_sd, tests.t.shape) ** 2  # (k, g)
    added = np.array([
        _effect_variance(abs(t), v, (tests.df, proportion), limits) for t, v in zip(tests.t, own, strict=True)
    ])  # (k,)  # fmt: skip
    ratio = (own + added[:, None]) / own
    t2 = tests.t**2
    if tests.prior.df > NORMAL_DF:
        gain = t2 * (1 - 1 / ratio) / 2
    else:
        gain = (1 + tests.df) / 2 * np.log((t2 + tests.df) / (t2 / ratio + tests.df))
    return special.logit(proportion) - np.log(ratio) / 2 + gain


def _effect_variance(t: Floats, own: Floats, law: tuple[float, float], limits: Floats) -> float:
    """Variance of true effects over that of a residual, from how far the largest |t| (g,) lie beyond chance."""
    df, proportion = law
    genes = len(t)
    top = int(np.ceil(proportion / 2 * genes))
    share = max(top / genes, proportion)
    largest = np.argsort(-t, kind="stable")[:top]
    by_chance = 2 * _upper_tail(t[largest], df)
    wanted = ((np.arange(1, top + 1) - 0.5) / genes - (1 - share) * by_chance) / share
    variance = np.zeros(top)
    beyond = wanted > by_chance
    expected = _upper_quantile(wanted[beyond] / 2, df)
    variance[beyond] = own[largest][beyond] * ((t[largest][beyond] / expected) ** 2 - 1)
    return float(np.clip(variance, *limits).mean())


def _upper_tail(t: Floats, df: float) -> Floats:
    return special.ndtr(-t) if np.isinf(df) else special.stdtr(df, -t)


def _upper_quantile(p: Floats, df: float) -> Floats:
    return -special.ndtri(p) if np.isinf(df) else -special.stdtrit(df, p)
