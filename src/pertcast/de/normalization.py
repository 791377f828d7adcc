"""Library sizes that can be compared, log2 counts per million, and which genes have enough counts to be tested.

Samples are rows here, (n, g), where edgeR has them as columns.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from pertcast.errors import InputError, several, shorten
from pertcast.types import Floats, Ints


def library_sizes(counts: Ints) -> Floats:
    """Return the sum of each sample (n, g) -> (n,).

    Raises InputError when counts are negative or not finite, or a sample has none at all.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or not counts.size:
        raise InputError(f"Counts must be samples by genes, at least one of each, got shape {counts.shape}.")
    total = counts.sum(axis=1, dtype=float)
    problems = []
    if not np.isfinite(total).all() or counts.min() < 0:
        problems.append("counts must be finite and not negative")
    if (total == 0).any():
        problems.append(f"samples without any count: {shorten(np.flatnonzero(total == 0))} (numbered from 0)")
    if problems:
        raise InputError(several("Counts", problems))
    return total


def effective_sizes(counts: Ints, lib_size: Floats | None = None) -> Floats:
    """Return library sizes (n,) checked against the counts (n, g): those given, or the sums of the samples."""
    total = library_sizes(counts)
    if lib_size is None:
        return total
    lib_size = np.asarray(lib_size, float)
    if lib_size.shape != total.shape or not (np.isfinite(lib_size) & (lib_size > 0)).all():
        raise InputError(f"Library sizes must be {len(total)} finite numbers above 0, got {shorten(lib_size)}.")
    return lib_size


def tmm_factors(
    counts: Ints,
    lib_size: Floats | None = None,
    *,
    reference: int | None = None,
    log_ratio_trim: float = 0.3,
    sum_trim: float = 0.05,
    a_cutoff: float = -1e10,
) -> Floats:
    """Return factors by which library sizes are multiplied to be effective ones; their geometric mean is 1.

    counts          (n, g)
    lib_size        (n,)  sums of the samples unless given
    reference       the sample that others are compared to; unless given the one whose upper quartile, over its library
                    size, is nearest the mean of all
    log_ratio_trim  share of the genes cut off at either end by log ratio
    sum_trim        share of the genes cut off at either end by mean log expression
    a_cutoff        genes whose mean log expression is below it are left out

    The trimmed mean of M values. Source: Robinson and Oshlack 2010, doi:10.1186/gb-2010-11-3-r25; the defaults and the
    choice of the reference are those of edgeR's calcNormFactors.
    """
    lib_size = effective_sizes(counts, lib_size)
    n = len(counts)
    if reference is not None and not 0 <= reference < n:
        raise InputError(f"The reference must be a sample from 0 to {n - 1}, got {reference}.")
    if not (0 <= log_ratio_trim < 0.5 and 0 <= sum_trim < 0.5):
        raise InputError(f"Shares to trim must be in [0, 0.5), got {log_ratio_trim} and {sum_trim}.")
    counts = np.asarray(counts)
    counts = counts[:, counts.any(axis=0)].astype(float)
    if n == 1:
        return np.ones(1)
    reference = _reference(counts, lib_size) if reference is None else reference
    trims = (log_ratio_trim, sum_trim, a_cutoff)
    log2_factor = np.array([_log2_tmm(counts, lib_size, (i, reference), trims) for i in range(n)])
    return 2.0 ** (log2_factor - log2_factor.mean())


def _reference(counts: Floats, lib_size: Floats) -> int:
    quartile = np.quantile(counts, 0.75, axis=1) / lib_size
    if np.median(quartile) < 1e-20:
        return int(np.sqrt(counts).sum(axis=1).argmax())
    return int(np.abs(quartile - quartile.mean()).argmin())


