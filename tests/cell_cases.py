"""Simulated cells as models read them."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from pertcast.simulate.cells import SimulatedCells
from pertcast.types import Cells


def as_cells(simulated: SimulatedCells, *, condition: object = "control") -> Cells:
    """Take over simulated counts; contexts are populations, and all cells carry the condition, one or (n,)."""
    n = len(simulated)
    return Cells(
        ids=_names("cell", np.arange(n)),
        genes=simulated.genes,
        x=csr_array(simulated.counts, dtype=np.float32),
        unit="counts",
        condition=np.broadcast_to(np.array(condition, dtype=object), (n,)).copy(),
        context=_names("population", simulated.context.population),
        batch=_names("batch", simulated.context.batch),
        control="control",
    )


def make_cells(seed: int = 0, *, cells: int = 240, genes: int = 12, contexts: int = 3) -> Cells:
    """Draw counts of a few contexts, untreated and under two drugs: `up` doubles the first third of the genes, `down`
    halves them. The last context was never treated with `down`.
    """
    rng = np.random.default_rng(seed)
    context = np.arange(cells) % contexts
    condition = (np.arange(cells) // contexts) % 3
    condition[(context == contexts - 1) & (condition == 2)] = 0
    mean = np.random.default_rng(99).uniform(1, 8, (contexts, genes))[
        context
    ]  # the same whatever the seed of the draws
    factor = np.array([1.0, 2.0, 0.5])[condition]
    mean[:, : -(-genes // 3)] *= factor[:, None]
    x = rng.negative_binomial(2, 2 / (2 + mean))
    labels = np.array(["control", "up", "down"], dtype=object)
    return Cells(
        ids=_names("cell", np.arange(cells)),
        genes=tuple(f"GENE{j:04d}" for j in range(genes)),
        x=csr_array(x, dtype=np.float32),
        unit="counts",
        condition=labels[condition],
        context=_names("type", context),
        batch=_names("plate", np.arange(cells) % 2),
        control="control",
    )


def _names(kind: str, numbers: np.ndarray) -> np.ndarray:
    return np.array([f"{kind}{number}" for number in numbers], dtype=object)
