"""Remake what the app shows before anyone names a file: simulated cells with a virtual cell, a simulated competition.

`python -m pertcast.app.bundle`. Everything follows from the seeds below; the numbers of the models follow from the
code as well. Cells: regulators, and genes that each follow from one of them, up or down; their names say which.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pertcast import workflow
from pertcast.app.places import BUNDLED, CELLS, RUNS
from pertcast.cell_tasks import verbs
from pertcast.cell_tasks.runs import Columns
from pertcast.io.atomic import atomic_folder
from pertcast.leaderboard import FOLDER
from pertcast.runs import REFIT
from pertcast.simulate.base import BaseSettings, base_plan
from pertcast.simulate.cells import SimulatedCells, draw_cells
from pertcast.simulate.demo import write_demo
from pertcast.simulate.equations import Linear
from pertcast.simulate.files import About, write_cells
from pertcast.simulate.mechanisms import MechanisticGene, StructuralModel

SEED = 0
N_FITTED, N_CELLS = 6000, 1200  # cells that the model is fitted to, and those of them that are kept
REGULATORS, OTHERS = 10, 40  # independent genes
UP, DOWN = 9, 6  # genes that follow from each regulator
NOISE = 0.4  # dispersion of these
SETTINGS = BaseSettings(
    mean_range=(10.0, 40.0), dispersion_range=(0.2, 0.5), populations=3, changed_share=0.3, log_fold_change=0.8,
    batches=2, batch_kind="multiplicative", batch_shift=0.05, clip=True,
)  # fmt: skip
VIRTUAL_CELL = ("hiding.zeros=true", "hidden=[128,24]", "dropout=0.15", "training.epochs=50")
STRUCTURE = 'features.blocks=["cell_type","compound","morgan"]', 'settings.structure=["morgan"]'
RECIPES = {"kernel-ridge-chemistry": (*STRUCTURE, "settings.components=64"), "ridge-chemistry": ()}  # small on disk
SHOWN = "kernel-ridge-chemistry"  # the one that predicts; the other stands on the leaderboard


def remake(folder: Path = BUNDLED) -> None:
    """Simulate, fit and write everything anew, or leave the folder as it was."""
    with atomic_folder(folder, replace=True) as draft:
        bundle_cells(draft)
        bundle_competition(draft)


def regulatory_model(seed: int = SEED) -> StructuralModel:
    """Plant genes that follow from regulators: `reg-3-up-1` rises with `reg-3`, `reg-3-down-1` falls."""
    plan = base_plan(REGULATORS + OTHERS, 0.05, seed=seed, settings=SETTINGS)
    names = (*(f"reg-{i}" for i in range(REGULATORS)), *(f"free-{i}" for i in range(OTHERS)))
    rng, genes = np.random.default_rng(seed), []
    for i in range(REGULATORS):
        for k in range(UP):
            rising = Linear((float(rng.uniform(0.6, 1.4)),), intercept=5.0)
            genes.append(MechanisticGene(f"reg-{i}-up-{k}", (f"reg-{i}",), rising, dispersion=NOISE))
        for k in range(DOWN):
            falling = Linear((float(rng.uniform(-1.0, -0.5)),), intercept=50.0, floor=1.0)
            genes.append(MechanisticGene(f"reg-{i}-down-{k}", (f"reg-{i}",), falling, dispersion=NOISE))
    return StructuralModel(replace(plan, genes=names), tuple(genes))


def bundle_cells(folder: Path) -> None:
    """Write simulated cells, and a run of the virtual cell that was fitted to them and more of their kind."""
    cells = draw_cells(regulatory_model(), N_FITTED, seed=SEED, as_sparse=True)
    with tempfile.TemporaryDirectory() as name:
        all_of_them, run = Path(name) / CELLS, Path(name) / "virtual-cell"
        _write(all_of_them, cells)
        columns = Columns("condition", "control", "population", "batch")
        verbs.fit_cells("masked-autoencoder", all_of_them, columns, out=run, changes=VIRTUAL_CELL, seed=SEED)
        shutil.copytree(run, folder / RUNS / run.name)
    _write(folder / CELLS, cells.take(slice(0, N_CELLS)))


def _write(path: Path, cells: SimulatedCells) -> None:
    obs = pd.DataFrame({"condition": pd.Categorical(["control"] * len(cells))})
    write_cells(path, cells, about=About("mechanism", SEED), obs=obs)


def bundle_competition(folder: Path) -> None:
    """Write the refit of a recipe on the simulated competition, and the score tables of all."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_demo(place / "demo", size="small", seed=SEED)
        for recipe, changes in RECIPES.items():
            done = workflow.cross_validate(
                [recipe], place / "demo", out=place / RUNS, folds="compound", changes=changes, cache=place / "cache"
            )
            if recipe == SHOWN:
                run = next(run for run in done.runs if run.recipe.name == recipe)
        kept = Path(run.recipe.model) / REFIT
        shutil.copytree(run.folder / kept, folder / RUNS / run.folder.name / kept)
        shutil.copytree(place / RUNS / FOLDER, folder / RUNS / FOLDER)


if __name__ == "__main__":
    remake()