def _log2_tmm(counts: Floats, lib_size: Floats, pair: tuple[int, int], trims: tuple[float, float, float]) -> float:
    """log2 of the factor of one sample against the reference, both given by number."""
    both = (counts[list(pair)] > 0).all(axis=0)
    (x, r), (size_x, size_r) = counts[np.ix_(pair, both)], lib_size[list(pair)]
    log_ratio = np.log2((x / size_x) / (r / size_r))
    expression = (np.log2(x / size_x) + np.log2(r / size_r)) / 2
    variance = (size_x - x) / size_x / x + (size_r - r) / size_r / r  # delta method, of binomial counts
    kept = expression > trims[2]
    log_ratio, expression, variance = log_ratio[kept], expression[kept], variance[kept]
    if not len(log_ratio) or np.abs(log_ratio).max() < 1e-6:
        return 0.0
    kept = _within(log_ratio, trims[0]) & _within(expression, trims[1])
    if not kept.any() or not (variance[kept] > 0).all():  # a sample of one gene has a binomial variance of 0
        return 0.0
    return float(np.average(log_ratio[kept], weights=1 / variance[kept]))


def _within(values: Floats, trim: float) -> NDArray[np.bool_]:
    """Mask of what is left after cutting a share off either end; tied values share their mean rank."""
    n = len(values)
    low = np.floor(n * trim) + 1
    rank = rankdata(values)
    return (rank >= low) & (rank <= n + 1 - low)


def log2_cpm(counts: Ints, lib_size: Floats | None = None, *, prior_count: float = 2.0) -> Floats:
    """Return log2 counts per million with a prior count in proportion to the library size: (n, g) -> (n, g).

    lib_size     (n,)  effective sizes; sums of the samples unless given
    prior_count        > 0, added to a sample of average size

    As edgeR's cpm(log=TRUE).
    """
    lib_size = effective_sizes(counts, lib_size)
    if not prior_count > 0:
        raise InputError(f"The prior count must be above 0, got {prior_count}.")
    prior = (prior_count * lib_size / lib_size.mean())[:, None]  # (n, 1)
    return np.log2((counts + prior) / (lib_size[:, None] + 2 * prior) * 1e6)


def log2_cpm_voom(counts: Ints, lib_size: Floats | None = None) -> Floats:
    """Return log2((count + 0.5) / (library size + 1) * 1e6): (n, g) -> (n, g).

    lib_size  (n,)  effective sizes; sums of the samples unless given. The offsets bear a sample without any count

    Source: Law et al. 2014, doi:10.1186/gb-2014-15-2-r29.
    """
    counts = np.asarray(counts)
    total = counts.sum(axis=1, keepdims=True) if lib_size is None else np.asarray(lib_size, float)[:, None]
    return np.log2((counts + 0.5) / (total + 1) * 1e6)


def filter_by_expression(
    counts: Ints,
    groups: NDArray | None = None,
    *,
    design: Floats | None = None,
    lib_size: Floats | None = None,
    min_count: float = 10,
    min_total_count: float = 15,
    large_n: int = 10,
    min_prop: float = 0.7,
) -> NDArray[np.bool_]:
    """Say which genes have enough counts, in as many samples as the smallest group has, to be tested: (g,).

    counts           (n, g)
    groups           (n,)  label of each sample; else `design` (n, p), else all samples are one group
    lib_size         (n,)  sums of the samples unless given
    min_count        needed in a sample of median size, so many counts per million in others
    min_total_count  needed over all samples
    large_n          from this size on, only `min_prop` of a group's further samples need the count

    As edgeR's filterByExpr. Source: Chen et al. 2016, doi:10.12688/f1000research.8987.2.
    """
    lib_size = effective_sizes(counts, lib_size)
    needed = _smallest_group(len(counts), groups, design)
    if needed > large_n:
        needed = large_n + (needed - large_n) * min_prop
    cutoff = min_count / np.median(lib_size) * 1e6
    enough = (counts / lib_size[:, None] * 1e6 >= cutoff).sum(axis=0) >= needed - 1e-14
    return enough & (np.asarray(counts).sum(axis=0) >= min_total_count - 1e-14)


def _smallest_group(samples: int, groups: NDArray | None, design: Floats | None) -> float:
    if groups is not None:
        if len(groups) != samples:
            raise InputError(f"Groups must name each of {samples} samples, got {len(groups)} labels.")
        return float(np.unique(np.asarray(groups), return_counts=True)[1].min())
    if design is None:
        return float(samples)
    u, s, _ = np.linalg.svd(np.asarray(design, float), full_matrices=False)
    u = u[:, s > 1e-7 * s[0]]
    return 1 / float((u**2).sum(axis=1).max())  # 1 over the largest leverage
