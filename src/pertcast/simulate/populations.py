"""What cells without mechanisms are drawn from: populations, batches, library sizes and each gene's parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import sparse

from pertcast.errors import InputError, several
from pertcast.metrics.count_likelihood import CountParameters, checked_parameters
from pertcast.simulate.counts import negative_binomial
from pertcast.simulate.tables import MOST, CountTables, count_tables
from pertcast.types import Floats, Ints

BatchKind = Literal["additive", "multiplicative"]
LABELS, BLOCKS = 0, 1  # independent random streams of one seed
SMALL_TABLE = 1 << 14  # numbers that are always worth tabulating
ENTRIES = 1 << 22  # cells x genes of a block; fixed, so that what is drawn does not depend on the memory at hand


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of each cell besides its counts."""

    population: Ints  # (n,) row of `BasePlan.means`
    batch: Ints  # (n,) row of `BasePlan.batch_effect`
    library: Floats  # (n,) factor on every mean; 1 on average
    time: Floats  # (n,) when the cell is taken; 0 where nothing depends on time

    def __len__(self) -> int:
        return len(self.population)

    def take(self, rows: Ints | slice) -> Context:
        return Context(self.population[rows], self.batch[rows], self.library[rows], self.time[rows])

    def at(self, time: Floats | float) -> Context:
        """Return the same cells at other times, one or (n,)."""
        return replace(self, time=np.broadcast_to(np.asarray(time, float), (len(self),)).copy())


def plain_context(n_cells: int, *, time: Floats | float = 0.0) -> Context:
    """Return the context of cells of the first population and batch, of average library size."""
    none = np.zeros(n_cells, int)
    return Context(none, none, np.ones(n_cells), np.zeros(n_cells)).at(time)


