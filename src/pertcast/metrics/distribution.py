"""Metrics of two samples of cells: how far predicted cells lie from measured ones, as distributions.

Every metric takes `y_true` (n, g) and `y_pred` (m, g), dense or scipy sparse: cells in rows, the same genes in the same
order in columns, both in one unit (counts or log1p). The numbers of cells may differ, cells are not paired, and their
order means nothing. NaN and infinity are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from pertcast.errors import InputError
from pertcast.metrics.samples import Cellwise, checked_samples, drawn_cells, gene_blocks
from pertcast.types import Floats

MOST_CELLS = 2000  # a side of the energy distance, whose cost grows with the product of both numbers


@dataclass(frozen=True, slots=True)
class DistributionScores:
    """Scores of one prediction. Lower is better and 0 the best everywhere but in `variance_ratio`, whose best is 1."""

    mae_of_means: float  # unit of the cells
    mse_of_means: float  # unit squared
    wasserstein: float  # unit of the cells
    energy_distance: float  # squared form, unit of the cells
    variance_ratio: float  # NaN where no gene varies in the truth
    zero_share_error: float  # a share
    constant_genes: int  # that do not vary in the truth, and have no variance ratio
    genes: int
    cells_true: int
    cells_pred: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the scores by name, for JSON: None stands for what is not defined."""
        return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in asdict(self).items()}


def evaluate(*, y_true: Cellwise, y_pred: Cellwise, seed: int = 0) -> DistributionScores:
    """Score predicted cells against measured ones by every metric of this module.

    y_true, y_pred  (n, g), (m, g)  same genes, same order, same unit
    seed            of the cells drawn for the energy distance where a side has more than MOST_CELLS
    Raises InputError, naming all faults at once.
    """
    pair = checked_samples(y_true, y_pred)
    true, predicted = pair
    ratios = per_gene_variance_ratio(y_true=true, y_pred=predicted)
    constant = int(np.isnan(ratios).sum())
    return DistributionScores(
        mae_of_means=mae_of_means(y_true=true, y_pred=predicted),
        mse_of_means=mse_of_means(y_true=true, y_pred=predicted),
        wasserstein=wasserstein(y_true=true, y_pred=predicted),
        energy_distance=energy_distance(y_true=true, y_pred=predicted, seed=seed),
        variance_ratio=_median(ratios),
        zero_share_error=zero_share_error(y_true=true, y_pred=predicted),
        constant_genes=constant,
        genes=true.shape[1],
        cells_true=true.shape[0],
        cells_pred=predicted.shape[0],
    )


def mae_of_means(*, y_true: Cellwise, y_pred: Cellwise) -> float:
    """Mean absolute error of gene means.

    Definition: mean over genes of |mean(y_pred) - mean(y_true)|. Range 0 to infinity, best 0, unit of the cells.
    Blind to spread and to how genes vary together. Source: S002-10; OpenProblems' `mean_absolute_error` on pseudobulk.
    """
    return float(np.abs(_differences_of_means(y_true, y_pred)).mean())


def mse_of_means(*, y_true: Cellwise, y_pred: Cellwise) -> float:
    """Mean squared error of gene means.

    Definition: mean over genes of (mean(y_pred) - mean(y_true))^2. Range 0 to infinity, best 0, unit squared.
    Dominated by the genes that are far off. Source: Lotfollahi et al. 2019, doi:10.1038/s41592-019-0494-8.
    """
    return float(np.square(_differences_of_means(y_true, y_pred)).mean())


def wasserstein(*, y_true: Cellwise, y_pred: Cellwise) -> float:
    """Wasserstein-1 distance of each gene's distribution, averaged over genes.

    Definition: mean over genes of the integral over q in (0, 1) of |Q_pred(q) - Q_true(q)|, Q the empirical quantile
    function: how far counts must be moved on average. Exact for any two numbers of cells.
    Range 0 to infinity, best 0, unit of the cells; a shift of a gene by c costs |c|.
    Source: Vallender 1974, doi:10.1137/1118101.
    """
    return float(per_gene_wasserstein(y_true=y_true, y_pred=y_pred).mean())


