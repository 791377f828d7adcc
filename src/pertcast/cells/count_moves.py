"""Counts moved so that log means change as asked: molecules are lost or added, and counts stay counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from pertcast.types import Floats, Ints

STEPS = 10  # of the search for rates
SEARCHED = 500  # cells that rates are searched on, at least half of them
LEAST_CHANGE = 1e-3  # of a log mean; less is left alone
DISPERSION = (0.02, 10.0)  # of added molecules, held within
MOST_RATE = 1e4  # molecules added to a gene of a cell, expected at most


@dataclass(frozen=True, slots=True)
class Moves:
    """What happens to each gene's molecules: some are kept, some are added in proportion to the cell's total."""

    keep: Floats  # (g,)  probability that a molecule stays
    add: Floats  # (g,)  expected molecules added per unit of total
    dispersion: Floats  # (g,)  of the added ones

    def take(self, genes: Ints) -> Moves:
        """Return the moves of some genes, in the given order."""
        return Moves(self.keep[genes], self.add[genes], self.dispersion[genes])

    def expected(self, counts: Floats, total: Floats) -> Floats:
        """Expected counts of cells (n, g) with these totals (n,)."""
        return counts * self.keep + total[:, None] * self.add

    def draw(self, counts: Floats, total: Floats, *, rng: np.random.Generator) -> Floats:
        """Draw counts (n, g). A gene loses or gains as many molecules in all as expected; which cells, is chance."""
        drawn = np.rint(counts).astype(np.int64)
        lost, gained = np.flatnonzero(self.keep < 1), np.flatnonzero(self.add > 0)
        drawn[:, lost] = kept(drawn[:, lost], self.keep[lost], rng=rng)
        drawn[:, gained] += added(self.add[gained], total, self.dispersion[gained], rng=rng)
        return drawn


def kept(x: Ints, keep: Floats, *, rng: np.random.Generator) -> Ints:
    """Keep a share of each gene's molecules (n, k), drawn without replacement: binomial thinning, its sum known."""
    sums = x.sum(axis=0)
    wanted = _rounded(sums * keep, rng)
    columns = [rng.multivariate_hypergeometric(column, k) for column, k in zip(x.T, wanted, strict=True)]
    return np.stack(columns, axis=1) if columns else x


def added(rate: Floats, total: Floats, dispersion: Floats, *, rng: np.random.Generator) -> Ints:
    """Molecules added: (n, k) negative binomial of mean rate * total, the sum of each gene known.

    Poisson counts of a known sum are multinomial; the gamma factors of a negative binomial weigh the cells.
    """
    if not len(rate):
        return np.zeros((len(total), 0), np.int64)
    size = 1 / dispersion
    weight = rng.standard_gamma(np.tile(size[:, None], len(total))) * total + 1e-300  # (k, n)
    sums = _rounded(np.minimum(rate * total.sum(), MOST_RATE * len(total)), rng)
    return rng.multinomial(sums, weight / weight.sum(axis=1, keepdims=True)).T


def _rounded(values: Floats, rng: np.random.Generator) -> Ints:
    """Round up or down by chance, so that the expectation stays."""
    return np.floor(values + rng.random(len(values))).astype(np.int64)


def find_moves(
    counts: csr_array, total: Floats, shift: Floats, dispersion: Floats, *, scale: float, seed: int
) -> Moves:
    """Find the rates at which the mean of log1p(count / total * scale) moves by `shift` in these cells.

    counts      (n, g)  of untreated cells
    total       (n,)    what a cell's counts are divided by
    shift       (g,)    wanted change of the log mean
    dispersion  (g,)    of molecules to be added

    Rates are found by drawing again and again with the same random numbers, and correcting by what is still missing;
    few cells are taken several times over, so that chance has less of a say.
    """
    g, again = counts.shape[1], max(1, SEARCHED // max(counts.shape[0], 1))
    rows = np.tile(np.arange(counts.shape[0]), again)
    counts, total = counts[rows], total[rows]
    dispersion = np.clip(dispersion, *DISPERSION)
    keep, add = np.ones(g), np.zeros(g)
    down, up = np.flatnonzero(shift < -LEAST_CHANGE), np.flatnonzero(shift > LEAST_CHANGE)
    keep[down] = _thinning(_columns(counts, down), total, shift[down], scale=scale, seed=seed)
    add[up] = _adding(_columns(counts, up), total, shift[up], dispersion[up], scale=scale, seed=seed)
    return Moves(keep, add, dispersion)


def _thinning(x: Ints, total: Floats, shift: Floats, *, scale: float, seed: int) -> Floats:
    now = np.log1p(x / total[:, None] * scale).mean(axis=0)
    wanted = np.maximum(now + shift, 0)
    keep = np.clip(wanted / np.maximum(now, 1e-9), 0, 1)
    for _ in range(STEPS):
        drawn = np.random.default_rng(seed).binomial(x, keep)
        got = np.log1p(drawn / total[:, None] * scale).mean(axis=0)
        keep = np.clip(keep * np.clip((wanted + 1e-4) / (got + 1e-4), 0.5, 2), 0, 1)
    return keep


def _adding(x: Ints, total: Floats, shift: Floats, dispersion: Floats, *, scale: float, seed: int) -> Floats:
    now = np.log1p(x / total[:, None] * scale).mean(axis=0)
    rate = np.expm1(shift) / scale
    for _ in range(STEPS):
        drawn = x + added(rate, total, dispersion, rng=np.random.default_rng(seed))
        got = np.log1p(drawn / total[:, None] * scale).mean(axis=0) - now
        rate = rate * np.clip((shift + 1e-3) / (np.maximum(got, 0) + 1e-3), 0.3, 3)
    return rate


def _columns(counts: csr_array, columns: Ints) -> Ints:
    return np.rint(counts[:, columns].toarray()).astype(np.int64)


def pooled_dispersion(counts: csr_array, total: Floats, groups: list[Ints]) -> Floats:
    """Dispersion of each gene (g,) by moments within groups of cells, pooled; counts per total are compared."""
    above, square = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for rows in groups:
        if len(rows) < 3:
            continue
        depth = total[rows] / np.median(total[rows])
        x = csr_array(counts[rows].multiply(1 / depth[:, None]))
        mean = x.mean(axis=0)
        variance = (x.multiply(x).mean(axis=0) - mean**2) * len(rows) / (len(rows) - 1)
        above += len(rows) * (variance - mean * np.mean(1 / depth))
        square += len(rows) * mean**2
    return np.clip(above / np.maximum(square, 1e-12), *DISPERSION)
