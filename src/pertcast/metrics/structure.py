"""Metrics of two samples of cells: how well the pattern over genes is met, the change from untreated cells above all.

Every metric takes `y_true` (n, g) and `y_pred` (m, g), those of a change `y_control` (c, g) too: dense or scipy sparse,
cells in rows, the same genes in the same order, one unit. Cells are not paired. NaN and infinity are refused.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from pertcast.errors import InputError
from pertcast.metrics.samples import Cellwise, checked_samples, drawn_cells, gene_blocks
from pertcast.types import Floats

MOST_CELLS = 2000  # a side of the maximum mean discrepancy, whose cost grows with the product of both numbers


def r2_of_means(*, y_true: Cellwise, y_pred: Cellwise) -> float:
    """Coefficient of determination of gene means.

    Definition: 1 - sum (p - t)^2 / sum (t - mean t)^2 over genes, t and p the means of truth and prediction. Range
    minus infinity to 1, best 1, no unit. A prediction twice or ten above the truth loses it, unlike the squared Pearson
    (R31). High for every sound profile, as genes differ in mean: read it beside no change. NaN where all t are alike.
    Source: S003-09.
    """
    return float(r2(*_two_means(y_true, y_pred)))


def squared_pearson_of_means(*, y_true: Cellwise, y_pred: Cellwise) -> float:
    """Squared Pearson correlation of gene means; many papers call this R2, and it is not.

    Range 0 to 1, best 1, no unit. Blind to scale, offset and sign. NaN where either side's means are all alike.
    Source: S003-09, R31.
    """
    return float(pearson(*_two_means(y_true, y_pred))) ** 2


def delta_pearson(*, y_true: Cellwise, y_pred: Cellwise, y_control: Cellwise) -> float:
    """Pearson correlation over genes of the changes of means from control, true and predicted.

    Range -1 to 1, best 1, no unit; NaN where a side has no change at all, as no change has. Truth and prediction
    subtract the same control, so noise of its means raises it: few control cells flatter. Blind to the change's size.
    Source: S003-09; Roohani et al. 2023, doi:10.1038/s41587-023-01905-6.
    """
    t, p, c = _three_means(y_true, y_pred, y_control)
    return float(pearson(t - c, p - c))


def delta_cosine(*, y_true: Cellwise, y_pred: Cellwise, y_control: Cellwise) -> float:
    """Cosine between the changes of gene means from control, true and predicted.

    Range -1 to 1, best 1, no unit; 0 for a prediction without change, NaN for a truth without. Unlike the correlation
    it sees a change that all genes share; like it, it is blind to the size. Source: S003-09.
    """
    t, p, c = _three_means(y_true, y_pred, y_control)
    sizes = np.linalg.norm(t - c), np.linalg.norm(p - c)
    if not sizes[0] > 0:
        return float("nan")
    return float((t - c) @ (p - c) / (sizes[0] * sizes[1])) if sizes[1] > 0 else 0.0


def direction_accuracy(*, y_true: Cellwise, y_pred: Cellwise, y_control: Cellwise) -> float:
    """Share of genes whose mean moves the way it truly does, up or down; a gene that does not move is wrong.

    Range 0 to 1, best 1, a share: 0 for no change, about a half by chance. Genes whose true mean does not move are left
    out; NaN where none does. Give the genes that differ most: over all genes noise decides most signs. Source: S003-09.
    """
    t, p, c = _three_means(y_true, y_pred, y_control)
    moved = t != c
    return float((np.sign(p - c) == np.sign(t - c))[moved].mean()) if moved.any() else float("nan")


def gene_correlation(*, y_true: Cellwise, y_pred: Cellwise) -> float:
    """Pearson correlation, over pairs of genes, of the gene-gene correlations of truth and prediction.

    Range -1 to 1, best 1, no unit. With few cells both matrices are mostly noise: read it beside the ceiling. Pairs
    with a gene that does not vary on one side are left out; NaN where fewer than 2 pairs are left, or all are alike.
    Cost grows with the square of the genes: give some hundreds at most. Source: S000-11.
    """
    pairs = []
    for side in checked_samples(y_true, y_pred):
        values = drawn_cells(side, 0, MOST_CELLS)
        scale = values.std(axis=0) * np.sqrt(len(values))
        with np.errstate(divide="ignore", invalid="ignore"):
            values = (values - values.mean(axis=0)) / np.where(scale > 1e-12, scale, np.nan)
        pairs.append((values.T @ values)[np.triu_indices(values.shape[1], 1)])
    known = np.isfinite(pairs[0]) & np.isfinite(pairs[1])
    return float(pearson(*(side[known] for side in pairs))) if known.sum() > 1 else float("nan")


def skill_of_means(*, y_true: Cellwise, y_pred: Cellwise, y_control: Cellwise) -> float:
    """Share of the change that the prediction gets right: 0 is no change, 1 perfect.

    Definition: 1 - sum (p - t)^2 / sum (c - t)^2 over genes. Range minus infinity to 1, best 1, no unit; NaN where the
    truth does not differ from the control. The squared error's skill score: Murphy 1988,
    doi:10.1175/1520-0493(1988)116<2417:SSBOTM>2.0.CO;2.
    """
    return float(skill(*_three_means(y_true, y_pred, y_control)))


def top_genes_overlap(*, y_true: Cellwise, y_pred: Cellwise, y_control: Cellwise, k: int = 20) -> float:
    """Share of the k most differential genes of the truth that are among the k of the prediction.

    Both are ranked by Welch's |t| against the control; of equal ones the first gene counts. Range 0 to 1, best 1, a
    share; by chance k / g. Says nothing of direction. Source: S003-09.
    Raises InputError for k beyond the number of genes, and for a side with fewer than 2 cells.
    """
    sides = checked_samples(y_true, y_pred)
    control = checked_samples(y_true, y_control)[1]
    genes = sides[0].shape[1]
    if not 1 <= k <= genes:
        raise InputError(f"Overlap of the top k genes needs k from 1 to the number of genes, {genes}; got {k}.")
    tops = [set(np.argsort(-welch_t(side, control), kind="stable")[:k].tolist()) for side in sides]
    return len(tops[0] & tops[1]) / k


def welch_t(a: Cellwise, b: Cellwise) -> Floats:
    """Return |t| of Welch's test of every gene: (n, g), (m, g) -> (g,).

    0 where neither side varies and means agree, infinite where they do not. Raises InputError for fewer than 2 cells.
    """
    if min(a.shape[0], b.shape[0]) < 2:
        raise InputError(f"Welch's t needs at least 2 cells a side, got {a.shape[0]} and {b.shape[0]}.")
    found = []
    for one, other in gene_blocks(*checked_samples(a, b)):
        gap = np.abs(one.mean(axis=0) - other.mean(axis=0))
        noise = np.sqrt(one.var(axis=0, ddof=1) / len(one) + other.var(axis=0, ddof=1) / len(other))
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(np.where(gap == 0, 0.0, gap / noise))
    return np.concatenate(found)


def mmd(
    *, y_true: Cellwise, y_pred: Cellwise, width: float | None = None, seed: int = 0, most: int = MOST_CELLS
) -> float:
    """Squared maximum mean discrepancy of the two samples, Gaussian kernel, all genes together.

    Definition: mean k(x, x') + mean k(y, y') - 2 mean k(x, y) over different cells, k = exp(-d^2 / (2 width^2));
    without bias, so it may lie a little below 0. Range about 0 to 2, best 0, no unit.
    width       None: the median distance of different true cells; it depends on the truth alone, so that predictions
                are compared by one kernel
    seed, most  of a side with more cells, `most` are drawn; the draw does not depend on the order of the cells
    Source: Gretton et al. 2012, Journal of Machine Learning Research 13:723-773.
    Raises InputError for fewer than 2 cells a side, and where all true cells are alike and no width is given.
    """
    x, y = (drawn_cells(side, seed, most) for side in checked_samples(y_true, y_pred))
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise InputError(f"The maximum mean discrepancy needs at least 2 cells a side, got {n} and {m}.")
    within_x = cdist(x, x)
    width = float(np.median(within_x[np.triu_indices(n, 1)])) if width is None else width
    if not width > 0:
        raise InputError(f"The kernel's width must be above 0, got {width}. Give one where true cells are alike.")
    mean_x, mean_y = ((_kernel(d, width).sum() - len(d)) / (len(d) * (len(d) - 1)) for d in (within_x, cdist(y, y)))
    return float(mean_x + mean_y - 2 * _kernel(cdist(x, y), width).mean())


def _kernel(distance: Floats, width: float) -> Floats:
    return np.exp(-np.square(distance) / (2 * width**2))


def _two_means(y_true: Cellwise, y_pred: Cellwise) -> tuple[Floats, Floats]:
    pairs = [(a.mean(axis=0), b.mean(axis=0)) for a, b in gene_blocks(*checked_samples(y_true, y_pred))]
    return tuple(np.concatenate(parts) for parts in zip(*pairs, strict=True))


def _three_means(y_true: Cellwise, y_pred: Cellwise, y_control: Cellwise) -> tuple[Floats, Floats, Floats]:
    return *_two_means(y_true, y_pred), _two_means(y_true, y_control)[1]


def r2(t: Floats, p: Floats) -> Floats:
    """Coefficient of determination of p for t along the last axis; NaN where all t are alike. See `r2_of_means`."""
    return _share_explained(np.square(p - t), np.square(t - t.mean(axis=-1, keepdims=True)))


def skill(t: Floats, p: Floats, c: Floats) -> Floats:
    """Share of the change from c to t that p gets right, along the last axis. See `skill_of_means`."""
    return _share_explained(np.square(p - t), np.square(c - t))


def pearson(a: Floats, b: Floats) -> Floats:
    """Pearson correlation along the last axis; NaN where a side is constant."""
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    size = np.sqrt(np.square(a).sum(axis=-1) * np.square(b).sum(axis=-1))
    return np.divide((a * b).sum(axis=-1), size, out=np.full_like(size, np.nan), where=size > 0)


def _share_explained(error: Floats, whole: Floats) -> Floats:
    error, whole = error.sum(axis=-1), whole.sum(axis=-1)
    return 1 - np.divide(error, whole, out=np.full_like(whole, np.nan), where=whole > 0)
