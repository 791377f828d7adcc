"""How much each member of a blend counts: several ways to fit weights, and which of them to trust.

All of it needs only inner products of out-of-fold predictions and the truth, row by row. The objective is the mean
row-wise RMSE. Ways that do about equally well on folds they did not see are averaged: to take one of them for the sake
of a hair's breadth would let the weights jump with every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from pertcast.types import Floats, Ints

ITERATIONS = 100  # of reweighted least squares; it converges in about ten
SMALL = 1e-9  # keeps weights of rows that are predicted exactly finite
EQUAL = (5, 4, 3, 2)  # how many of the best members are averaged, beside all of them
SHRINKAGE = (1.0, 0.3, 0.1, 0.03)  # towards equal weights of the better half, in units of a member's mean square
CLOSE = 0.004  # share of the best error within which ways are alike
GREEDY_STEPS = 40  # so that a weight can be as fine as 1/40


@dataclass(frozen=True, slots=True)
class Grams:
    """Inner products of the members' predictions and the truth, row by row: all that fitting weights needs."""

    cross: Floats  # (n, m, m)  of predictions with predictions
    truth: Floats  # (n, m)     of predictions with the truth
    norm: Floats  # (n,)       of the truth with itself
    profile: Floats  # (n, m)     of predictions with the compound's profile, zeros where there is none
    n_genes: int

    def __len__(self) -> int:
        return len(self.norm)

    def take(self, rows: Ints) -> Grams:
        return Grams(self.cross[rows], self.truth[rows], self.norm[rows], self.profile[rows], self.n_genes)

    def blended(self, weights: Floats) -> Grams:
        """Inner products of one member made of all, by weights (m,) or by weights of each row (n, m)."""
        w = np.broadcast_to(weights, self.truth.shape)
        square = np.einsum("nij,ni,nj->n", self.cross, w, w)[:, None, None]
        truth, profile = ((part * w).sum(1)[:, None] for part in (self.truth, self.profile))
        return Grams(square, truth, self.norm, profile, self.n_genes)

    def row_rmse(self, weights: Floats) -> Floats:
        """Error of each row (n,) under weights (m,), or under weights of its own (n, m)."""
        w = np.broadcast_to(weights, self.truth.shape)
        squared = np.einsum("nij,ni,nj->n", self.cross, w, w) - 2 * (self.truth * w).sum(1) + self.norm
        return np.sqrt(np.maximum(squared, 0) / self.n_genes)


def grams_of(members: list[Floats], y: Floats, profiles: Floats | None = None) -> Grams:
    """Take the inner products of members m x (n, g), y (n, g) and profiles (n, g), a row at a time to save memory."""
    (n, g), m = y.shape, len(members)
    cross, truth, norm, profile = np.empty((n, m, m)), np.empty((n, m)), np.empty(n), np.zeros((n, m))
    for i in range(n):
        rows = np.stack([member[i] for member in members]).astype(np.float64)  # (m, g)
        target = y[i].astype(np.float64)
        cross[i], truth[i], norm[i] = rows @ rows.T, rows @ target, target @ target
        if profiles is not None:
            profile[i] = rows @ profiles[i]
    return Grams(cross, truth, norm, profile, g)


def fit_weights(grams: Grams, *, shrinkage: float = 0.0, towards: Floats | None = None) -> Floats:
    """Find the non-negative weights (m,) that minimise the mean row-wise RMSE.

    shrinkage   strength with which each weight is drawn to `towards` (m,): 1 counts as much as the data do on average

    The objective is convex; it is solved by iteratively reweighted non-negative least squares, each row weighted by
    the inverse of its present error.
    Source: Lawson and Hanson 1995 (NNLS); Weiszfeld's reweighting for sums of norms.
    """
    m = grams.truth.shape[1]
    weights = np.full(m, 1.0 / m)
    towards = weights if towards is None else towards
    for _ in range(ITERATIONS):
        v = 1 / np.maximum(grams.row_rmse(weights), SMALL)
        a, b = np.tensordot(v, grams.cross, 1), v @ grams.truth
        unit = np.trace(a) / m
        a, b = a + (shrinkage + 1e-8) * unit * np.eye(m), b + shrinkage * unit * towards
        root = np.linalg.cholesky(a)  # a = L L'
        new, _ = nnls(root.T, np.linalg.solve(root, b))
        if np.abs(new - weights).max() < 1e-7:
            break
        weights = new
    return weights


