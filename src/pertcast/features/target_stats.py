"""Statistics of the responses of the *other* rows of a row's category: target encoding without leakage.

A row may be described by the responses of rows that share its compound or its cell type, never by its own. Which rows
count as its own is said by an exclude label: the fold number (cross-fitting), the row number (leave-one-out) or the
cell type ("what did this compound do in other cell types"). For row i the statistic is taken over

    J_i = {j : key_j = key_i and exclude_j != exclude_i}

and drawn towards the same statistic of all rows with another label, O_i = {j : exclude_j != exclude_i}:

    (m * stat(J_i) + smooth * stat(O_i)) / (m + smooth),    m = |J_i|

No sum that contains an own value is ever formed and subtracted from: the result does not move by one bit when the
row's own response changes.
Source: Micci-Barreca 2001, doi:10.1145/507533.507538; the mean equals scikit-learn's TargetEncoder column by column.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pertcast.errors import InputError, unknown
from pertcast.features.groups import group_sums
from pertcast.types import Block, Floats, Ints

QUANTILES = {"median": 0.5, "q25": 0.25, "q75": 0.75, "q80": 0.8}
STATS = ("mean", "sd", *QUANTILES, "count")
SHRUNK = ("mean", *QUANTILES)  # an sd of few rows stays what it is; the count says how far to trust it
TURNS = 10  # of backfitting; by then effects move by less than a thousandth of their size
NOWHERE = -1  # code of a category or label that no training row has

Labels = NDArray[np.generic]  # (n,)  strings or integers


def cross_fitted_stats(
    keys: Labels,
    y: Floats,
    exclude: Labels,
    *,
    stats: Sequence[str] = ("mean", "sd"),
    smooth: float = 10.0,
    groups: Labels | None = None,
) -> dict[str, Block]:
    """Describe each *training* row by the responses of the other training rows of its category.

    keys     (n,)    category of each row, e.g. its compound
    y        (n, k)  responses, e.g. signed -log10 p per gene or k principal scores; finite
    exclude  (n,)    rows with the same label as row i do not count for row i: fold, row number, cell type
    stats            any of `STATS`, see `applied_stats`
    smooth           pseudo-count of rows drawn towards the statistic of all rows
    groups   (n,)    if given, statistics of what is left after removing each group's mean, see `applied_stats`
    returns          {stat: block}, each (n, k) when looked up, in the unit of `y`; "count" is (n, 1)
    """
    return applied_stats(
        keys, y, keys, stats=stats, smooth=smooth, exclude_train=exclude, exclude_new=exclude, groups=groups
    )


def applied_stats(
    keys_train: Labels,
    y_train: Floats,
    keys_new: Labels,
    *,
    stats: Sequence[str] = ("mean", "sd"),
    smooth: float = 10.0,
    exclude_train: Labels | None = None,
    exclude_new: Labels | None = None,
    groups: Labels | None = None,
) -> dict[str, Block]:
    """Describe each *new* row by the responses of the training rows of its category.

    keys_train    (n,)    category of each training row
    y_train       (n, k)  responses of the training rows, finite
    keys_new      (r,)    category of each row to describe; one that training lacks gets the overall statistic
    exclude_train (n,)    label of each training row, e.g. its cell type; None: every training row counts
    exclude_new   (r,)    label of each new row; training rows with the same label do not count for it
    groups        (n,)    group of each training row, e.g. its cell type. If given, the mean of its group is removed
                          from every response first. The means too are taken over the rows that count: everything
                          is what fitting on the rows with another label alone would give. Costs one pass over all
                          rows per distinct label, so prefer folds or cell types to row numbers as labels there
    returns               {stat: block}, tables float32, one row per distinct (category, label), in the unit of `y`:
                          mean, median, q25, q75, q80   shrunk, see the top of this file
                          sd      with n - 1, not shrunk; 0 for fewer than two rows, an unseen category included
                          count   (., 1)  number of rows m behind the statistic

    Rows that were trained on must not be passed as new ones without labels: they would see themselves.
    Raises InputError if a statistic is unknown, smooth is negative, or no training row has another label.
    """
    _check(stats, smooth, (exclude_train is None) == (exclude_new is None))
    y = np.asarray(y_train, np.float64)
    category, category_new = _codes(keys_train, keys_new)
    label, label_new = np.zeros(len(y), int), np.full(len(category_new), NOWHERE)
    if exclude_train is not None and exclude_new is not None:
        label, label_new = _codes(exclude_train, exclude_new)
    pairs, index = np.unique(np.stack([category_new, label_new], axis=1), axis=0, return_inverse=True)  # (p, 2), (r,)
    if groups is None:
        tables = _tables(y, category, label, pairs, stats=stats, smooth=smooth)
    else:
        group = np.unique(groups, return_inverse=True)[1]
        tables = _residual_tables(y, category, label, pairs, group=group, stats=stats, smooth=smooth)
    return {stat: Block(tables[stat].astype(np.float32), index) for stat in stats}


def _check(stats: Sequence[str], smooth: float, labels_on_both_sides: bool) -> None:
    for stat in stats:
        if stat not in STATS:
            raise InputError(unknown("target statistic", stat, STATS))
    if smooth < 0:
        raise InputError(f"Setting 'smooth' of the target statistics is {smooth}; it must be 0 or more rows.")
    if not labels_on_both_sides:
        raise ValueError("give exclude_train and exclude_new together, or neither")


def _codes(train: Labels, new: Labels) -> tuple[Ints, Ints]:
    """Number the values that training has: (n,) and (r,); NOWHERE for a new value that it lacks."""
    names, codes = np.unique(np.asarray(train), return_inverse=True)
    known = {name: code for code, name in enumerate(names.tolist())}
    return codes, np.array([known.get(name, NOWHERE) for name in np.asarray(new).tolist()], dtype=int)


def _tables(
    y: Floats, category: Ints, label: Ints, pairs: Ints, *, stats: Sequence[str], smooth: float
) -> dict[str, Floats]:
    """Statistics of each (category, label) pair (p, 2): rows of the category, without those of the label."""
    wanted, which = np.unique(pairs[:, 1], return_inverse=True)  # (w,), (p,)
    shrunk = [stat for stat in SHRUNK if stat in stats]
    overall = leave_label_out(y, label, wanted, shrunk)
    if not overall["count"].all():
        raise InputError(
            f"Target statistics leave out all {len(y)} training rows: they share one exclude label. "
            "Give rows of at least two labels (folds, cell types), or leave out single rows."
        )
    result = {stat: np.zeros((len(pairs), 1 if stat == "count" else y.shape[1])) for stat in (*stats, "count")}
    order = np.argsort(category, kind="stable")
    for code in np.unique(pairs[:, 0]):
        rows = order[slice(*np.searchsorted(category[order], [code, code + 1]))]  # (m,)
        here = slice(*np.searchsorted(pairs[:, 0], [code, code + 1]))  # pairs are sorted by category
        own = leave_label_out(y[rows], label[rows], pairs[here, 1], stats)
        for stat in result:
            result[stat][here] = own[stat]
    m = result["count"]  # (p, 1)
    weight = np.divide(m, m + smooth, out=np.zeros_like(m), where=m > 0)
    for stat in shrunk:
        result[stat] = weight * result[stat] + (1 - weight) * overall[stat][which]
    return result


def _residual_tables(
    y: Floats, category: Ints, label: Ints, pairs: Ints, *, group: Ints, stats: Sequence[str], smooth: float
) -> dict[str, Floats]:
    """As `_tables`, of y minus its group's mean, all of it on the rows that count for the pair's label."""
    result = {stat: np.zeros((len(pairs), 1 if stat == "count" else y.shape[1])) for stat in stats}
    for code in np.unique(pairs[:, 1]):
        rows = np.flatnonzero(label != code)
        here = np.flatnonzero(pairs[:, 1] == code)
        nothing = np.stack([pairs[here, 0], np.full(len(here), NOWHERE)], axis=1)
        residual = y[rows] - group_effects(y[rows], group[rows], category[rows], smooth=smooth)
        part = _tables(residual, category[rows], label[rows], nothing, stats=stats, smooth=smooth)
        for stat in stats:
            result[stat][here] = part[stat]
    return result


def group_effects(y: Floats, group: Ints, category: Ints, *, smooth: float) -> Floats:
    """Return the effect of each row's group, told apart from the effects of categories: (n, k).

    A group's plain mean is that of the categories it happened to be measured with: a cell type known by strong
    compounds only would look strong. So y ~ overall + group + category is fitted in turns, categories shrunk by
    `smooth` pseudo-rows (at least one, else the two cannot be told apart).
    Source: backfitting, Breiman and Friedman 1985, doi:10.1080/01621459.1985.10478157.
    """
    both = np.zeros((group.max() + 1, category.max() + 1))  # rows of each group and category
    np.add.at(both, (group, category), 1.0)
    per_group, per_category = np.maximum(both.sum(1), 1)[:, None], both.sum(0)[:, None] + max(smooth, 1.0)
    overall = y.mean(axis=0)
    by_group = group_sums(y - overall, group, len(both))
    by_category = group_sums(y - overall, category, both.shape[1])
    of_category = np.zeros_like(by_category)
    for _ in range(TURNS):
        of_group = (by_group - both @ of_category) / per_group
        of_category = (by_category - both.T @ of_group) / per_category
    return overall + of_group[group]


def leave_label_out(y: Floats, label: Ints, wanted: Ints, stats: Sequence[str]) -> dict[str, Floats]:
    """For each wanted label, statistics of the rows that have another one.

    y (m, k), label (m,), wanted (w,) -> {stat: (w, k), "count": (w, 1)}; 0 where no row is left.
    """
    order = np.argsort(label, kind="stable")
    y, label = y[order], label[order]
    first, last = np.searchsorted(label, wanted), np.searchsorted(label, wanted, side="right")  # rows left out
    count = len(y) - (last - first)  # (w,)
    result = {"count": count[:, None].astype(np.float64)}
    if "mean" in stats:
        result["mean"] = _sum_outside(y, first, last) / np.maximum(count, 1)[:, None]
    if "sd" in stats:
        result["sd"] = _sd_outside(y, first, last)
    levels = [stat for stat in QUANTILES if stat in stats]
    if levels:
        values = _quantiles_outside(y, first, last, [QUANTILES[stat] for stat in levels])  # (levels, w, k)
        result.update(zip(levels, values, strict=True))
    return result


def _sum_outside(y: Floats, first: Ints, last: Ints) -> Floats:
    """Sum the rows before `first` and from `last` on: (w, k). Two running sums, so that nothing is subtracted."""
    zero = np.zeros((1, y.shape[1]))
    before = np.concatenate([zero, np.cumsum(y, axis=0)])  # (m + 1, k)  sum of the rows < i
    after = np.concatenate([np.cumsum(y[::-1], axis=0)[::-1], zero])  # (m + 1, k)  sum of the rows >= i
    return before[first] + after[last]


def _sd_outside(y: Floats, first: Ints, last: Ints) -> Floats:
    """Standard deviation (n - 1) of the rows outside first..last: (w, k); 0 for fewer than two rows."""
    result = np.zeros((len(first), y.shape[1]))
    for row, (start, stop) in enumerate(zip(first, last, strict=True)):
        if len(y) - (stop - start) >= 2:
            result[row] = np.std(np.concatenate([y[:start], y[stop:]]), axis=0, ddof=1)
    return result


def _quantiles_outside(y: Floats, first: Ints, last: Ints, levels: Sequence[float]) -> Floats:
    """Quantiles (linear between order statistics) of the rows outside first..last: (levels, w, k).

    All rows are ranked once. With r_0 < r_1 < ... the ranks of the rows left out, r_t - t rows remain below the t-th
    of them, so the remaining row number p has rank p + |{t : r_t - t <= p}| among all rows.
    """
    order = np.argsort(y, axis=0, kind="stable")  # (m, k)
    ordered, ranks = np.take_along_axis(y, order, axis=0), np.argsort(order, axis=0)  # (m, k)
    columns = np.arange(y.shape[1])
    result = np.zeros((len(levels), len(first), y.shape[1]))
    for row, (start, stop) in enumerate(zip(first, last, strict=True)):
        remain = len(y) - (stop - start)
        below = np.sort(ranks[start:stop], axis=0) - np.arange(stop - start)[:, None]  # (left out, k)
        for level, quantile in enumerate(levels if remain else ()):
            position = (remain - 1) * quantile
            low = int(position)
            lower = ordered[low + (below <= low).sum(axis=0), columns]
            high = min(low + 1, remain - 1)
            upper = ordered[high + (below <= high).sum(axis=0), columns]
            result[level, row] = lower + (position - low) * (upper - lower)
    return result
