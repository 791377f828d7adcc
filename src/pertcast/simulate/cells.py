"""Simulated cells and all that is known of them: what they were drawn from, what was done to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from pertcast.errors import InputError
from pertcast.simulate.exact import Oracle
from pertcast.simulate.mechanisms import StructuralModel
from pertcast.simulate.names import columns
from pertcast.simulate.populations import Context
from pertcast.types import Floats, Ints

ORACLE_ENTRIES = 1 << 20  # cells x genes whose likelihood is taken at once


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that is done to cells: genes and the counts that they are set to; none in a control."""

    name: str
    set: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SimulatedCells:
    """Simulated counts and all that is known of them."""

    counts: Ints | sparse.csr_array  # (n, g)
    context: Context  # population, batch, library size and time of each cell
    model: StructuralModel  # what they were drawn from: independent genes, and mechanistic ones if there are any
    conditions: tuple[Condition, ...] = ()  # (c,) what was done, if anything
    condition: Ints | None = None  # (n,) which of them, for every cell
    genes: tuple[str, ...] = field(init=False)  # (g,)

    def __post_init__(self) -> None:
        if (self.condition is None) != (not self.conditions):
            raise InputError("Simulated cells: give conditions together with the condition of every cell.")
        object.__setattr__(self, "genes", self.model.genes)

    def __len__(self) -> int:
        return self.counts.shape[0]

    def take(self, rows: Ints | slice) -> SimulatedCells:
        """Return some cells, in the given order."""
        condition = None if self.condition is None else self.condition[rows]
        return replace(self, counts=self.counts[rows], context=self.context.take(rows), condition=condition)

    @property
    def dense(self) -> Ints:
        """Return the counts as a plain array (n, g)."""
        return self.counts.toarray() if sparse.issparse(self.counts) else self.counts

    @property
    def zero_share(self) -> float:
        """Share of zeros over all cells and genes."""
        some = self.counts.count_nonzero() if sparse.issparse(self.counts) else np.count_nonzero(self.counts)
        return float(1 - some / np.prod(self.counts.shape))

    def oracle(self) -> Oracle:
        """Return the exact distributions that the counts were drawn from, genes that were set included: (n, g)."""
        free = self.model.oracle(self.dense, self.context)
        return free if self.condition is None else replace(free, fixed=self.set_values()[self.condition])

    def nll(self, genes: tuple[str, ...] | None = None) -> float:
        """Mean negative log likelihood of the counts at the truth, in nats; taken in blocks of cells.

        genes   whose counts are scored; default: all. Entries that a condition set do not count
        Raises InputError for a gene that is not there.
        """
        total, entries = self.log_likelihood_sum(genes)
        return -total / entries

    def log_likelihood_sum(self, genes: tuple[str, ...] | None = None) -> tuple[float, int]:
        """Return the summed log likelihood at the truth and how many entries it has. Raises as `nll`."""
        wanted = self.genes if genes is None else tuple(genes)
        at = columns(self.genes, wanted)
        step = max(1, ORACLE_ENTRIES // len(self.genes))
        total, entries = 0.0, 0
        for first in range(0, len(self), step):
            part = self.take(slice(first, first + step))
            oracle = part.oracle().only(*wanted)
            free = np.isnan(oracle.fixed)
            total += float(oracle.log_likelihood(part.dense[:, at])[free].sum())
            entries += int(free.sum())
        return total, entries

    def set_values(self) -> Floats:
        """Return what each condition sets each gene to, NaN where it leaves it free: (c, g)."""
        values = np.full((len(self.conditions), len(self.genes)), np.nan)
        for row, condition in zip(values, self.conditions, strict=True):
            row[columns(self.genes, list(condition.set))] = list(condition.set.values())
        return values


def draw_cells(
    model: StructuralModel, n_cells: int, *, seed: int, times: Floats | None = None, as_sparse: bool = False
) -> SimulatedCells:
    """Draw cells of any structural model, in memory.

    times   (n,) of each cell, or None where nothing depends on time
    Raises InputError for less than one cell, or a mechanism whose mean leaves its range.
    """
    context = model.base.context(n_cells, seed=seed)
    context = context if times is None else context.at(times)
    if as_sparse:
        blocks = [block for _, block in model.blocks(context, seed=seed)]
        return SimulatedCells(sparse.vstack(blocks, format="csr"), context, model)
    dense = np.empty((n_cells, len(model.genes)), np.int32)
    for rows, block in model.blocks(context, seed=seed):
        dense[rows] = block.toarray()
    return SimulatedCells(dense, context, model)
