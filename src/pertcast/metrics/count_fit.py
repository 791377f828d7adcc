"""Zero-inflated negative binomials fitted gene by gene, by maximum likelihood: the reference that models approach."""

from __future__ import annotations

import numpy as np
from scipy import optimize, special

from pertcast.errors import InputError
from pertcast.metrics.count_likelihood import CountParameters, checked_counts, zinb_log_likelihood
from pertcast.types import Floats, Ints

LOG_DISPERSION = (-18.0, 9.0)  # at the lower end a count is Poisson to eight digits
LOG_MEAN = (-18.0, 30.0)


def fit_zinb(counts: Ints) -> CountParameters:
    """Estimate mean, dispersion and zero inflation of every gene: three arrays (g,).

    counts      (n, g) whole numbers, dense or scipy sparse

    The histogram of a gene is all that its likelihood needs. Counts above 0 follow a zero-truncated negative binomial
    whatever the zero inflation, so mean and dispersion are fitted to them and the zero inflation then meets the share
    of zeros exactly; where that would take a negative one, it is 0 and the plain negative binomial is fitted. A gene
    without any count has mean, dispersion and zero inflation 0.
    Raises InputError for counts that are negative or not whole, or no cell.
    Source: Lambert 1992, doi:10.2307/1269547; Mullahy 1986, doi:10.1016/0304-4076(86)90002-3 (two parts).
    """
    columns = counts.tocsc() if hasattr(counts, "tocsc") else np.asarray(counts)
    if columns.ndim != 2 or not columns.shape[0]:
        raise InputError(f"Counts to fit must be a table (n, g) with at least one cell, got shape {columns.shape}.")
    fitted = [_fit_gene(*_histogram(columns, gene)) for gene in range(columns.shape[1])]
    return CountParameters(*np.array(fitted, float).reshape(-1, 3).T)


def _histogram(columns: Ints, gene: int) -> tuple[Ints, Ints]:
    """Return the distinct counts of a gene and how often each occurs, 0 first."""
    if hasattr(columns, "indptr"):
        stored = checked_counts(columns.data[columns.indptr[gene] : columns.indptr[gene + 1]])
        stored = stored[stored > 0]
    else:
        column = checked_counts(columns[:, gene])
        stored = column[column > 0]
    values, times = np.unique(stored, return_counts=True)
    return np.append(0, values), np.append(columns.shape[0] - len(stored), times)


def _fit_gene(values: Ints, times: Ints) -> tuple[float, float, float]:
    """(k,) distinct counts, 0 first, and (k,) how often -> mean, dispersion, zero inflation."""
    n, zeros = times.sum(), times[0]
    if zeros == n:
        return 0.0, 0.0, 0.0
    mean, dispersion = _truncated(values[1:].astype(float), times[1:])
    log_p0 = -np.log1p(dispersion * mean) / dispersion
    inflation = (zeros / n - np.exp(log_p0)) / -np.expm1(log_p0)
    if inflation > 0:
        return mean, dispersion, inflation
    mean = values @ times / n  # the estimate of a mean without zero inflation is the average, whatever the dispersion
    return mean, _plain(values, times, mean), 0.0


def _truncated(x: Floats, times: Ints) -> tuple[float, float]:
    """Fit mean and dispersion to counts that are all above 0, by their zero-truncated likelihood."""
    total = times.sum()
    mean = x @ times / total
    spread = (x - mean) ** 2 @ times / total
    start = np.log([mean, np.clip((spread - mean) / mean**2, 1e-3, 1e3)])

    def loss(logs: Floats) -> tuple[float, Floats]:
        value, slope = _truncated_loss(*np.exp(logs), x, times)
        return value / total, slope / total

    tight = {"ftol": 1e-13, "gtol": 1e-8}
    done = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=(LOG_MEAN, LOG_DISPERSION), options=tight)
    mean, dispersion = np.exp(done.x)
    return float(mean), float(dispersion)


def _truncated_loss(mean: float, a: float, x: Floats, times: Ints) -> tuple[float, Floats]:
    """Negative truncated log likelihood, and its slope in the logs of mean and dispersion."""
    log_p0 = -np.log1p(a * mean) / a
    share = -np.expm1(log_p0)  # of counts above 0
    value = zinb_log_likelihood(x, mean, a) @ times - times.sum() * np.log(share)
    r = 1 / a
    to_mean = (x - mean) / (1 + a * mean)  # mean * d log P(x) / d mean
    to_size = special.digamma(x + r) - special.digamma(r) - np.log1p(a * mean) + (mean - x) / (r + mean)
    odds = np.exp(log_p0) / share
    zero_to_mean = -mean / (1 + a * mean)
    zero_to_dispersion = -log_p0 - mean / (1 + a * mean)
    slope = (
        to_mean @ times + times.sum() * odds * zero_to_mean,
        -r * (to_size @ times) + times.sum() * odds * zero_to_dispersion,
    )
    return -value, -np.array(slope)


def _plain(values: Ints, times: Ints, mean: float) -> float:
    """Fit the dispersion of a negative binomial whose mean is known."""
    done = optimize.minimize_scalar(
        lambda log_a: -(zinb_log_likelihood(values, mean, np.exp(log_a)) @ times) / times.sum(),
        bounds=LOG_DISPERSION, method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    return float(np.exp(done.x))