def per_gene_wasserstein(*, y_true: Cellwise, y_pred: Cellwise) -> Floats:
    """Wasserstein-1 distance of every gene: (n, g), (m, g) -> (g,). See `wasserstein`."""
    true, predicted = checked_samples(y_true, y_pred)
    n, m = true.shape[0], predicted.shape[0]
    # Both quantile functions are constant between these cuts, counted in units of 1 / (n m) so that they are exact.
    cuts = np.union1d(np.arange(n + 1, dtype=np.int64) * m, np.arange(m + 1, dtype=np.int64) * n)
    start, width = cuts[:-1], np.diff(cuts) / (n * m)
    found = []
    for a, b in gene_blocks(true, predicted):
        a, b = np.sort(a.T, axis=1), np.sort(b.T, axis=1)  # (b, n), (b, m)
        if n != m:
            a, b = a[:, start // m], b[:, start // n]  # (b, cuts - 1)
        found.append(np.abs(a - b) @ width)
    return np.concatenate(found)


def energy_distance(
    *, y_true: Cellwise, y_pred: Cellwise, seed: int = 0, most: int = MOST_CELLS, root: bool = False
) -> float:
    """Energy distance of the two samples, all genes together.

    Definition: E = 2 mean|x - y| - mean|x - x'| - mean|y - y'| with Euclidean distances, x, x' true and y, y' predicted
    cells, every cell also paired with itself (the V-statistic, never negative). This is the squared form, in the unit
    of the cells; with `root` its square root, a metric between distributions, in the square root of that unit.
    Range 0 to infinity, best 0 (two finite samples of one distribution lie a little above it).

    seed, most  of a side with more cells, `most` are drawn; the draw does not depend on the order of the cells
    Source: Szekely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018.
    """
    across, within_true, within_predicted, _ = _mean_distances(y_true, y_pred, seed, most)
    squared = max(2 * across - within_true - within_predicted, 0.0)
    return float(np.sqrt(squared)) if root else squared


def unbiased_energy_distance(*, y_true: Cellwise, y_pred: Cellwise, seed: int = 0, most: int = MOST_CELLS) -> float:
    """Energy distance of the two samples without the bias of small ones: no cell is paired with itself.

    Definition: as `energy_distance`, its two means within a sample taken over different cells (the U-statistic). Two
    samples of one distribution give 0 on average and may lie a little below it. Range about 0 to infinity, best 0, unit
    of the cells.
    Source: Szekely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018; Gretton et al. 2012 for the unbiased form.
    Raises InputError for fewer than 2 cells a side.
    """
    across, within_true, within_predicted, (n, m) = _mean_distances(y_true, y_pred, seed, most)
    if min(n, m) < 2:
        raise InputError(f"The unbiased energy distance needs at least 2 cells a side, got {n} and {m}.")
    return 2 * across - within_true * n / (n - 1) - within_predicted * m / (m - 1)


def variance_ratio(*, y_true: Cellwise, y_pred: Cellwise) -> float:
    """Median over genes of the variance of the prediction over that of the truth.

    Range 0 to infinity, best 1, no unit: below 1 predicted cells are too alike, above 1 too scattered. Genes that do
    not vary in the truth are left out; NaN if there is no other. Variances divide by the number of cells less one.
    Source: S002-11.
    """
    return _median(per_gene_variance_ratio(y_true=y_true, y_pred=y_pred))


def per_gene_variance_ratio(*, y_true: Cellwise, y_pred: Cellwise) -> Floats:
    """Variance of the prediction over that of the truth: (g,), NaN for a gene that does not vary in the truth."""
    true, predicted = checked_samples(y_true, y_pred)
    found = []
    for a, b in gene_blocks(true, predicted):
        varies = a.max(axis=0) > a.min(axis=0)  # a variance from rounding alone is none
        below = np.where(varies, _variance(a), np.nan)
        found.append(_variance(b) / below)
    return np.concatenate(found)


def total_variance_ratio(*, y_true: Cellwise, y_pred: Cellwise) -> float:
    """Variance of the prediction over that of the truth, each summed over genes.

    Range 0 to infinity, best 1, no unit. Strongly expressed genes weigh most, unlike in `variance_ratio`; NaN where no
    gene varies in the truth. Variances divide by the number of cells less one. Source: S002-11.
    """
    true, predicted = checked_samples(y_true, y_pred)
    sums = np.sum([(_variance(a).sum(), _variance(b).sum()) for a, b in gene_blocks(true, predicted)], axis=0)
    return float(sums[1] / sums[0]) if sums[0] > 0 else float("nan")


def zero_share_error(*, y_true: Cellwise, y_pred: Cellwise) -> float:
    """Mean absolute difference of each gene's share of zeros.

    Definition: mean over genes of |share of predicted cells with 0 - share of true cells with 0|. Range 0 to 1, best 0,
    a share. Expected counts instead of drawn ones score badly: they are never 0. Source: S002-11.
    """
    return float(np.abs(_differences_of_zero_shares(y_true, y_pred)).mean())


def total_zero_share_error(*, y_true: Cellwise, y_pred: Cellwise) -> float:
    """Absolute difference of the share of zeros among all values.

    Range 0 to 1, best 0, a share. Genes with too many zeros make up for those with too few; `zero_share_error` does not
    let them. Source: S002-11.
    """
    return float(np.abs(_differences_of_zero_shares(y_true, y_pred).mean()))


def _differences_of_means(y_true: Cellwise, y_pred: Cellwise) -> Floats:
    true, predicted = checked_samples(y_true, y_pred)
    return np.concatenate([b.mean(axis=0) - a.mean(axis=0) for a, b in gene_blocks(true, predicted)])


def _differences_of_zero_shares(y_true: Cellwise, y_pred: Cellwise) -> Floats:
    true, predicted = checked_samples(y_true, y_pred)
    shares = [(b == 0).mean(axis=0) - (a == 0).mean(axis=0) for a, b in gene_blocks(true, predicted)]
    return np.concatenate(shares)


def _mean_distances(
    y_true: Cellwise, y_pred: Cellwise, seed: int, most: int
) -> tuple[float, float, float, tuple[int, int]]:
    """Mean distance across both sides, within the true one, within the predicted one; and how many cells each has."""
    true, predicted = (drawn_cells(side, seed, most) for side in checked_samples(y_true, y_pred))
    centre = np.concatenate([true, predicted]).mean(axis=0)  # distances stay, the squares below lose fewer digits
    true, predicted = true - centre, predicted - centre
    means = (_mean_distance(a, b) for a, b in ((true, predicted), (true, true), (predicted, predicted)))
    return *means, (len(true), len(predicted))


def _mean_distance(a: Floats, b: Floats) -> float:
    """Mean Euclidean distance over all pairs: (n, g), (m, g) -> one number."""
    squared = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * (a @ b.T)
    if a is b:
        np.fill_diagonal(squared, 0.0)
    return float(np.sqrt(np.maximum(squared, 0.0)).mean())


def _variance(values: Floats) -> Floats:
    return np.square(values - values.mean(axis=0)).sum(axis=0) / max(len(values) - 1, 1)


def _median(ratios: Floats) -> float:
    known = ratios[~np.isnan(ratios)]
    return float(np.median(known)) if len(known) else float("nan")


METRICS: dict[str, Callable[..., float]] = {
    metric.__name__: metric
    for metric in (
        mae_of_means,
        mse_of_means,
        wasserstein,
        energy_distance,
        unbiased_energy_distance,
        variance_ratio,
        total_variance_ratio,
        zero_share_error,
        total_zero_share_error,
    )
}