def equal_weights(grams: Grams, k: int) -> Floats:
    """Average the k members that are best alone: (m,), sum 1."""
    m = grams.truth.shape[1]
    alone = [grams.row_rmse(one).mean() for one in np.eye(m)]
    weights = np.zeros(m)
    weights[np.argsort(alone, kind="stable")[:k]] = 1 / min(k, m)
    return weights


def greedy_weights(grams: Grams) -> Floats:
    """Add the member that helps most to an average, with replacement, and keep the best average on the way: (m,).

    Source: Caruana et al. 2004, doi:10.1145/1015330.1015432.
    """
    m = grams.truth.shape[1]
    squares = np.einsum("nii->ni", grams.cross)  # (n, m)
    counts, best, best_error = np.zeros(m), np.zeros(m), np.inf
    for step in range(1, GREEDY_STEPS + 1):
        with_sum = grams.cross @ counts  # (n, m)  of each member with the sum so far
        square = (with_sum @ counts)[:, None] + 2 * with_sum + squares  # (n, m)  of the sum with one member more
        truth = (grams.truth @ counts)[:, None] + grams.truth
        squared = square / step**2 - 2 * truth / step + grams.norm[:, None]
        error = np.sqrt(np.maximum(squared, 0) / grams.n_genes).mean(0)  # (m,)
        counts[error.argmin()] += 1
        if error.min() < best_error - SMALL:
            best, best_error = counts / step, error.min()
    return best


def _shrunk(grams: Grams, shrinkage: float) -> Floats:
    half = equal_weights(grams, (grams.truth.shape[1] + 1) // 2)
    return fit_weights(grams, shrinkage=shrinkage, towards=half)


def ways(m: int) -> dict[str, Callable[[Grams], Floats]]:
    """List the ways to fit weights of m members, those that lean least on the data first."""
    few = [k for k in EQUAL if k < m]
    return {
        "equal weights of all": lambda grams: equal_weights(grams, m),
        **{f"equal weights of the best {k}": lambda grams, k=k: equal_weights(grams, k) for k in few},
        **{f"non-negative, shrunk by {s:g}": lambda grams, s=s: _shrunk(grams, s) for s in SHRINKAGE},
        "greedy selection": greedy_weights,
        "non-negative": fit_weights,
    }


def splits(fold: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield, fold by fold, the rows of the other folds and its own; a single fold cannot be nested and is its own."""
    for k in np.unique(fold):
        rows = np.flatnonzero(fold == k)
        inside = np.flatnonzero(fold != k)
        yield (inside if len(inside) else rows), rows


def choose_ways(grams: Grams, fold: Ints) -> tuple[tuple[str, ...], dict[str, float]]:
    """Choose how to fit weights by the error on folds that were not fitted on.

    Returns the names of the best way and of all that come within 0.4 % of it, whose weights are to be averaged, and the
    mean error of every way.
    """
    errors = {}
    for name, fit in ways(grams.truth.shape[1]).items():
        errors[name] = np.empty(len(fold))
        for inside, rows in splits(fold):
            errors[name][rows] = grams.take(rows).row_rmse(fit(grams.take(inside)))
    means = {name: float(error.mean()) for name, error in errors.items()}
    enough = (1 + CLOSE) * min(means.values())
    return tuple(name for name in means if means[name] <= enough), means


def averaged_weights(grams: Grams, chosen: Sequence[str]) -> Floats:
    """Fit the weights (m,) in each of the chosen ways, and average them."""
    known = ways(grams.truth.shape[1])
    return np.mean([known[name](grams) for name in chosen], axis=0)


def standard_error(difference: Floats) -> float:
    """Standard error of the mean of paired differences (n,)."""
    return float(difference.std() / np.sqrt(len(difference)))
