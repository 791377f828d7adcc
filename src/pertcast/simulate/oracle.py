"""The ceiling: what is predicted by one who knows all that was planted, but not the noise of the treated wells.

The contrast of a compound is linear in the log-CPM of the wells. The oracle has the control wells as they were
measured (their noise is shared by all rows of a cell type, so it can be learnt) and the residual variance, but for
every treated well only the distribution of its log-CPM. A row's t is then normal around the same linear map of the
expectations, and the best prediction under squared error is the expected signed -log10 p.
"""

import numpy as np
from scipy import special

from pertcast.de.log10_p import signed_log10_p
from pertcast.types import Floats, Ints

LN2 = np.log(2.0)
NODES = 9  # of Gauss-Hermite quadrature; exact to 1e-4 of the value
EXACT_MEAN = 60.0  # up to this mean the moments are summed over the counts; beyond it by expansion


def log2_count_moments(mean: Floats, dispersion: float) -> tuple[Floats, Floats]:
    """Return mean and variance of log2(count + 0.5) for negative-binomial counts.

    mean        (m,)  > 0
    dispersion        > 0, variance = mean + dispersion * mean^2

    Small means are summed over the counts. Beyond, the log of the gamma-distributed rate has mean
    digamma(size) - log(size) + log(mean) and variance trigamma(size), and Poisson sampling adds its delta-method
    variance E[1 / rate]; the 0.5 cancels the Poisson bias to first order.
    """
    mean = np.asarray(mean, float)
    size = 1 / dispersion
    first = np.log(mean) + special.digamma(size) - np.log(size)
    second = special.polygamma(1, size) + 1 / (mean * max(1 - dispersion, 0.5))
    small = mean <= EXACT_MEAN
    if small.any():
        first[small], second[small] = _summed_moments(mean[small], size)
    return first / LN2, second / LN2**2


def _summed_moments(mean: Floats, size: float) -> tuple[Floats, Floats]:
    top = mean.max()
    counts = np.arange(int(top + 15 * np.sqrt(top + top**2 / size)) + 10)  # (c,)
    log_pmf = (
        special.gammaln(counts + size) - special.gammaln(size) - special.gammaln(counts + 1)
        + size * np.log(size / (size + mean))[:, None] + counts * np.log(mean / (size + mean))[:, None]
    )  # fmt: skip  # (m, c)
    pmf = np.exp(log_pmf)
    value = np.log(counts + 0.5)
    first = pmf @ value
    return first, pmf @ value**2 - first**2


def log_cpm_moments(log_mean: Floats, dispersion: Floats, *, depth_sd: float) -> tuple[Floats, Floats]:
    """Return mean and variance of log2((count + 0.5) / depth factor) over counts and over the depth of the well.

    log_mean    (n, g)  natural log of the expected count in a well of median depth
    dispersion  (g,)    few distinct values
    depth_sd            sd of the natural log of the depth factor, normal with mean 0

    Functions of one variable per dispersion, tabulated on a fine grid and interpolated. That the sum of the counts
    varies about its expectation is ignored; with hundreds of genes its effect on log-CPM is a few per cent of a well's
    own sd.
    """
    grid = np.linspace(log_mean.min() - 0.1, log_mean.max() + 0.1, 400)
    nodes, weights = _normal_quadrature(9)
    mean, variance = np.empty_like(log_mean), np.empty_like(log_mean)
    for value in np.unique(dispersion):
        genes = dispersion == value
        given = [log2_count_moments(np.exp(grid + depth_sd * node), value) for node in nodes]
        first = np.array([m - depth_sd * node / LN2 for (m, _), node in zip(given, nodes, strict=True)])  # (9, 400)
        average = weights @ first
        spread = weights @ (np.array([v for _, v in given]) + first**2) - average**2
        mean[:, genes] = np.interp(log_mean[:, genes], grid, average)
        variance[:, genes] = np.interp(log_mean[:, genes], grid, spread)
    return mean, variance


def _normal_quadrature(nodes: int) -> tuple[Floats, Floats]:
    """Nodes and weights for the expectation under the standard normal distribution."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    return x, w / w.sum()


def expected_signed_log10_p(t: Floats, sd: Floats, df: float) -> Floats:
    """Return E[signed -log10 p of T] for T normal with mean t and standard deviation sd.

    t, sd  (k, g)

    The response is a smooth function of t: tabulated evenly in asinh(t), where it is nearly polynomial.
    """
    reach = np.arcsinh(np.abs(t).max() + 6 * sd.max() + 1)
    grid = np.linspace(-reach, reach, 8001)
    table = signed_log10_p(np.sinh(grid), df)
    total = np.zeros_like(t)
    for node, weight in zip(*_normal_quadrature(NODES), strict=True):
        total += weight * np.interp(np.arcsinh(t + sd * node), grid, table)
    return total


def oracle_rows(maps: Floats, y: Floats, treated: tuple[Floats, Floats], wells: Ints, *, scale: Floats,
                df: float) -> Floats:  # fmt: skip
    """Predict the rows of one cell type.

    maps     (k, n)  the contrasts as linear maps of the wells
    y        (n, g)  measured log-CPM; only the control wells are looked at
    treated  mean and variance of log-CPM of the treated wells, both (n_treated, g)
    wells    (n_treated,)  which wells are treated
    scale    (k, g)  posterior standard error of each contrast
    """
    mean, variance = treated
    control = np.setdiff1d(np.arange(len(y)), wells)
    centre = maps[:, control] @ y[control] + maps[:, wells] @ mean  # (k, g)
    spread = np.sqrt(maps[:, wells] ** 2 @ variance)  # (k, g)
    return expected_signed_log10_p(centre / scale, spread / scale, df)
