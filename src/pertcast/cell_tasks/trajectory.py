"""Trajectories from file to file: what command line and notebooks call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pertcast.cell_tasks.runs import open_cell_run
from pertcast.cell_tasks.verbs import read_for
from pertcast.cells.atlas import Atlas
from pertcast.cells.trajectory import Change, Trajectory, roll_out
from pertcast.errors import InputError, several, unknown
from pertcast.types import Cells, Ints


@dataclass(frozen=True, slots=True)
class Rolled:
    """A trajectory, and the atlas of the cells that it started among."""

    trajectory: Trajectory
    atlas: Atlas
    run: str  # digest

    def facts(self, k: int = 20) -> dict[str, object]:
        """One object for machines: what was changed, and the genes that moved most."""
        changes = [
            {"gene": one.gene, "target": one.target, "mode": one.mode} for one in self.trajectory.changes
        ]  # fmt: skip
        return {
            "run": self.run, "cells": len(self.trajectory.ids), "genes": len(self.trajectory.genes),
            "states": len(self.trajectory.steps), "changes": changes,
            "top": self.trajectory.top(k).to_dict(orient="records"),
        }  # fmt: skip


def cell_trajectory(
    run: Path,
    data: Path,
    changes: Sequence[Change],
    *,
    cell: str | None = None,
    context: str | None = None,
    steps: int = 20,
    fraction: float | None = None,
    imputed: bool = False,
    atlas: Literal["pca", "umap"] = "pca",
    progress: Callable[[int, int], None] | None = None,
) -> Rolled:
    """Change genes of one cell, or of all untreated cells of a context, with the virtual cell of a run.

    data    has the columns that the run was fitted with
    cell    id of one cell, whatever was done to it
    imputed  start from cells whose genes at 0 stand where the model expects them
    Raises InputError for a run of a model that is no virtual cell, an unknown cell, context or gene, and bad targets,
    all faults of the question at once.
    """
    opened = open_cell_run(run)
    model = opened.model()
    if not hasattr(model, "expected"):
        known = "Fit `masked-autoencoder` for one."
        raise InputError(f"Run '{run}' holds a '{opened.recipe.model}', which tells no gene from the others. {known}")
    cells = read_for(data, opened.columns)
    rows = chosen_cells(cells, cell=cell, context=context)
    rolled = roll_out(
        model, cells.take(rows), changes, steps=steps, fraction=fraction, imputed=imputed, progress=progress
    )  # fmt: skip
    return Rolled(rolled, Atlas.of(cells.select(model.genes), method=atlas), opened.digest)


def chosen_cells(cells: Cells, *, cell: str | None, context: str | None) -> Ints:
    """Row of the cell, or of all untreated cells of the context: (n,).

    Raises InputError unless exactly one of them is named, and known.
    """
    problems = []
    if (cell is None) == (context is None):
        problems.append("name either one cell or a context")
    if cell is not None and cell not in set(cells.ids):
        problems.append(unknown("cell", cell, cells.ids))
    untreated = set(cells.context[cells.untreated])
    if context is not None and context not in untreated:
        problems.append(f"{unknown('context', context, untreated)} They have untreated cells")
    if problems:
        raise InputError(several("Cells of the trajectory", problems))
    rows = cells.ids == cell if cell is not None else cells.untreated & (cells.context == context)
    return np.flatnonzero(rows)
