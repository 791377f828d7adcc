"""Row-wise metrics of predictions, as the competition and the OpenProblems benchmark define them.

Each metric gives one number per row (one compound in one cell type) and then the mean over rows. Columns of the two
arrays must already be the same genes in the same order. Predictions are never clipped here.

Two rules differ by metric, as their sources do: MRRMSE refuses NaN, the five OpenProblems metrics read a NaN
prediction as 0; correlations that are not defined (a constant row) count as 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from pertcast.errors import InputError
from pertcast.types import Floats

BLOCK = 1 << 17  # numbers of each array that are worked on at once: 1 MB in float64, so that the cache holds it
KAGGLE = "Kaggle, Open Problems - Single-Cell Perturbations, evaluation page"
OPENPROBLEMS = "openproblems-bio/task_perturbation_prediction, src/metrics"


class PerRow(Protocol):
    def __call__(self, *, y_true: Floats, y_pred: Floats) -> Floats: ...  # (n, g), (n, g) -> (n,)


@dataclass(frozen=True, slots=True)
class MetricCard:
    """What a metric is and how to read it; called, it gives the mean over rows."""

    name: str
    formula: str  # of one row, then over rows
    range: tuple[float, float]
    better: Literal["lower", "higher"]
    unit: str
    reading: str  # what a good and a bad number look like
    source: str
    per_row: PerRow

    def __call__(self, *, y_true: Floats, y_pred: Floats) -> float:
        return float(self.per_row(y_true=y_true, y_pred=y_pred).mean())


def mrrmse(*, y_true: Floats, y_pred: Floats) -> float:
    """Mean over rows of the root mean squared error within a row; the competition's score.

    y_true, y_pred  (n, g)  in the unit of `y`
    Raises InputError on NaN, infinity or shapes that differ.
    Source: the competition's evaluation page; `np.sqrt(((y - p) ** 2).mean(1)).mean()`.
    """
    return float(per_row_mrrmse(y_true=y_true, y_pred=y_pred).mean())


def per_row_mrrmse(*, y_true: Floats, y_pred: Floats) -> Floats:
    """Root mean squared error of each row, whose mean is MRRMSE: (n, g) -> (n,). NaN and infinity are refused."""
    y_true, y_pred = _pair(y_true, y_pred)
    error = np.concatenate([_root_mean_square(p, y) for y, p in _blocks(y_true, y_pred)])
    if not np.isfinite(error).all():  # looked for only when something is wrong: a pass over the arrays costs time
        _refuse_non_finite("y_true", y_true)
        _refuse_non_finite("y_pred", y_pred)
    return error


def rowwise_rmse(*, y_true: Floats, y_pred: Floats) -> float:
    """Mean over rows of the root mean squared error; a NaN prediction counts as 0."""
    return float(per_row_rmse(y_true=y_true, y_pred=y_pred).mean())


def per_row_rmse(*, y_true: Floats, y_pred: Floats) -> Floats:
    """sqrt(mean_j (y - p)^2) of each row: (n, g) -> (n,)."""
    return np.concatenate([_root_mean_square(p, y) for y, p in _filled(y_true, y_pred)])


def rowwise_mae(*, y_true: Floats, y_pred: Floats) -> float:
    """Mean over rows of the mean absolute error; a NaN prediction counts as 0."""
    return float(per_row_mae(y_true=y_true, y_pred=y_pred).mean())


def per_row_mae(*, y_true: Floats, y_pred: Floats) -> Floats:
    """mean_j |y - p| of each row: (n, g) -> (n,)."""
    return np.concatenate([np.abs(p - y).mean(1) for y, p in _filled(y_true, y_pred)])


def rowwise_pearson(*, y_true: Floats, y_pred: Floats) -> float:
    """Mean over rows of the Pearson correlation; 0 for a constant row, a NaN prediction counts as 0."""
    return float(per_row_pearson(y_true=y_true, y_pred=y_pred).mean())


def per_row_pearson(*, y_true: Floats, y_pred: Floats) -> Floats:
    """Pearson correlation of each row: (n, g) -> (n,) in -1..1."""
    return np.concatenate([_cosine(_centred(y), _centred(p)) for y, p in _filled(y_true, y_pred)])


def rowwise_spearman(*, y_true: Floats, y_pred: Floats) -> float:
    """Mean over rows of the Spearman correlation, tied values sharing their mean rank; 0 for a constant row."""
    return float(per_row_spearman(y_true=y_true, y_pred=y_pred).mean())


def per_row_spearman(*, y_true: Floats, y_pred: Floats) -> Floats:
    """Pearson correlation of the ranks of each row: (n, g) -> (n,) in -1..1."""
    blocks = _filled(y_true, y_pred)
    return np.concatenate([_cosine(_centred(_ranks(y)), _centred(_ranks(p))) for y, p in blocks])


def rowwise_cosine(*, y_true: Floats, y_pred: Floats) -> float:
    """Mean over rows of the cosine similarity; 0 for a row of zeros, a NaN prediction counts as 0."""
    return float(per_row_cosine(y_true=y_true, y_pred=y_pred).mean())


def per_row_cosine(*, y_true: Floats, y_pred: Floats) -> Floats:
    """y.p / (|y| |p|) of each row: (n, g) -> (n,) in -1..1."""
    return np.concatenate([_cosine(y, p) for y, p in _filled(y_true, y_pred)])


def _pair(y_true: Floats, y_pred: Floats) -> tuple[Floats, Floats]:
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    for name, array in (("y_true", y_true), ("y_pred", y_pred)):
        if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu":
            got = f"{array.dtype} of shape {array.shape}"
            raise InputError(f"{name} must be numbers of shape (rows, genes), at least 1 of each; it is {got}.")
    if y_true.shape != y_pred.shape:
        both = f"y_true is {y_true.shape}, y_pred is {y_pred.shape}"
        raise InputError(f"Both arrays must hold the same rows and genes: {both}. Align them by id and gene name.")
    return _as_float(y_true), _as_float(y_pred)


def _as_float(array: Floats) -> Floats:
    """Keep float32 and float64 as they are; whole numbers and float16 would overflow when subtracted."""
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _blocks(y_true: Floats, y_pred: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Cut both arrays into runs of whole rows that are small enough for the cache."""
    rows = max(1, BLOCK // y_true.shape[1])
    for start in range(0, len(y_true), rows):
        yield y_true[start : start + rows], y_pred[start : start + rows]


def _filled(y_true: Floats, y_pred: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Yield blocks in float64 with NaN predictions as 0; a truth that is not finite is refused."""
    y_true, y_pred = _pair(y_true, y_pred)
    _refuse_non_finite("y_true", y_true)
    for y, p in _blocks(y_true, y_pred):
        p = p.astype(np.float64)  # a copy: the caller's NaN stay
        p[np.isnan(p)] = 0
        yield y.astype(np.float64), p


def _refuse_non_finite(name: str, array: Floats) -> None:
    count, first = 0, None
    for start, row in enumerate(array):
        wrong = np.flatnonzero(~np.isfinite(row))
        if len(wrong) and first is None:
            first = f"row {start}, column {wrong[0]}"
        count += len(wrong)
    if count:
        raise InputError(f"{name} must be finite; it has {count} NaN or infinite values, first at {first}.")


def _root_mean_square(p: Floats, y: Floats) -> Floats:
    # Infinite input gives infinity or NaN here and is dealt with by the caller. The difference of two float32 is
    # taken in float32, where it is right to 6e-8 of itself, and summed in float64.
    with np.errstate(invalid="ignore", over="ignore"):
        error = (p - y).astype(np.float64, order="C", copy=False)  # (b, g)
        return np.sqrt(_dot(error, error) / error.shape[1])  # (b,)


def _dot(a: Floats, b: Floats) -> Floats:
    """Inner product of each row: (b, g), (b, g) -> (b,). Not by BLAS: its threads wait for each other on short rows."""
    return np.einsum("ij,ij->i", a, b)


def _centred(rows: Floats) -> Floats:
    constant = (rows == rows[:, :1]).all(1)  # rounding of the mean would leave noise that correlates by chance
    with np.errstate(invalid="ignore"):
        centred = rows - rows.mean(1, keepdims=True)
    centred[constant] = 0
    return centred


def _cosine(a: Floats, b: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        value = _dot(a, b) / (np.sqrt(_dot(a, a)) * np.sqrt(_dot(b, b)))  # (b,)
    return np.where(np.isfinite(value), np.clip(value, -1, 1), 0.0)  # rounding can pass 1 by 1e-16


def _ranks(rows: Floats) -> Floats:
    """Rank each row from 1; tied values share the mean of their ranks."""
    ranks = np.empty(rows.shape)
    for row, out in zip(rows, ranks, strict=True):
        order = np.argsort(row)
        ordered = row[order]
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # of each run of equal values
        length = np.diff(first, append=len(row))
        out[order] = np.repeat(first + (length + 1) / 2, length)
    return ranks


METRICS: dict[str, MetricCard] = {
    card.name: card
    for card in (
        MetricCard(
            name="mrrmse",
            formula="mean_i sqrt(mean_j (y_ij - p_ij)^2), NaN refused",
            range=(0, np.inf),
            better="lower",
            unit="unit of y",
            reading="the competition's score: 0 is perfect; below the score of all zeros something was learnt; rows of "
            "strong compounds dominate it",
            source=KAGGLE,
            per_row=per_row_mrrmse,
        ),
        MetricCard(
            name="rowwise_rmse",
            formula="mean_i sqrt(mean_j (y_ij - p_ij)^2), NaN predictions as 0",
            range=(0, np.inf),
            better="lower",
            unit="unit of y",
            reading="0 is perfect; large errors of a few genes dominate a row",
            source=OPENPROBLEMS,
            per_row=per_row_rmse,
        ),
        MetricCard(
            name="rowwise_mae",
            formula="mean_i mean_j |y_ij - p_ij|, NaN predictions as 0",
            range=(0, np.inf),
            better="lower",
            unit="unit of y",
            reading="0 is perfect; every gene counts by its error, so predictions near 0 already score well",
            source=OPENPROBLEMS,
            per_row=per_row_mae,
        ),
        MetricCard(
            name="rowwise_pearson",
            formula="mean_i corr_j(y_ij, p_ij), 0 where not defined, NaN predictions as 0",
            range=(-1, 1),
            better="higher",
            unit="none",
            reading="1 is perfect, 0 is chance; blind to the size and the level of the prediction",
            source=OPENPROBLEMS,
            per_row=per_row_pearson,
        ),
        MetricCard(
            name="rowwise_spearman",
            formula="mean_i corr_j(rank y_ij, rank p_ij), ties averaged, 0 where not defined, NaN predictions as 0",
            range=(-1, 1),
            better="higher",
            unit="none",
            reading="1 is perfect, 0 is chance; only the order of the genes counts, strong and weak ones alike",
            source=OPENPROBLEMS,
            per_row=per_row_spearman,
        ),
        MetricCard(
            name="rowwise_cosine",
            formula="mean_i y_i.p_i / (|y_i| |p_i|), 0 where not defined, NaN predictions as 0",
            range=(-1, 1),
            better="higher",
            unit="none",
            reading="1 is perfect, 0 is chance; blind to the size of the prediction, but not to its level",
            source=OPENPROBLEMS,
            per_row=per_row_cosine,
        ),
    )
}
