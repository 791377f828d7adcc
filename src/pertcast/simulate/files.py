"""Simulated cells as h5ad, written block by block so that memory holds one block, with their truth inside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from pertcast.io.atomic import atomic_path
from pertcast.io.cell_stream import CellStream
from pertcast.simulate.cells import SimulatedCells
from pertcast.simulate.mechanisms import StructuralModel
from pertcast.simulate.populations import Context, block_rows
from pertcast.types import Floats

KEY = "pertcast"  # in `uns`: a JSON string
VERSION = 1  # of what is simulated; raise it with any change of the numbers
CONTEXT = ("population", "batch", "library", "time")  # columns of `obs` that the oracle needs


@dataclass(frozen=True, slots=True)
class About:
    """What a simulated file says of itself, besides its model."""

    kind: str  # base, mechanism, timecourse or composition
    seed: int
    facts: Mapping[str, object] = field(default_factory=dict)  # more, as JSON can hold it


def stream_cells(
    path: Path, model: StructuralModel, n_cells: int, *, about: About, times: Floats | None = None
) -> dict[str, object]:
    """Draw cells and write them as they come; the same bytes as `write_cells` of the same cells drawn in memory.

    times   (n,) of each cell, or None where nothing depends on time
    Returns cells, genes, share of zeros, and the mean negative log likelihood of the truth.
    Raises InputError when the file cannot be written.
    """
    context = model.base.context(n_cells, seed=about.seed)
    context = context if times is None else context.at(times)
    drawn = model.blocks(context, seed=about.seed)
    blocks = (SimulatedCells(counts, context.take(rows), model) for rows, counts in drawn)
    return _write(path, blocks, obs_of(context, model), about)


def write_cells(
    path: Path, cells: SimulatedCells, *, about: About, obs: pd.DataFrame | None = None
) -> dict[str, object]:
    """Write cells that are in memory: `X` is CSR int32, the truth a JSON string in `uns`.

    obs     (n, k) more columns for the table of cells
    Returns and raises as `stream_cells`.
    """
    # cut as they would be drawn, so that a file has the same bytes whether or not its cells were ever in memory
    blocks = (
        replace(part, counts=sparse.csr_array(part.counts, dtype=np.int32))
        for part in (cells.take(rows) for rows in block_rows(len(cells), len(cells.model.base.genes)))
    )
    table = obs_of(cells.context, cells.model)
    if cells.condition is not None:
        names = [condition.name for condition in cells.conditions]
        table["condition"] = pd.Categorical.from_codes(cells.condition, names)
    for name in () if obs is None else obs:
        table[name] = obs[name].to_numpy()
    return _write(path, blocks, table, about)


def _write(path: Path, blocks: Iterable[SimulatedCells], obs: pd.DataFrame, about: About) -> dict[str, object]:
    total, entries, stored = 0.0, 0, 0
    with atomic_path(Path(path)) as temporary, CellStream(temporary) as stream:
        for block in blocks:
            stream.add(block.counts)
            stored += block.counts.nnz
            likelihood, scored = block.log_likelihood_sum()
            total, entries = total + likelihood, entries + scored
        note = json.dumps(_in_full(about, block), sort_keys=True, allow_nan=False)
        stream.finish(obs, block.genes, {KEY: note})
    n, g = len(obs), len(block.genes)
    return {"cells": n, "genes": g, "zero_share": 1 - stored / (n * g), "nll_truth": -total / entries}


def _in_full(about: About, cells: SimulatedCells) -> dict[str, object]:
    return {
        "simulated": True, "version": VERSION, "kind": about.kind, "seed": about.seed, "facts": dict(about.facts),
        "model": cells.model.as_dict(), "conditions": {one.name: dict(one.set) for one in cells.conditions},
    }  # fmt: skip


def obs_of(context: Context, model: StructuralModel) -> pd.DataFrame:
    """Return what is known of the cells as a table: population and batch as labels P0, B0, ..., library size, time."""
    labels = (("population", "P", model.base.means), ("batch", "B", model.base.batch_effect))
    named = {
        name: pd.Categorical.from_codes(getattr(context, name), [f"{letter}{i}" for i in range(len(rows))])
        for name, letter, rows in labels
    }
    numbers = {"library": context.library, "time": context.time}
    index = pd.Index(np.char.add("cell-", np.arange(len(context)).astype(str)).astype(object))
    return pd.DataFrame({**named, **numbers}, index=index)
