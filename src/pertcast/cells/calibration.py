"""How far t from generated cells can be trusted: direction by direction, and by how strong a row is.

A generated row has much noise of its own in directions that no response takes, and too little or too much of those that
responses do take. So each leading direction of the measured responses gets a gain, what lies outside of them gets
another one and is believed in strong rows only, and weak rows are held back as a whole. What all rows of a cell type
have in common, the noise of its untreated wells above all, no model of cells can tell: it is read off measured rows.

What is best said of t is its mean; of a p-value it is not the p-value of that mean, since -log10 p bends upwards and a
measured t has chance in it. So t is given back whose p-value is the expected one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from pertcast.de.log10_p import signed_log10_p, t_from_signed_log10_p
from pertcast.types import Examples, Floats, Ints, Strings

DIRECTIONS = 20  # leading ones of the measured responses, at most
WEAK = (0.0, 0.25, 1.0)  # mean squares of t at which half of a row is held back
OUTSIDE = (0.0, 1.0, 4.0, 16.0, 64.0)  # the same of what lies outside of the directions
CAUTION = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)  # of all gains: what t wants may be too much for its p-value
PULL = 20.0  # pseudo-rows that draw the gain of a direction to the common one
ROUNDS = 5  # in which each row counts by the inverse of its error: the score is a mean of roots
FEW_ROWS = 10.0  # rows at which half of what a cell type's rows share is believed
FEW_TYPES = 2.0  # cell types at which half of a compound's mean is believed to be its own
NODES, SHARES = np.polynomial.hermite_e.hermegauss(9)  # of a normal variable of sd 1, as t has without any effect
LEAST = 1e-3  # a row's error counts as at least this share of the mean one

Choice = tuple[float, float]  # one of WEAK and of OUTSIDE


@dataclass(frozen=True, slots=True)
class Calibration:
    """t' = held back (gains . directions + outside) + what rows of the cell type share."""

    axes: Floats  # (k, g)  orthonormal directions
    gain: Floats  # (k,)
    outside: float  # gain of what lies outside of the directions
    weak: float  # one of WEAK
    doubt: float  # one of OUTSIDE
    offset: Floats  # (c + 1, g)  by cell type; the last one for cell types beyond the known ones
    cell_types: tuple[str, ...]

    @classmethod
    def of(cls, t: Floats, rows: Examples, *, train: Examples) -> Calibration:
        """Learn from rows that the model of cells did not see.

        t      (n, g)  generated for these rows
        rows   n of the training rows
        train  all training rows
        """
        types = tuple(sorted(set(train.cell_type)))
        offset = shared_by_types(train, types)
        axes = _directions(train.y - offset[_codes(train.cell_type, types)])
        given = _Rows.of(np.asarray(t, np.float64), rows.y - offset[_codes(rows.cell_type, types)], axes)
        fits = {choice: given.fit(choice) for choice in product(WEAK, OUTSIDE)}
        choice = min(fits, key=lambda one: fits[one][2].mean())
        gain, outside, _ = fits[choice]
        tried = [cls(axes, share * gain, share * outside, *choice, offset, types) for share in CAUTION]
        return min(tried, key=lambda one: one._error(t, rows))

    def apply(self, t: Floats, cell_type: Strings) -> Floats:
        """Say what is measured where t (n, g) was generated in these cell types (n,): (n, g)."""
        t = np.asarray(t, np.float64)
        scores = t @ self.axes.T
        held, doubted = _believed(np.square(t).mean(axis=1, keepdims=True), self.weak, self.doubt)
        inside, beyond = (held * self.gain * scores) @ self.axes, self.outside * doubted * (t - scores @ self.axes)
        return with_expected_p(inside + beyond + self.offset[_codes(cell_type, self.cell_types)])

    def _error(self, t: Floats, rows: Examples) -> float:
        """Mean error of rows as it is scored, in signed -log10 p, where what is said too loud costs most."""
        said, measured = (signed_log10_p(each, np.inf) for each in (self.apply(t, rows.cell_type), rows.y))
        return float(np.sqrt(np.square(said - measured).mean(axis=1)).mean())

    def parts(self) -> tuple[dict[str, Floats], dict[str, object]]:
        """Arrays and facts, for saving."""
        numbers = {"outside": self.outside, "weak": self.weak, "doubt": self.doubt}
        return {"axes": self.axes, "gain": self.gain, "offset": self.offset}, {**numbers, "cell_types": self.cell_types}

    @classmethod
    def restored(cls, arrays: Mapping[str, Floats], facts: Mapping[str, object]) -> Calibration:
        """Rebuild what `parts` gave."""
        own = {name: arrays[name] for name in ("axes", "gain", "offset")}
        numbers = {name: facts[name] for name in ("outside", "weak", "doubt")}
        return cls(**own, **numbers, cell_types=tuple(facts["cell_types"]))


