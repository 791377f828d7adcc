"""Toy cells with a known map of dependencies: a few genes are the sine of another one, half of all entries are lost.

As system 001 drew them, with a seed: standard normal genes, min-max scaled to 0 .. 1, zeros standing for what was lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from pertcast.errors import InputError
from pertcast.types import Cells, Floats

NOISE = 0.1  # standard deviation of what is added to a sine
LOST = 0.5  # share of the entries that are set to 0
CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Toy:
    """Toy cells, and the truth about them."""

    cells: Cells  # (n, g) values 0 .. 1
    whole: Floats  # (n, g) the same before entries were lost
    sources: dict[str, str]  # dependent gene -> the gene whose sine it is
    low: Floats  # (g,) of the values before scaling
    span: Floats  # (g,)

    def expected(self, dependent: str, source_values: Floats) -> Floats:
        """True mean of a dependent gene where its source has these scaled values (k,), in scaled units: (k,)."""
        genes = self.cells.genes
        j, i = genes.index(dependent), genes.index(self.sources[dependent])
        return (np.sin(source_values * self.span[i] + self.low[i]) - self.low[j]) / self.span[j]


def toy_cells(cells: int = 10_000, *, genes: int = 10, dependent: int = 3, seed: int = 0) -> Toy:
    """Draw toy cells: the first genes depend on one of the others each, no two on the same.

    Raises InputError unless there are at least as many independent genes as dependent ones.
    """
    if not 1 <= dependent <= genes - dependent:
        raise InputError(f"{dependent} of {genes} toy genes cannot depend on one of the others each. Use more genes.")
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(cells, genes))
    source = dependent + rng.permutation(genes - dependent)[:dependent]
    z[:, :dependent] = np.sin(z[:, source]) + rng.normal(0, NOISE, (cells, dependent))
    low = z.min(axis=0)
    span = z.max(axis=0) - low
    whole = (z - low) / span
    names = tuple(f"toy-{j}" for j in range(genes))
    same = np.full(cells, "all", dtype=object)
    drawn = Cells(
        ids=np.array([f"cell-{i}" for i in range(cells)], dtype=object), genes=names,
        x=csr_array(np.where(rng.random(z.shape) < LOST, 0, whole), dtype=np.float32), unit="log1p",
        condition=np.full(cells, CONTROL, dtype=object), context=same, batch=same, control=CONTROL,
    )  # fmt: skip
    return Toy(drawn, whole, {names[j]: names[i] for j, i in enumerate(source)}, low, span)
