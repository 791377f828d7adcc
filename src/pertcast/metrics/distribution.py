"""Metrics of two samples of cells: how far predicted cells lie from measured ones, as distributions.

Every metric takes `y_true` (n, g) and `y_pred` (m, g), dense or scipy sparse: cells in rows, the same genes in the same
order in columns, both in one unit (counts or log1p). The numbers of cells may differ, cells are not paired, and their
order means nothing. NaN and infinity are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pertcast.errors import InputError, several
from pertcast.types import Floats

Cellwise = NDArray | sparse.sparray | sparse.spmatrix  # (n, g)

BLOCK = 1 << 22  # numbers of both samples that are held densely at once: 32 MB in float64
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
    pair = _pair(y_true, y_pred)
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
    true, predicted = _pair(y_true, y_pred)
    n, m = true.shape[0], predicted.shape[0]
    # Both quantile functions are constant between these cuts, counted in units of 1 / (n m) so that they are exact.
    cuts = np.union1d(np.arange(n + 1, dtype=np.int64) * m, np.arange(m + 1, dtype=np.int64) * n)
    start, width = cuts[:-1], np.diff(cuts) / (n * m)
    found = []
    for a, b in _blocks(true, predicted):
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
    true, predicted = (_drawn(side, seed, most) for side in _pair(y_true, y_pred))
    centre = np.concatenate([true, predicted]).mean(axis=0)  # distances stay, the squares below lose fewer digits
    true, predicted = true - centre, predicted - centre
    within = _mean_distance(true, true) + _mean_distance(predicted, predicted)
    squared = max(2 * _mean_distance(true, predicted) - within, 0.0)
    return float(np.sqrt(squared)) if root else squared


def variance_ratio(*, y_true: Cellwise, y_pred: Cellwise) -> float:
    """Median over genes of the variance of the prediction over that of the truth.

    Range 0 to infinity, best 1, no unit: below 1 predicted cells are too alike, above 1 too scattered. Genes that do
    not vary in the truth are left out; NaN if there is no other. Variances divide by the number of cells less one.
    Source: S002-11.
    """
    return _median(per_gene_variance_ratio(y_true=y_true, y_pred=y_pred))


def per_gene_variance_ratio(*, y_true: Cellwise, y_pred: Cellwise) -> Floats:
    """Variance of the prediction over that of the truth: (g,), NaN for a gene that does not vary in the truth."""
    true, predicted = _pair(y_true, y_pred)
    found = []
    for a, b in _blocks(true, predicted):
        varies = a.max(axis=0) > a.min(axis=0)  # a variance from rounding alone is none
        below = np.where(varies, _variance(a), np.nan)
        found.append(_variance(b) / below)
    return np.concatenate(found)


def zero_share_error(*, y_true: Cellwise, y_pred: Cellwise) -> float:
    """Mean absolute difference of each gene's share of zeros.

    Definition: mean over genes of |share of predicted cells with 0 - share of true cells with 0|. Range 0 to 1, best 0,
    a share. Expected counts instead of drawn ones score badly: they are never 0. Source: S002-11.
    """
    true, predicted = _pair(y_true, y_pred)
    shares = [(b == 0).mean(axis=0) - (a == 0).mean(axis=0) for a, b in _blocks(true, predicted)]
    return float(np.abs(np.concatenate(shares)).mean())


def _differences_of_means(y_true: Cellwise, y_pred: Cellwise) -> Floats:
    true, predicted = _pair(y_true, y_pred)
    return np.concatenate([b.mean(axis=0) - a.mean(axis=0) for a, b in _blocks(true, predicted)])


def _pair(y_true: Cellwise, y_pred: Cellwise) -> tuple[Cellwise, Cellwise]:
    """Check both samples; sparse ones become columns, which blocks are cut from."""
    sides, problems = [], []
    for name, side in (("y_true", y_true), ("y_pred", y_pred)):
        side = side.tocsc() if sparse.issparse(side) else np.asarray(side)
        if side.ndim != 2 or not all(side.shape) or side.dtype.kind not in "fiub":
            got = f"{side.dtype} of shape {side.shape}"
            problems.append(f"{name} must be numbers of shape (cells, genes), at least 1 of each; it is {got}")
        elif not np.isfinite(stored := side.data if sparse.issparse(side) else side).all():
            bad = stored.size - int(np.isfinite(stored).sum())
            problems.append(f"{name} holds {bad} values that are NaN or infinite")
        sides.append(side)
    true, predicted = sides
    if not problems and true.shape[1] != predicted.shape[1]:
        both = f"y_true has {true.shape[1]}, y_pred {predicted.shape[1]}"
        problems.append(f"both must hold the same genes: {both}. Select them by name first")
    if problems:
        raise InputError(several("Samples of cells", problems))
    return true, predicted


def _blocks(true: Cellwise, predicted: Cellwise) -> Iterator[tuple[Floats, Floats]]:
    """Dense float64 columns of both samples, a few genes at a time: (n, b), (m, b)."""
    step = max(1, BLOCK // (true.shape[0] + predicted.shape[0]))
    for start in range(0, true.shape[1], step):
        columns = slice(start, start + step)
        yield _dense(true[:, columns]), _dense(predicted[:, columns])


def _dense(values: Cellwise) -> Floats:
    values = values.toarray() if sparse.issparse(values) else values
    return values.astype(np.float64, order="C")  # one order, so that sums round alike however the cells were stored


def _drawn(side: Cellwise, seed: int, most: int) -> Floats:
    """At most `most` cells, dense; which ones are drawn follows from what they are, not from where they stand."""
    if side.shape[0] <= most:
        return _dense(side)
    generator = np.random.default_rng(seed)
    direction = generator.standard_normal(side.shape[1])
    if sparse.issparse(side):
        place = side @ direction
    else:
        place = np.zeros(len(side))
        for column, weight in enumerate(direction):  # gene by gene: the same sum for a cell wherever it stands
            place += weight * side[:, column]
    rows = np.argsort(place, kind="stable")[np.sort(generator.permutation(len(place))[:most])]
    return _dense(side.tocsr()[rows] if sparse.issparse(side) else side[rows])


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
    for metric in (mae_of_means, mse_of_means, wasserstein, energy_distance, variance_ratio, zero_share_error)
}
