"""Mean response of a context where a condition was never measured, from contexts where it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from pertcast.cells.detection import is_detected
from pertcast.types import Cells, Floats, Ints

LEAST_CELLS = 5  # untreated, and treated, of a context that teaches anything
NOISE = 0.05  # of a shift, as a share of what contexts differ by; more where cells are few
FEW_CELLS = 30.0  # cells at which that share doubles
LENGTH = 1.0  # of the covariance between contexts, in median distances
NEAR = 0.3  # the same of the weights that look at the nearest contexts only
TRUST = 20.0  # cells at which a context counts half among the near ones
BLEND = 0.5  # share of the near-sighted weights beside those of the process
POWER = 1 / 3  # of rates, for transfer: folds explode where a gene was silent, differences where it is abundant
PULL = 3.0  # of those weights on the regressed ones, in mean squares of a context's untreated means
SEEN = 0.1  # log mean from which a gene tells how contexts compare
TOLD_APART_BY = 100  # genes whose means differ most between contexts: distances are taken over them
CERTAIN = 3.0  # standard deviations from which a gene's shifts are taken as they are


@dataclass(frozen=True, slots=True)
class Measured:
    """One condition where it was measured."""

    contexts: Ints  # (m,)  numbers of contexts
    shift: Floats  # (m, g)  treated less untreated mean
    noise: Floats  # (m, g)  squared standard error of that
    cells: Floats  # (m,)  effective number of cells: harmonic sum of both sides
    detected: bool  # whether contexts agree on it beyond chance


@dataclass(frozen=True, slots=True)
class ContextMeans:
    """Means of untreated cells per context, and shifts of every condition."""

    contexts: tuple[str, ...]
    centre: Floats  # (c, g)
    error: Floats  # (c, g)  standard errors of those
    measured: Mapping[str, Measured]

    @classmethod
    def of(cls, y: csr_array, cells: Cells, *, seed: int) -> ContextMeans:
        """Summarise cells: y (n, g) in the unit in which shifts are to be added, log1p of normalised counts."""
        untreated = cells.untreated
        groups = {
            name: _summary(y, untreated & (cells.context == name)) for name in sorted(set(cells.context[untreated]))
        }
        contexts = tuple(groups)
        measured = {}
        for condition in cells.conditions:
            treated = cells.condition == condition
            sides = {name: _summary(y, treated & (cells.context == name)) for name in contexts}
            known = [name for name in contexts if min(groups[name][2], sides[name][2]) >= LEAST_CELLS]
            known = known or [name for name in contexts if sides[name][2] > 0]
            if known:
                rows = [
                    [np.flatnonzero(side & (cells.context == name)) for name in known] for side in (untreated, treated)
                ]
                detected = is_detected(y, *rows, seed=seed)
                measured[condition] = _measured(known, contexts, groups, sides, detected)
        centre = np.array([groups[name][0] for name in contexts]).reshape(len(contexts), y.shape[1])
        return cls(contexts, centre, _errors(list(groups.values()), y.shape[1]), measured)

    def shift(self, condition: str, context: str) -> Floats:
        """Predict what a condition adds to the gene means of a context: (g,).

        Measured there: that shift. Elsewhere: the shift that other contexts show on a scale between folds and
        differences, each as it takes part in a regression of this context's untreated means on theirs, and less what
        of those means is chance. Unknown context: the mean over contexts. Shifts are held back gene by gene where they
        are no more than noise, and a condition that does not exceed it shifts nothing.
        """
        known = self.measured[condition]
        if not known.detected:
            return np.zeros(self.centre.shape[1])
        held_back = _held_back(known)
        if context not in self.contexts:
            return self.mean_shift(condition)
        number = self.contexts.index(context)
        if number in known.contexts:
            return held_back * known.shift[list(known.contexts).index(number)]
        near, weights = self._weights(known, number)
        return held_back * self._transferred(known, weights, number) - self._chance(known, near, number)

    def mean_shift(self, condition: str) -> Floats:
        """Mean over the contexts where a condition was measured of what it adds, held back as in `shift`: (g,)."""
        known = self.measured[condition]
        return _held_back(known) * (_even(known.cells) @ known.shift) * known.detected

    def without(self, condition: str, context: str) -> ContextMeans:
        """Forget that a condition was measured in a context."""
        known = self.measured[condition]
        rest = known.contexts != self.contexts.index(context)
        parts = {name: getattr(known, name)[rest] for name in ("contexts", "shift", "noise", "cells")}
        return replace(self, measured={**self.measured, condition: replace(known, **parts)})

    def _weights(self, known: Measured, context: int) -> tuple[Floats, Floats]:
        """Weights of measured contexts: by nearness alone, and those by which they stand for this one: both (m,)."""
        distance = self._distances(np.append(known.contexts, context))
        near = _near_sighted(distance[-1, :-1], known.cells)
        expected = (1 - BLEND) * _far_sighted(distance, known.cells) + BLEND * near
        return near, _regressed(self.centre[known.contexts], self.centre[context], expected, known.cells)

    def _transferred(self, known: Measured, weights: Floats, context: int) -> Floats:
        """Shift of a context that moves, on the scale of transfer, as others do together: (g,)."""
        before, own = self.centre[known.contexts], self.centre[context]
        moved = _transfer_scale(own) + weights @ (_transfer_scale(before + known.shift) - _transfer_scale(before))
        return np.log1p(np.maximum(moved, 0) ** (1 / POWER)) - own

    def _chance(self, known: Measured, near: Floats, context: int) -> Floats:
        """What sets a context's untreated means apart from its neighbours', at most their standard error: (g,).

        Treated cells are other cells: they do not share the chance in the means of the untreated ones.
        """
        apart = self.centre[context] - near @ self.centre[known.contexts]
        return np.clip(apart, -self.error[context], self.error[context])

    def _distances(self, numbers: Ints) -> Floats:
        """Squared distances between the centres of some contexts: (m, m)."""
        genes = np.argsort(-self.centre.var(axis=0), kind="stable")[:TOLD_APART_BY]
        centre = self.centre[np.ix_(numbers, genes)]
        return np.square(centre[:, None] - centre[None]).sum(-1)


def _held_back(known: Measured) -> Floats:
    """Share of each gene's shifts that is taken: (g,).

    0 where all contexts together show no more than noise (a chi-square of its expectation), 1 where that lies
    CERTAIN standard deviations above.
    """
    energy, m = (np.square(known.shift) / np.maximum(known.noise, 1e-12)).sum(axis=0), len(known.cells)
    return np.clip((energy - m) / (CERTAIN * np.sqrt(2 * m)), 0, 1)


def _far_sighted(distance: Floats, cells: Floats) -> Floats:
    """Weights of measured contexts (m,) by a Gaussian process around a common mean; the context asked stands last."""
    unit = np.median(distance[distance > 0]) if (distance > 0).any() else 1.0
    covariance = np.exp(-distance / (2 * LENGTH**2 * unit))
    inverse = np.linalg.inv(covariance[:-1, :-1] + np.diag(NOISE * (1 + FEW_CELLS / cells)))
    common = inverse.sum(axis=1) / inverse.sum()
    pull = inverse @ covariance[:-1, -1]
    return pull + (1 - pull.sum()) * common


def _near_sighted(distance: Floats, cells: Floats) -> Floats:
    """Weights of measured contexts (m,) by nearness, and by how many cells they have."""
    unit = max(float(np.median(distance)), 1e-12)
    near = np.exp(-(distance - distance.min()) / (2 * NEAR**2 * unit)) * cells / (cells + TRUST)
    return near / near.sum()


def _regressed(others: Floats, own: Floats, expected: Floats, cells: Floats) -> Floats:
    """Weights (m,) by which means of other contexts (m, g) make up those of one (g,); ridge towards expected ones.

    Genes are the samples. What few cells tell is pulled harder. Source: synthetic controls, Abadie et al. 2010,
    doi:10.1198/jasa.2009.ap08746, with a ridge in place of their constraints.
    """
    seen = others.max(axis=0) > SEEN
    if not seen.any():
        return expected
    x, y = _transfer_scale(others[:, seen]), _transfer_scale(own[seen])
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean()
    square = x @ x.T
    pull = PULL * np.trace(square) / len(square) * (1 + FEW_CELLS / cells)
    return np.linalg.solve(square + np.diag(pull) + 1e-9 * np.eye(len(square)), x @ y + pull * expected)


def _transfer_scale(log_mean: Floats) -> Floats:
    return np.expm1(np.maximum(log_mean, 0)) ** POWER


def _even(cells: Floats) -> Floats:
    """Weights of contexts (m,) where nothing is known of the one that is asked for."""
    weight = 1 / (1 + FEW_CELLS / cells)
    return weight / weight.sum()


def _summary(y: csr_array, rows: np.ndarray) -> tuple[Floats, Floats, int]:
    """Mean and variance of each gene (g,), and the number of cells."""
    part, n = y[np.flatnonzero(rows)], int(rows.sum())
    if n == 0:
        return np.zeros(y.shape[1]), np.zeros(y.shape[1]), 0
    mean = np.asarray(part.mean(axis=0), float)
    square = np.asarray(part.multiply(part).mean(axis=0), float)
    return mean, np.maximum(square - mean**2, 0) * n / max(n - 1, 1), n


def _errors(groups: list[tuple[Floats, Floats, int]], genes: int) -> Floats:
    """Standard errors of the means of groups: (c, g). Half of a variance is the group's own, half is pooled."""
    cells = max(sum(n for *_, n in groups), 1)
    pooled = sum((variance * n / cells for _, variance, n in groups), np.zeros(genes))
    return np.array([np.sqrt((variance + pooled) / 2 / n) for _, variance, n in groups]).reshape(len(groups), genes)


def _measured(known: list[str], contexts: tuple[str, ...], groups: dict, sides: dict, detected: bool) -> Measured:
    variance = sum(groups[k][1] * groups[k][2] + sides[k][1] * sides[k][2] for k in known)
    variance = variance / sum(groups[k][2] + sides[k][2] for k in known) + 1e-4  # pooled: (g,)
    inverse = np.array([1 / groups[k][2] + 1 / sides[k][2] for k in known])
    return Measured(
        contexts=np.array([contexts.index(k) for k in known]),
        shift=np.array([sides[k][0] - groups[k][0] for k in known]),
        noise=inverse[:, None] * variance,
        cells=1 / inverse,
        detected=detected,
    )
