"""Cells taken at known times, genes that hang on other genes and on time, and how well unseen times are predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import NamedTuple, Protocol

import numpy as np

from pertcast.errors import InputError, shorten
from pertcast.simulate.base import BaseSettings, base_plan
from pertcast.simulate.cells import SimulatedCells, draw_cells
from pertcast.simulate.mechanisms import MechanisticGene, StructuralModel
from pertcast.simulate.names import gene_names
from pertcast.simulate.planted import random_mechanism
from pertcast.simulate.populations import stream
from pertcast.types import Floats, Ints

TIMES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
TIMED_SHARE = 0.2  # of the genes hang on two others and on time
DISPERSION = 0.05  # of these
STREAM = 6
PENALTIES = np.logspace(-4, 4, 17)  # of the ridge, relative to the number of cells


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Which times train, which lie between them and which beyond. All in the unit of the cells' time."""

    train: tuple[float, ...]
    interpolation: tuple[float, ...]
    extrapolation: tuple[float, ...]


class TimeError(NamedTuple):
    """How far predictions at some times are from the truth."""

    mse: float  # of expected counts, against the oracle
    relative: float  # mse over that of no change
    correlation: float  # of predicted with expected counts, over cells, mean over genes; NaN for constant predictions
    entries: int  # cells x genes


class TimePredictor(Protocol):
    """Anything that learns genes from their parents and time."""

    def fit(self, parents: Floats, time: Floats, counts: Floats) -> TimePredictor: ...  # (n, p), (n,), (n,)

    def predict(self, parents: Floats, time: Floats) -> Floats: ...  # (n, p), (n,) -> (n,) expected counts


def simulate_timecourse(
    n_cells: int,
    n_genes: int,
    zero_share: float = 0.8,
    *,
    seed: int,
    times: Sequence[float] = TIMES,
    settings: BaseSettings | None = None,
) -> SimulatedCells:
    """Simulate cells taken at several times, equally many at each; a fifth of the genes are (g1 + g2^2) * w * t.

    n_genes     at least 3: two parents and one gene that hangs on them
    zero_share  of the independent genes
    Raises InputError for too few genes, cells or times, or a zero share that cannot be had.
    """
    model = timecourse_model(n_genes, zero_share, seed=seed, settings=settings)
    return draw_cells(model, n_cells, seed=seed, times=cell_times(n_cells, times, seed=seed))


def timecourse_model(
    n_genes: int, zero_share: float, *, seed: int, settings: BaseSettings | None = None
) -> StructuralModel:
    """Draw the parameters of `simulate_timecourse`. Raises as it does."""
    if n_genes < 3:
        raise InputError(f"Time course: {n_genes} genes are too few; at least 3, two parents and one that follows.")
    timed = max(1, round(TIMED_SHARE * n_genes))
    rng, names = stream(seed, STREAM), gene_names(n_genes)
    base = base_plan(n_genes - timed, zero_share, seed=seed, settings=settings or BaseSettings())
    genes = []
    for name in names[n_genes - timed :]:
        parents = tuple(base.genes[i] for i in rng.choice(len(base.genes), 2, replace=False))
        genes.append(MechanisticGene(name, parents, random_mechanism("time", 2, rng=rng), DISPERSION))
    return StructuralModel(base, tuple(genes))


def cell_times(n_cells: int, times: Sequence[float], *, seed: int) -> Floats:
    """Assign cells to times, equally many to each, in random order: (n,). Raises InputError for times that repeat."""
    times = np.asarray(times, float)
    if not times.size or not np.isfinite(times).all() or (times < 0).any() or len(np.unique(times)) < len(times):
        raise InputError(f"Times must be different numbers of at least 0, got {shorten(times.tolist(), most=10)}.")
    if n_cells < len(times):
        raise InputError(f"{n_cells} cells are too few for {len(times)} times; at least one cell a time.")
    return stream(seed, STREAM, 1).permutation(times[np.arange(n_cells) % len(times)])


