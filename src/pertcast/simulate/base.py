"""Cells of independent genes, every parameter known: the published benchmark draw by draw, or a wider, fast one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from pertcast.errors import InputError, several
from pertcast.metrics.count_likelihood import (
    check_zero_share,
    solve_zero_inflation,
    zero_inflation_for,
    zero_probability,
)
from pertcast.simulate.cells import SimulatedCells, draw_cells
from pertcast.simulate.mechanisms import StructuralModel
from pertcast.simulate.names import gene_names
from pertcast.simulate.populations import BasePlan, BatchKind, plain_context, stream
from pertcast.types import Floats

PLAN = 3  # random stream of parameters
LIBRARY_NODES = 32  # Gauss-Hermite nodes: exact to 1e-9 for any library size in use


@dataclass(frozen=True, slots=True)
class BaseSettings:
    """What simulated cells vary in. The defaults are the published benchmark: one population, one batch."""

    mean_range: tuple[float, float] = (1.0, 10.0)  # expected counts, uniform, before zero inflation
    dispersion_range: tuple[float, float] = (0.5, 2.0)  # uniform
    populations: int = 1
    changed_share: float = 0.2  # of the genes, in each population but the first
    log_fold_change: float = 1.5  # natural log; a changed gene goes up or down by it, with equal chance
    library_sd: float = 0.0  # of the natural log of library size
    batches: int = 1  # the first is the reference, the others are shifted
    batch_kind: BatchKind = "additive"
    batch_shift: float | None = None  # additive: batch b gets b times this, 10; multiplicative: sd of log factors, 0.5
    clip: bool = False  # leave genes without zero inflation where their mean allows no fewer zeros; else refuse

    def __post_init__(self) -> None:
        wrong = [
            f"{name.replace('_', ' ')} must be low, high with 0 <= low <= high, got {low:g}, {high:g}"
            for name, (low, high) in (("mean_range", self.mean_range), ("dispersion_range", self.dispersion_range))
            if not 0 <= low <= high < np.inf
        ]
        wrong += [
            f"{name.replace('_', ' ')} must be {rule}, got {getattr(self, name)}"
            for name, rule, good in (
                ("populations", "at least 1", self.populations >= 1),
                ("batches", "at least 1", self.batches >= 1),
                ("changed_share", "from 0 to 1", 0 <= self.changed_share <= 1),
                ("log_fold_change", "finite", np.isfinite(self.log_fold_change)),
                ("library_sd", "from 0 to 5", 0 <= self.library_sd <= 5),
                ("batch_shift", "at least 0", self.batch_shift is None or 0 <= self.batch_shift < np.inf),
            )
            if not good
        ]
        if wrong:
            raise InputError(several("Settings of simulated cells", wrong))


def simulate_base(
    n_cells: int,
    n_genes: int,
    zero_share: float = 0.8,
    *,
    seed: int,
    fixture: bool = False,
    settings: BaseSettings | None = None,
    as_sparse: bool = False,
) -> SimulatedCells:
    """Draw zero-inflated negative-binomial counts of independent genes with known parameters.

    zero_share  expected share of zeros of every gene, over populations, batches and library sizes; the zero inflation
                is solved for. An additive batch effect comes on top and removes zeros.
    seed        at least 0; same seed, same bytes
    fixture     the published benchmark draw by draw (numpy's legacy generator, one population, clipped zero inflation);
                without it, numpy's Generator: many times faster, other numbers
    settings    populations, batches, library sizes, ranges of parameters; not with `fixture`
    as_sparse   counts as scipy CSR (int32) instead of a plain array
    Raises InputError for sizes below 1, a zero share that cannot be had, or settings out of range.
    """
    if fixture:
        if settings is not None and settings != BaseSettings(clip=settings.clip):
            raise InputError("The fixture has fixed settings: one population, one batch. Leave out one of the two.")
        cells = _fixture(n_cells, n_genes, zero_share, seed)
        return SimulatedCells(sparse.csr_array(cells.counts), cells.context, cells.model) if as_sparse else cells
    plan = base_plan(n_genes, zero_share, seed=seed, settings=settings or BaseSettings())
    return draw_cells(StructuralModel(plan), n_cells, seed=seed, as_sparse=as_sparse)


def base_plan(n_genes: int, zero_share: float, *, seed: int, settings: BaseSettings) -> BasePlan:
    """Draw the parameters of independent genes; zero inflation is solved for. Raises as `simulate_base`."""
    check_zero_share(zero_share)
    genes, rng = gene_names(n_genes), stream(seed, PLAN)
    mean = rng.uniform(*settings.mean_range, n_genes)
    dispersion = rng.uniform(*settings.dispersion_range, n_genes)
    changes = np.zeros((settings.populations, n_genes))
    for population in range(1, settings.populations):
        changed = rng.permutation(n_genes)[: round(settings.changed_share * n_genes)]
        changes[population, changed] = rng.choice([-1, 1], len(changed)) * settings.log_fold_change
    means = mean * np.exp(changes)
    batch = _batch_effect(n_genes, settings, rng)
    factors = batch if settings.batch_kind == "multiplicative" else np.ones((1, n_genes))
    without = _zeros_without_inflation(means, factors, dispersion, settings.library_sd)
    inflation = zero_inflation_for(zero_share, without, clip=settings.clip)
    return BasePlan(genes, means, dispersion, inflation, batch, settings.batch_kind, settings.library_sd)


def _batch_effect(n_genes: int, settings: BaseSettings, rng: np.random.Generator) -> Floats:
    """(b, g), the first batch without effect."""
    multiplicative = settings.batch_kind == "multiplicative"
    shift = (0.5 if multiplicative else 10.0) if settings.batch_shift is None else settings.batch_shift
    if multiplicative:
        logs = shift * rng.standard_normal((settings.batches, n_genes))
        return np.exp(np.where(np.arange(settings.batches)[:, None] == 0, 0.0, logs))
    return np.repeat(np.arange(settings.batches)[:, None] * shift, n_genes, axis=1)


def _zeros_without_inflation(means: Floats, factors: Floats, dispersion: Floats, library_sd: float) -> Floats:
    """Probability of a zero, averaged over populations (k, g), batches (b, g) and log-normal library sizes: (g,)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(LIBRARY_NODES if library_sd else 1)
    library = np.exp(library_sd * nodes - library_sd**2 / 2)
    every = means[:, None, None] * factors[:, None] * library[:, None]  # (k, b, nodes, g)
    zeros = zero_probability(every, dispersion).mean((0, 1))
    return weights @ zeros / weights.sum()


def _fixture(n_cells: int, n_genes: int, zero_share: float, seed: int) -> SimulatedCells:
    """Draw gene after gene from the legacy generator in the published order; its global twin is never touched."""
    if n_cells < 1:
        raise InputError(f"Number of cells must be at least 1, got {n_cells}.")
    if not 0 <= seed < 1 << 32:
        raise InputError(f"Seed of the fixture must be at least 0 and below 2^32, got {seed}.")
    genes = gene_names(n_genes)
    check_zero_share(zero_share)
    legacy = np.random.RandomState(seed)  # noqa: NPY002 - the published numbers come from it
    mean, dispersion = legacy.uniform(1, 10, n_genes), legacy.uniform(0.5, 2, n_genes)
    inflation = solve_zero_inflation(zero_share, mean, dispersion, clip=True)
    counts = np.empty((n_cells, n_genes), np.int64)
    for gene, (m, a, pi) in enumerate(zip(mean, dispersion, inflation, strict=True)):
        size = 1 / a
        drawn = legacy.negative_binomial(size, size / (size + m), n_cells)
        counts[:, gene] = np.where(legacy.binomial(1, pi, n_cells) == 1, 0, drawn)
    plan = BasePlan(genes, mean[None], dispersion, inflation, np.zeros((1, n_genes)))
    return SimulatedCells(counts, plain_context(n_cells), StructuralModel(plan))
