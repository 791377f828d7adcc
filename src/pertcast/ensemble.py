"""Blend models: weights and scale are fitted on out-of-fold predictions only.

The blend of a row is `scale[cell type] * sum_m weight_m * prediction_m`, clipped to the range of the training targets.
Weights are non-negative and may sum to anything: their sum is the global scale, for which published entries found
1.2-1.3 and others 0.8-1.2, so it is fitted without a prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from pertcast.errors import InputError
from pertcast.types import Floats, Ints, Strings

ITERATIONS = 100  # of reweighted least squares; it converges in about ten
SMALL = 1e-9  # keeps weights of rows that are predicted exactly finite
MIN_ROWS = 20  # out-of-fold rows below which a cell type gets no scale of its own


@dataclass(frozen=True, slots=True)
class Grams:
    """Inner products of the members' predictions and the truth, row by row: all that fitting weights needs."""

    cross: Floats  # (n, m, m)  of predictions with predictions
    truth: Floats  # (n, m)     of predictions with the truth
    norm: Floats  # (n,)       of the truth with itself
    n_genes: int

    def take(self, rows: Ints) -> Grams:
        return Grams(self.cross[rows], self.truth[rows], self.norm[rows], self.n_genes)

    def scaled(self, factor: Floats) -> Grams:
        """Multiply each row's predictions by a factor: (n,)."""
        return Grams(self.cross * (factor**2)[:, None, None], self.truth * factor[:, None], self.norm, self.n_genes)

    def row_rmse(self, weights: Floats) -> Floats:
        """Error of each row under the given weights: (n,)."""
        squared = np.einsum("nij,i,j->n", self.cross, weights, weights) - 2 * self.truth @ weights + self.norm
        return np.sqrt(np.maximum(squared, 0) / self.n_genes)


@dataclass(frozen=True, slots=True)
class Blend:
    """The weights of a blend: data, kept with the submission."""

    names: tuple[str, ...]
    weights: Floats  # (m,)  non-negative
    scales: dict[str, float]  # by cell type; 1 where not listed
    cv: float  # MRRMSE on rows of folds that the weights were not fitted on
    reason: str  # why there are, or are not, scales by cell type

    def apply(self, members: dict[str, Floats], cell_type: Strings, *, low: Floats, high: Floats) -> Floats:
        """Blend (n, g) predictions and clip each gene to the training range low..high (g,)."""
        total = sum(w * members[name].astype(np.float64) for name, w in zip(self.names, self.weights, strict=True))
        factor = np.array([self.scales.get(c, 1.0) for c in cell_type])
        return np.clip(total * factor[:, None], low, high)


def grams_of(members: list[Floats], y: Floats) -> Grams:
    """Take the inner products of members m x (n, g) and y (n, g), a row at a time so that memory stays flat."""
    n, g = y.shape
    cross, truth, norm = np.empty((n, len(members), len(members))), np.empty((n, len(members))), np.empty(n)
    for i in range(n):
        rows = np.stack([member[i] for member in members]).astype(np.float64)  # (m, g)
        target = y[i].astype(np.float64)
        cross[i], truth[i], norm[i] = rows @ rows.T, rows @ target, target @ target
    return Grams(cross, truth, norm, g)


def fit_weights(grams: Grams) -> Floats:
    """Find the non-negative weights (m,) that minimise the mean row-wise RMSE.

    The objective is convex; it is solved by iteratively reweighted non-negative least squares, each row weighted by
    the inverse of its present error.
    Source: Lawson and Hanson 1995 (NNLS); Weiszfeld's reweighting for sums of norms.
    """
    m = grams.truth.shape[1]
    weights = np.full(m, 1.0 / m)
    for _ in range(ITERATIONS):
        v = 1 / np.maximum(grams.row_rmse(weights), SMALL)
        a, b = np.einsum("n,nij->ij", v, grams.cross), v @ grams.truth
        root = np.linalg.cholesky(a + 1e-8 * np.trace(a) / m * np.eye(m))  # a = L L'
        new, _ = nnls(root.T, np.linalg.solve(root, b))
        if np.abs(new - weights).max() < 1e-7:
            break
        weights = new
    return weights


def fit_scales(grams: Grams, weights: Floats, cell_type: Strings) -> dict[str, float]:
    """Find each cell type's best factor on top of the weights, for cell types with enough rows."""
    blend = Grams(
        np.einsum("nij,i,j->n", grams.cross, weights, weights)[:, None, None],
        (grams.truth @ weights)[:, None],
        grams.norm,
        grams.n_genes,
    )
    names, counts = np.unique(cell_type.astype(str), return_counts=True)
    enough = names[counts >= MIN_ROWS]
    return {str(c): float(fit_weights(blend.take(np.flatnonzero(cell_type == c)))[0]) for c in enough}


def fit_blend(
    names: tuple[str, ...], grams: Grams, *, cell_type: Strings, fold: Ints, target_types: list[str]
) -> Blend:
    """Fit weights, and scales by cell type if they help on folds they were not fitted on.

    cell_type  (n,)  of each out-of-fold row
    fold       (n,)  its fold
    The reported `cv` is nested: each fold's rows are scored with weights fitted on the other folds.
    """
    if not len(fold):
        raise InputError("An ensemble needs out-of-fold rows, got none. Run `pertcast cv` first.")
    plain, scaled = np.empty(len(fold)), np.empty(len(fold))
    for k in np.unique(fold):
        inside, rows = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        inside = inside if len(inside) else rows  # a single fold cannot be nested
        weights = fit_weights(grams.take(inside))
        scales = fit_scales(grams.take(inside), weights, cell_type[inside])
        factor = np.array([scales.get(c, 1.0) for c in cell_type[rows]])
        plain[rows] = grams.take(rows).row_rmse(weights)
        scaled[rows] = grams.take(rows).scaled(factor).row_rmse(weights)
    weights = fit_weights(grams)
    difference = scaled - plain
    gain, error = -difference.mean(), difference.std() / np.sqrt(len(difference))
    if gain > 2 * error:  # twice its standard error, else noise would choose
        fitted = fit_scales(grams, weights, cell_type)
        scales = {c: s for c, s in fitted.items() if c in target_types}
        return Blend(names, weights, scales, float(scaled.mean()), f"scales by cell type gain {gain:.4f} on other folds")
    reason = f"no scales by cell type: they would gain {gain:.4f} +- {error:.4f} on other folds"
    return Blend(names, weights, {}, float(plain.mean()), reason)
