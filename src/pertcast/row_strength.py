"""How strong a row will be: a factor for each row of a blend, learned from rows that were predicted out of fold.

A perfect factor for every row would be worth several percent of the score, but most of that is the part of a row's
direction that nobody foresees. What can be foreseen is how much a prediction may be trusted: one that is large, and
that agrees with what the compound did in other cell types, deserves its size; a small or strange one does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from pertcast.types import Floats, Fold, Ints, Question
from pertcast.weights import Grams

FEATURES = ("log size", "agreement", "log size^2", "agreement^2", "log size x agreement")
SHRINKAGE = 0.1  # of the slopes to none, in units of the mean error
REACH = 2.5  # standard deviations beyond which a row counts as this far out
MOST = 2.0  # no row is made more than twice as strong, or less than half
SMALL = 1e-9


@dataclass(frozen=True, slots=True)
class RowStrength:
    """exp(intercept + slopes . features): the factor of a row. Plain numbers, kept with the submission."""

    center: Floats  # (2,)  of log size and agreement over the rows fitted on
    spread: Floats  # (2,)
    intercept: float
    slopes: Floats  # (5,)  of FEATURES

    def factor(self, blend: Grams) -> Floats:
        """Factor of each row (n,) of a blend, given as inner products of one member."""
        return np.clip(np.exp(self.intercept + self._features(blend) @ self.slopes), 1 / MOST, MOST)

    def _features(self, blend: Grams) -> Floats:
        z = np.clip((_size_and_agreement(blend) - self.center) / self.spread, -REACH, REACH)  # (n, 2)
        size, agreement = z.T
        return np.stack([size, agreement, size**2 - 1, agreement**2 - 1, size * agreement], axis=1)

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        slopes = dict(zip(FEATURES, map(float, self.slopes), strict=True))
        scale = {"center": self.center.tolist(), "spread": self.spread.tolist()}
        return {"intercept": self.intercept, "slopes": slopes, **scale}


def fit_row_strength(blend: Grams) -> RowStrength:
    """Find the factors that minimise the mean row-wise RMSE of a blend, slopes drawn to none.

    blend   inner products of one member: out-of-fold rows
    """
    values = _size_and_agreement(blend)
    spread = values.std(0)
    start = RowStrength(values.mean(0), np.where(spread > 0, spread, 1.0), 0.0, np.zeros(len(FEATURES)))
    x = np.concatenate([np.ones((len(blend), 1)), start._features(blend)], axis=1)  # (n, 6)
    unit = np.sqrt(blend.norm / blend.n_genes).mean() + SMALL
    pp, py, yy = (part / blend.n_genes for part in (blend.cross[:, 0, 0], blend.truth[:, 0], blend.norm))

    def loss(coefficients: Floats) -> tuple[float, Floats]:
        factor = np.exp(x @ coefficients)  # (n,)
        error = np.sqrt(np.maximum(factor**2 * pp - 2 * factor * py + yy, SMALL))
        slope = (factor * pp - py) / error * factor  # of each row's error along its log factor
        penalty = SHRINKAGE * np.concatenate([[0.0], coefficients[1:]])
        return error.mean() / unit + penalty @ coefficients, slope @ x / len(x) / unit + 2 * penalty

    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", bounds=[(-1, 1)] * x.shape[1]).x
    return RowStrength(start.center, start.spread, float(found[0]), found[1:])


def _size_and_agreement(blend: Grams) -> Floats:
    """Log root mean square of each row, and its inner product, at length one, with the compound's profile: (n, 2)."""
    norm = np.sqrt(np.maximum(blend.cross[:, 0, 0], SMALL))
    return np.stack([np.log(norm / np.sqrt(blend.n_genes)), blend.profile[:, 0] / norm], axis=1)


def profiles_held_out(question: Question, folds: Sequence[Fold]) -> Floats:
    """Profile of each held-out row's compound, from the training rows of its fold alone: (n, g), fold after fold."""
    return np.concatenate([compound_profiles(question, fold.train, question.compound[fold.valid]) for fold in folds])


def compound_profiles(question: Question, train: Ints, compounds: np.ndarray) -> Floats:
    """Mean of a compound's measured rows, each at length one: (k,) names -> (k, g) float32.

    Its inner product with a direction is the mean cosine with the compound's rows. Zeros where `train` has none.
    """
    profiles = np.zeros((len(compounds), question.y.shape[1]), np.float32)
    names = question.compound[train]
    for compound in np.unique(compounds.astype(str)):
        rows = question.y[train[names == compound]].astype(np.float64)
        if len(rows):
            length = np.sqrt((rows**2).sum(1, keepdims=True))
            profiles[compounds == compound] = (rows / np.maximum(length, SMALL)).mean(0)
    return profiles