@dataclass(frozen=True, slots=True)
class _Rows:
    """All that fitting needs of n rows: scores along k directions, inner products of what lies outside."""

    scores: Floats  # (n, k)  of t
    truth: Floats  # (n, k)  of y
    size: Floats  # (n, 1)  mean square of t
    square: Floats  # (n,)  of what lies outside, t with t
    cross: Floats  # (n,)  t with y
    norm: Floats  # (n,)  y with y
    genes: int

    @classmethod
    def of(cls, t: Floats, y: Floats, axes: Floats) -> _Rows:
        scores, truth = t @ axes.T, y @ axes.T
        t_out, y_out = t - scores @ axes, y - truth @ axes
        inner = ((t_out * t_out).sum(1), (t_out * y_out).sum(1), (y_out * y_out).sum(1))
        return cls(scores, truth, np.square(t).mean(axis=1, keepdims=True), *inner, t.shape[1])

    def fit(self, choice: Choice) -> tuple[Floats, float, Floats]:
        """Gains of the directions (k,) and of what lies outside, and every row's error (n,)."""
        held, doubted = _believed(self.size, *choice)
        doubted = doubted[:, 0]
        x, weight = held * self.scores, np.ones(len(self.size))
        for _ in range(ROUNDS):
            cross, square = weight @ (x * self.truth), weight @ np.square(x)
            common = max(0.0, cross.sum() / max(square.sum(), 1e-12))
            pull = PULL * square.mean() / len(x) + 1e-12
            gain = np.maximum(0, (cross + pull * common) / (square + pull))
            below = weight @ (doubted**2 * self.square)
            outside = max(0.0, float(weight @ (doubted * self.cross)) / below) if below > 0 else 0.0
            inside = np.square(self.truth - gain * x).sum(axis=1)
            beyond = self.norm - 2 * outside * doubted * self.cross + (outside * doubted) ** 2 * self.square
            error = np.sqrt(np.maximum(inside + beyond, 0) / self.genes)
            weight = 1 / np.maximum(error, LEAST * error.mean() + 1e-12)
        return gain, outside, error


def _believed(size: Floats, weak: float, doubt: float) -> tuple[Floats, Floats]:
    """Shares of rows of these mean squares (n, 1) that are believed, inside and outside of the directions."""
    return _share(size, weak), _share(size, weak) * _share(size, doubt)


def _share(size: Floats, half: float) -> Floats:
    return size / np.maximum(size + half, 1e-12)


def shared_by_types(train: Examples, types: tuple[str, ...]) -> Floats:
    """What the rows of each cell type share beside their compounds' means: (c + 1, g); last, the mean over cell types.

    An additive fit, drawn to none, in which a row counts by the inverse of its size: most compounds do little, and
    their rows show what is common to all.
    """
    y = train.y.astype(np.float64)
    size = np.sqrt(np.square(y).mean(axis=1))
    weight = 1 / np.maximum(size, LEAST * size.mean() + 1e-12)
    of_type, of_compound = _codes(train.cell_type, types), np.unique(train.compound.astype(str), return_inverse=True)[1]
    by_type = np.eye(len(types))[of_type] * (weight / np.median(weight))[:, None]  # (n, c)
    by_compound = np.eye(of_compound.max() + 1)[of_compound]
    compound = np.zeros((by_compound.shape[1], y.shape[1]))
    for _ in range(ROUNDS):
        shared = by_type.T @ (y - compound[of_compound]) / (by_type.sum(axis=0)[:, None] + FEW_ROWS)
        compound = by_compound.T @ (y - shared[of_type]) / (by_compound.sum(axis=0)[:, None] + FEW_TYPES)
    return np.concatenate([shared, shared.mean(axis=0, keepdims=True)])


def with_expected_p(t: Floats) -> Floats:
    """Return the t (n, g) whose signed -log10 p is the expected one of normal t around these, of sd 1.

    By Gauss-Hermite quadrature; p-values are those of a normal t.
    """
    expected = sum(
        share * signed_log10_p(t + node, np.inf) for node, share in zip(NODES, SHARES / SHARES.sum(), strict=True)
    )
    return t_from_signed_log10_p(expected, np.inf)


def _directions(y: Floats) -> Floats:
    """Leading directions of rows: (k, g)."""
    return np.linalg.svd(y, full_matrices=False)[2][:DIRECTIONS]


def _codes(cell_type: Strings, types: tuple[str, ...]) -> Ints:
    """Number of each cell type; one beyond the known ones where it is unknown."""
    place = {name: number for number, name in enumerate(types)}
    return np.array([place.get(name, len(types)) for name in cell_type], int)