def split_times(times: Floats) -> TimeSplit:
    """Hold out the latest quarter of the times (extrapolation), and every third of the inner rest (interpolation).

    times   (n,) of cells, or the distinct ones. Raises InputError for less than 5 distinct times.
    """
    every = np.unique(times)
    if len(every) < 5:
        raise InputError(f"Unseen times need at least 5 distinct ones, got {len(every)}. Simulate more times.")
    late = max(1, len(every) // 4)
    early = every[:-late]
    between = early[2:-1:3]
    train = early[~np.isin(early, between)]
    return TimeSplit(tuple(train.tolist()), tuple(between.tolist()), tuple(every[-late:].tolist()))


class SmoothRidge:
    """Reference: ridge on products of parents up to the second power, times powers of time; smooth in time.

    degree  of the polynomial in time; 1 is the published mechanism's own form, and extrapolates without bending
    The penalty is chosen by generalised cross-validation (Golub, Heath and Wahba 1979, doi:10.2307/1268518).
    """

    def __init__(self, degree: int = 1) -> None:
        self.degree = degree

    def fit(self, parents: Floats, time: Floats, counts: Floats) -> SmoothRidge:
        features = self._features(parents, time)
        self.centre, self.scale = features.mean(0), np.maximum(features.std(0), 1e-12)
        self.level = counts.mean()
        u, s, vt = np.linalg.svd((features - self.centre) / self.scale, full_matrices=False)
        n, y = len(counts), counts - self.level
        projected = u.T @ y
        shrink = s**2 / (s**2 + n * PENALTIES[:, None])  # (penalties, d)
        rest = ((1 - shrink) ** 2 * projected**2).sum(1) + y @ y - projected @ projected
        best = np.argmin(rest / (n - 1 - shrink.sum(1)) ** 2)
        self.weights = vt.T @ (shrink[best] / np.where(s > 0, s, 1) * projected)
        return self

    def predict(self, parents: Floats, time: Floats) -> Floats:
        if not hasattr(self, "weights"):
            raise InputError("SmoothRidge was not fitted. Call `fit` first.")
        scaled = (self._features(parents, time) - self.centre) / self.scale
        return np.maximum(0, self.level + scaled @ self.weights)  # expected counts are never negative

    def _features(self, parents: Floats, time: Floats) -> Floats:
        """Products 1, x_i, x_i x_j of the parents (n, p), each times 1, t, ... t^degree (n,); without the constant."""
        with_one = np.column_stack([np.ones(len(parents)), parents])
        pairs = combinations_with_replacement(range(with_one.shape[1]), 2)
        products = np.stack([with_one[:, i] * with_one[:, j] for i, j in pairs], axis=1)
        powers = time[:, None] ** np.arange(self.degree + 1)
        return (products[:, :, None] * powers[:, None, :]).reshape(len(parents), -1)[:, 1:]


class NearestTime:
    """Baseline: the same ridge, without time, on the cells of each training time; asked at the nearest of them."""

    def fit(self, parents: Floats, time: Floats, counts: Floats) -> NearestTime:
        self.times = np.unique(time)
        self.parts = [SmoothRidge(0).fit(parents[time == t], time[time == t], counts[time == t]) for t in self.times]
        return self

    def predict(self, parents: Floats, time: Floats) -> Floats:
        nearest = np.abs(time[:, None] - self.times).argmin(1)  # of two as near, the earlier
        every = np.stack([part.predict(parents, time) for part in self.parts])  # (times, n)
        return every[nearest, np.arange(len(parents))]


class NoChange:
    """Floor: the mean of the training cells, whatever the parents and the time."""

    def fit(self, parents: Floats, time: Floats, counts: Floats) -> NoChange:
        self.level = counts.mean()
        return self

    def predict(self, parents: Floats, time: Floats) -> Floats:
        return np.full(len(parents), self.level)


def evaluate_times(
    cells: SimulatedCells, *, split: TimeSplit | None = None, predictors: dict[str, TimePredictor] | None = None
) -> dict[str, dict[str, TimeError]]:
    """Fit predictors at the training times, gene by gene, and compare with the truth at unseen ones.

    split       default: `split_times`
    predictors  by name, beside `no-change`, `nearest-time`, `smooth-ridge` and `oracle`; each is fitted anew for every
                gene that has parents, and is told which they are
    returns     name -> "interpolation" and "extrapolation" -> error of expected counts
    Raises InputError for times that no cell has, or cells without genes that have parents.
    """
    time = cells.context.time
    split = split or split_times(time)
    lacking = set(split.train + split.interpolation + split.extrapolation) - set(np.unique(time).tolist())
    if lacking or not cells.model.mechanistic:
        what = f"no cell has the times {shorten(sorted(lacking))}" if lacking else "no gene has parents"
        raise InputError(f"Unseen times cannot be evaluated: {what}.")
    known = {"no-change": NoChange(), "nearest-time": NearestTime(), "smooth-ridge": SmoothRidge()} | (predictors or {})
    truth = cells.oracle().only(*cells.model.names).mean  # (n, m)
    train = np.isin(time, split.train)
    guesses = {name: _guess(predictor, cells, train) for name, predictor in known.items()}
    guesses["oracle"] = truth
    parts = {"interpolation": split.interpolation, "extrapolation": split.extrapolation}
    floor = guesses["no-change"]
    return {
        name: {part: _error(guess, truth, floor, np.isin(time, unseen)) for part, unseen in parts.items()}
        for name, guess in guesses.items()
    }


def _guess(predictor: TimePredictor, cells: SimulatedCells, train: Ints) -> Floats:
    """Fit and predict every gene that has parents: (n, m)."""
    counts, time, guesses = cells.dense, cells.context.time, []
    for gene in cells.model.mechanistic:
        parents = cells.model.parents_of(gene, counts)
        own = counts[:, cells.genes.index(gene.name)].astype(float)
        predictor.fit(parents[train], time[train], own[train])
        guesses.append(predictor.predict(parents, time))
    return np.stack(guesses, axis=1)


def _error(guess: Floats, truth: Floats, floor: Floats, rows: Ints) -> TimeError:
    guess, truth, floor = guess[rows], truth[rows], floor[rows]
    mse = float(np.mean((guess - truth) ** 2))
    flat = (np.ptp(guess, axis=0) == 0) | (np.ptp(truth, axis=0) == 0)
    each = [np.corrcoef(guess[:, i], truth[:, i])[0, 1] for i in np.flatnonzero(~flat)]
    correlation = float(np.mean(each)) if each else float("nan")
    return TimeError(mse, mse / float(np.mean((floor - truth) ** 2)), correlation, guess.size)
