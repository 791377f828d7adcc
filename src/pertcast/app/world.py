"""Cells to pick from, the virtual cell that says what follows, and the atlas on which both are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertcast.app.query import matching
from pertcast.cell_tasks.runs import CellRun, open_cell_run
from pertcast.cell_tasks.verbs import read_for
from pertcast.cells.atlas import Atlas
from pertcast.cells.log_scale import as_log1p
from pertcast.cells.trajectory import VirtualCell
from pertcast.errors import InputError
from pertcast.io.cell_forms import read_form
from pertcast.types import Cells, Floats

HIGH = 0.95  # of the cells have at most what is called a high value
MODEL = "masked-autoencoder"  # the one that says what follows when a gene is changed


class CellColumns(Mapping[str, NDArray]):
    """What a query may ask of cells: columns of `obs`, then genes on the log1p scale, made when they are asked for."""

    def __init__(self, obs: pd.DataFrame, cells: Cells):
        self.obs = obs
        self._place = {gene: j for j, gene in enumerate(cells.genes)}
        self._x = as_log1p(cells).tocsc()

    def __getitem__(self, name: str) -> NDArray:
        if name in self.obs:
            column = self.obs[name]
            return column.to_numpy() if column.dtype.kind in "biuf" else column.astype(str).to_numpy(object)
        return self._x[:, [self._place[name]]].toarray()[:, 0]

    def __contains__(self, name: object) -> bool:
        return name in self.obs or name in self._place

    def __iter__(self) -> Iterator[str]:
        yield from map(str, self.obs.columns)
        yield from (gene for gene in self._place if gene not in self.obs)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True, slots=True)
class Picked:
    """One cell, and how it was found."""

    row: int
    found: int  # cells that match the query
    remark: str  # "" where the cell is one of them


@dataclass(frozen=True)
class World:
    """A file of cells with a virtual cell that knows their genes."""

    run: CellRun
    model: VirtualCell
    cells: Cells  # genes of the model, in its order
    obs: pd.DataFrame

    @classmethod
    def open(cls, data: Path, run: CellRun) -> World:
        """Read cells as the run's columns say. Raises InputError where they do not fit the run."""
        cells = read_for(data, run.columns, need_treated=False)
        model = run.model()
        try:
            cells = cells.select(model.genes)
        except InputError as error:
            raise InputError(f"'{data}' does not fit the run '{run.folder}': {error} Fit one to these cells.") from None
        return cls(run, model, cells, read_form(data).obs)

    @cached_property
    def columns(self) -> CellColumns:
        return CellColumns(self.obs, self.cells)

    @cached_property
    def atlas(self) -> Atlas:
        return Atlas.of(self.cells)

    def pick(self, query: str, *, seed: int) -> Picked:
        """Take a random cell among those that a query chooses; where it chooses none, say so and take any (S001-13).

        Raises InputError for a query that cannot be read.
        """
        rows = np.flatnonzero(matching(query, self.columns))
        rng = np.random.default_rng(seed)
        if len(rows):
            return Picked(int(rng.choice(rows)), len(rows), "")
        remark = f"No cell of {len(self.cells)} matches the query. A random one of all was taken instead."
        return Picked(int(rng.integers(len(self.cells))), 0, remark)

    def values(self, row: int) -> Floats:
        """Genes of one cell on the log1p scale: (g,)."""
        return as_log1p(self.cells.take(np.array([row]))).toarray()[0]

    def high(self, gene: str) -> float:
        """A high value of a gene that the model has met, on the log1p scale; at least 1."""
        return max(float(np.quantile(self.columns[gene], HIGH)), 1.0)

    def about(self, row: int) -> str:
        """Say what is known of a cell, in a line."""
        told = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in self.obs.iloc[row].items()]  # fmt: skip
        return ", ".join(told)

    def example(self) -> str:
        """A query to begin with: the first context there is."""
        key = self.run.columns.context_key
        return "" if key is None else f'{_quoted(key)} == "{sorted(set(self.cells.context))[0]}"'


def virtual_cells(runs: Path) -> list[CellRun]:
    """Find the runs of a folder, or the run that it is, that can say what follows from a change.

    Raises InputError where there is none.
    """
    folders = [path.parent for path in (*runs.glob("DONE.json"), *sorted(runs.glob("*/DONE.json")))]
    found = [run for run in map(open_cell_run, folders) if run.recipe.model == MODEL]
    if not found:
        fit = f"pertcast cells fit {MODEL} FILE --condition-key COLUMN --control LABEL --out RUNS/NAME"
        raise InputError(f"'{runs}' holds no virtual cell. `{fit}` makes one; name its folder with --runs RUNS.")
    return found


def _quoted(name: str) -> str:
    return f"`{name}`" if " " in name else name