@dataclass(frozen=True, slots=True, eq=False)
class BasePlan:
    """Independent genes: every parameter that their counts are drawn with. Nothing in it is random."""

    genes: tuple[str, ...]  # (g,)
    means: Floats  # (k, g) expected counts per population, before zero inflation, at library size 1
    dispersion: Floats  # (g,)
    zero_inflation: Floats  # (g,)
    batch_effect: Floats  # (b, g) additive: whole counts added to every cell; multiplicative: factor on the mean
    batch_kind: BatchKind = "additive"
    library_sd: float = 0.0  # of the natural log of library size, which is log-normal with mean 1

    def __post_init__(self) -> None:
        checked_parameters(self.means, self.dispersion, self.zero_inflation)
        g = len(self.genes)
        shapes = {
            "means": (len(self.means), g), "dispersion": (g,), "zero_inflation": (g,),
            "batch_effect": (len(self.batch_effect), g),
        }  # fmt: skip
        wrong = [
            f"{name} has shape {np.shape(getattr(self, name))}, expected {shape}"
            for name, shape in shapes.items()
            if np.shape(getattr(self, name)) != shape
        ]
        if self.batch_kind not in ("additive", "multiplicative"):
            wrong.append(f"batch kind '{self.batch_kind}' is neither additive nor multiplicative")
        elif (self.batch_effect < 0).any() or not np.isfinite(self.batch_effect).all():
            wrong.append("batch effects must be finite and at least 0")
        elif self.batch_kind == "additive" and (self.batch_effect != np.floor(self.batch_effect)).any():
            wrong.append("an additive batch effect must be a whole number of counts")
        if not 0 <= self.library_sd < np.inf:
            wrong.append(f"sd of the log library size must be at least 0, got {self.library_sd}")
        if wrong:
            raise InputError(several("Plan of simulated cells", wrong))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BasePlan) and self.as_dict() == other.as_dict()

    __hash__ = None

    def context(self, n_cells: int, *, seed: int) -> Context:
        """Draw labels and library sizes: equally many cells of each population, and of each batch, in random order."""
        if n_cells < 1:
            raise InputError(f"Number of cells must be at least 1, got {n_cells}.")
        rng = stream(seed, LABELS)
        population, batch = (_labels(n_cells, len(rows), rng) for rows in (self.means, self.batch_effect))
        if not self.library_sd:
            return Context(population, batch, np.ones(n_cells), np.zeros(n_cells))
        library = np.exp(self.library_sd * rng.standard_normal(n_cells) - self.library_sd**2 / 2)
        return Context(population, batch, library, np.zeros(n_cells))

    def parameters(self, context: Context) -> CountParameters:
        """Return what the counts of these cells are drawn from, before an additive batch effect: (n, g)."""
        mean = self.means[context.population] * context.library[:, None]
        if self.batch_kind == "multiplicative":
            mean = mean * self.batch_effect[context.batch]
        return CountParameters(mean, self.dispersion, self.zero_inflation).tiled(len(context))

    def shift(self, context: Context) -> Floats:
        """Return what an additive batch effect adds to every count: (n, g)."""
        if self.batch_kind == "additive":
            return self.batch_effect[context.batch]
        return np.zeros((len(context), len(self.genes)))

    def blocks(self, context: Context, *, seed: int) -> Iterator[tuple[slice, sparse.csr_array]]:
        """Draw counts block by block: rows of the cells, and their counts (block, g) int32.

        Each block has its own random stream, so blocks kept in memory and blocks written one by one are the same.
        """
        tables = self._tables(len(context))
        for number, rows in enumerate(block_rows(len(context), len(self.genes))):
            part, rng = context.take(rows), stream(seed, BLOCKS, number)
            drawn = self._draw(part, rng) if tables is None else self._look(part, tables, rng)
            yield rows, self._finished(part, *drawn)

    def _tables(self, n_cells: int) -> CountTables | None:
        """Tabulate the counts of every gene in every kind of cell, unless all cells differ or drawing costs less."""
        if self.library_sd:
            return None
        means = self._means_of_kinds()
        every = (np.broadcast_to(part, means.shape).ravel() for part in (means, self.dispersion, self.zero_inflation))
        return count_tables(*every, most=min(MOST, max(SMALL_TABLE, n_cells * len(self.genes) // 4)))

    def _means_of_kinds(self) -> Floats:
        """(kinds, g): a population, or a population in a batch where batches change means."""
        if self.batch_kind == "additive":
            return self.means
        return (self.means[:, None] * self.batch_effect).reshape(-1, len(self.genes))

    def _look(self, context: Context, tables: CountTables, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
        """Invert the distributions: cells, genes and counts above 0, three arrays (m,)."""
        n, g = len(context), len(self.genes)
        kind = context.population
        if self.batch_kind == "multiplicative":
            kind = kind * len(self.batch_effect) + context.batch
        uniform = rng.random((n, g))
        zero = tables.zero.reshape(-1, g)
        some = uniform >= (zero if len(zero) == 1 else zero[kind])
        at, row, gene = _cells_and_genes(some)
        first = gene if len(zero) == 1 else kind.astype(np.int32)[row] * np.int32(g) + gene
        return row, gene, tables.invert(first, uniform.ravel()[at])

    def _draw(self, context: Context, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
        """Draw zero inflation first, so that only counts that survive it are drawn; returns as `_look`."""
        n, g = len(context), len(self.genes)
        dropped = self.zero_inflation.astype(np.float32)
        _, row, gene = _cells_and_genes(rng.random((n, g), np.float32) >= dropped)
        mean = self.means[context.population[row], gene] * context.library[row]
        if self.batch_kind == "multiplicative":
            mean *= self.batch_effect[context.batch[row], gene]
        counts = negative_binomial(mean, self.dispersion[gene], rng=rng)
        some = counts > 0
        return row[some], gene[some], counts[some]

    def _finished(self, context: Context, row: Ints, gene: Ints, counts: Ints) -> sparse.csr_array:
        """Put counts above 0 into a table (n, g) int32, and add what a batch adds."""
        shape = (len(context), len(self.genes))
        ends = np.zeros(shape[0] + 1, np.int32)
        np.cumsum(np.bincount(row, minlength=shape[0]), out=ends[1:])
        drawn = sparse.csr_array((counts.astype(np.int32), gene.astype(np.int32), ends), shape=shape)
        if self.batch_kind == "multiplicative" or not self.batch_effect.any():
            return drawn
        return sparse.csr_array(drawn + self.shift(context).astype(np.int32))

    def as_dict(self) -> dict[str, object]:
        """Return the plan in the form of JSON; `plan_from_dict` reads it."""
        return {
            "genes": list(self.genes), "means": self.means.tolist(), "dispersion": self.dispersion.tolist(),
            "zero_inflation": self.zero_inflation.tolist(), "batch_effect": self.batch_effect.tolist(),
            "batch_kind": self.batch_kind, "library_sd": self.library_sd,
        }  # fmt: skip


def plan_from_dict(facts: Mapping[str, object]) -> BasePlan:
    """Read what `BasePlan.as_dict` gave. Raises KeyError, TypeError or InputError when it is damaged."""
    arrays = {name: np.array(facts[name], float) for name in ("means", "dispersion", "zero_inflation", "batch_effect")}
    return BasePlan(
        genes=tuple(facts["genes"]), batch_kind=facts["batch_kind"], library_sd=float(facts["library_sd"]), **arrays
    )


def stream(seed: int, *key: int) -> np.random.Generator:
    """Return an independent random stream of a seed (>= 0), the same for the same key."""
    if seed < 0:
        raise InputError(f"Seed must be at least 0, got {seed}.")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _cells_and_genes(some: Ints) -> tuple[Ints, Ints, Ints]:
    """(n, g) booleans of a block -> positions in it, cells and genes where they hold, three arrays (m,) int32."""
    at = np.flatnonzero(some).astype(np.int32)  # 32 bits hold any block, and divide several times faster
    row = at // np.int32(some.shape[1])
    return at, row, at - row * np.int32(some.shape[1])


def _labels(n_cells: int, kinds: int, rng: np.random.Generator) -> Ints:
    """Deal labels 0, 1, ... out evenly, in random order: (n,)."""
    return rng.permutation(np.arange(n_cells) % kinds) if kinds > 1 else np.zeros(n_cells, np.int64)


def block_rows(n_cells: int, n_genes: int) -> Iterator[slice]:
    """Cut cells into blocks of about `ENTRIES` entries."""
    step = max(1, ENTRIES // n_genes)
    return (slice(first, min(first + step, n_cells)) for first in range(0, n_cells, step))
