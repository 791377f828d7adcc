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
from pertcast.types import Floats, Ints, Predictions, Question, Strings
from pertcast.validation.cross_validate import OutOfFold

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

    def row_rmse(self, weights: Floats) -> Floats:
        """Error of each row (n,) under weights (m,), or under weights of its own (n, m)."""
        w = np.broadcast_to(weights, self.truth.shape)
        squared = np.einsum("nij,ni,nj->n", self.cross, w, w) - 2 * (self.truth * w).sum(1) + self.norm
        return np.sqrt(np.maximum(squared, 0) / self.n_genes)


@dataclass(frozen=True, slots=True)
class Blend:
    """The weights of a blend: data, kept with the submission."""

    names: tuple[str, ...]
    weights: Floats  # (m,)  non-negative
    scales: dict[str, float]  # by cell type; 1 where not listed
    reason: str  # why there are, or are not, scales by cell type

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        weights = dict(zip(self.names, map(float, self.weights), strict=True))
        return {"weights": weights, "scale": float(self.weights.sum()), "scales": self.scales, "reason": self.reason}

    def text(self) -> str:
        """Weights worth naming, largest first, and the scale that they amount to."""
        pairs = sorted(zip(self.weights, self.names, strict=True), reverse=True)
        shares = ", ".join(f"{weight:.2f} {name}" for weight, name in pairs if weight >= 0.005)
        scales = "".join(f", x {scale:.2f} for {cell_type}" for cell_type, scale in self.scales.items())
        return f"{shares}; sum {self.weights.sum():.2f}{scales} ({self.reason})"

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
) -> tuple[Blend, Floats]:
    """Fit weights, and scales by cell type if they help on folds they were not fitted on.

    cell_type  (n,)  of each out-of-fold row
    fold       (n,)  its fold
    returns    the blend, and for each row the weights (n, m) that were fitted on the other folds: what the blend's own
               honest score is made with
    """
    if not len(fold):
        raise InputError("An ensemble needs out-of-fold rows, got none. Run `pertcast cv` first.")
    plain, scaled = np.empty((len(fold), len(names))), np.empty((len(fold), len(names)))
    for k in np.unique(fold):
        inside, rows = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        inside = inside if len(inside) else rows  # a single fold cannot be nested
        weights = fit_weights(grams.take(inside))
        scales = fit_scales(grams.take(inside), weights, cell_type[inside])
        plain[rows] = weights
        scaled[rows] = weights * np.array([scales.get(c, 1.0) for c in cell_type[rows]])[:, None]
    weights = fit_weights(grams)
    difference = grams.row_rmse(scaled) - grams.row_rmse(plain)
    gain, error = -difference.mean(), difference.std() / np.sqrt(len(difference))
    if gain > 2 * error:  # twice its standard error, else noise would choose
        fitted = fit_scales(grams, weights, cell_type)
        scales = {c: s for c, s in fitted.items() if c in target_types}
        reason = f"scales by cell type gain {gain:.4f} +- {error:.4f} on other folds"
        return Blend(names, weights, scales, reason), scaled
    reason = f"no scales by cell type: they would gain {gain:.4f} +- {error:.4f} on other folds"
    return Blend(names, weights, {}, reason), plain


@dataclass(frozen=True, slots=True)
class Blended:
    """Blends of a set of members, and what they say."""

    blends: dict[str, Blend]  # "seen" and "unseen": whether training shows the row's compound
    held_out: Floats  # (n, g)  out-of-fold rows, each by weights of the other folds
    test: Floats  # (m, g)

    def text(self) -> str:
        """Say the weights in words."""
        if len(self.blends) == 1:
            return next(iter(self.blends.values())).text()
        return "; ".join(f"compounds {seen} in training: {blend.text()}" for seen, blend in self.blends.items())


def blend_members(
    question: Question, held_out: OutOfFold, test: dict[str, Predictions], *, leave_out: tuple[str, ...] = ()
) -> Blended:
    """Fit blends on out-of-fold rows and apply them to the test rows.

    Rows whose compound training never showed are another question: they get weights of their own where enough
    out-of-fold rows ask it too.

    leave_out   members that are no use in a blend, such as zeros
    """
    names = tuple(name for name in held_out.members if name not in leave_out)
    y = question.y[held_out.rows]
    low, high = question.y.min(0), question.y.max(0)
    seen_test = np.isin(question.test_compound, question.compound)
    nested, asked = np.empty_like(y), np.empty((len(question.test_ids), y.shape[1]), np.float32)
    grams = grams_of([held_out.members[name] for name in names], y)
    blends = {}
    for label, seen in (("seen", True), ("unseen", False)):
        own, wanted = held_out.seen == seen, seen_test == seen
        if not own.any() and not wanted.any():
            continue
        rows = np.flatnonzero(own) if own.sum() >= MIN_ROWS else np.arange(len(y))
        blend, row_weights = fit_blend(
            names,
            grams.take(rows),
            cell_type=question.cell_type[held_out.rows][rows],
            fold=held_out.fold[rows],
            target_types=question.target_types,
        )
        blends[label] = blend
        for row, weights in zip(rows, row_weights, strict=True):
            if own[row]:
                total = sum(w * held_out.members[name][row] for name, w in zip(names, weights, strict=True))
                nested[row] = np.clip(total, low, high)
        members = {name: test[name].values[wanted] for name in names}
        asked[wanted] = blend.apply(members, question.test_cell_type[wanted], low=low, high=high)
    return Blended(blends, nested, asked)
