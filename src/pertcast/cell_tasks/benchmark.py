"""Models of cells held to treated cells they never saw, beside references and a ceiling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from pertcast.cell_tasks.results import Benchmark, collected, write_results
from pertcast.cell_tasks.runs import Columns, digest_data
from pertcast.cell_tasks.units import CellUnit, CellWork, HeldOut, Pair
from pertcast.cell_tasks.verbs import DEFAULT, cell_recipe, read_for
from pertcast.cells.detection import is_detected
from pertcast.cells.log_scale import as_log1p
from pertcast.cells.registry import entries
from pertcast.config import CellRecipe
from pertcast.engine.local import available_jobs, run_units
from pertcast.errors import InputError, several, shorten, unknown
from pertcast.io.cell_forms import read_form
from pertcast.types import Cells, Floats
from pertcast.validation.cell_splits import CellSplit, hold_out_contexts, rotate_pairs, write_splits

LEAST_CELLS = 10  # untreated, and treated, of a context that is held out
CEILING = "half of the truth"
FLOORS, EVERY = "floors", "all"  # what may stand for several models

Folds = Literal["context", "pair"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is held out, and who is asked."""

    models: tuple[str, ...] = ()  # names, NAME:PRESET, `default`, `floors` or `all`; none: default and floors
    holdouts: tuple[str, ...] = ()  # contexts; none: all with enough cells
    conditions: tuple[str, ...] = ()  # none: all with enough cells
    folds: Folds = "context"
    seeds: int = 1  # fits and draws of each model
    total_key: str | None = None  # column of obs with each cell's counts over all genes


def benchmark_cells(data: Path, columns: Columns, asked: Asked, *, out: Path, jobs: int = 1) -> Benchmark:
    """Hold treated cells out, fit every model on all else, and score it on them.

    columns  its `context_key` names the contexts
    asked    with folds `context`, all treated cells of one context after another; with `pair`, every pair of a
             condition and a context once, in rotation
    out      folder: units/ (finished ones are not fitted again), splits.json, benchmark.json, benchmark.csv
    jobs     processes side by side; 0: one per core
    Raises InputError naming all faults at once: names that do not exist, contexts or conditions with too few cells.
    """
    if columns.context_key is None:
        raise InputError("A benchmark holds out contexts. Name their column with --holdout-key, such as cell_type.")
    problems: list[str] = []
    recipes = _recipes(asked.models, problems)
    cells = read_for(data, columns)
    totals = _totals(data, asked.total_key, cells, problems)
    contexts, conditions = _questions(cells, asked, problems)
    if problems:
        raise InputError(several(f"Benchmark of '{data}'", problems))
    held, remarks = _held_out(cells, contexts, conditions, asked.folds)
    out.mkdir(parents=True, exist_ok=True)
    write_splits(out / "splits.json", [one.split for one in held], seed=0)
    about = {"data": digest_data(data), "columns": list(_named(columns)), "total_key": asked.total_key}
    work = CellWork(cells, held, out=out, about=about, totals=totals)
    units = _units(recipes, len(held), asked.seeds)
    run_units(
        [unit for unit in units if not work.is_done(unit)], work, jobs=jobs or available_jobs(),
        describe=lambda unit: f"{unit.label}, {held[unit.number].split.holds_out[:40]}, seed {unit.seed}",
    )  # fmt: skip
    silent = _without_effect(as_log1p(cells, totals), cells, contexts, conditions)
    roles = {label: "floor" if entries()[recipe.model].floor else "model" for label, recipe in recipes.items()}
    scored = [(unit, held[unit.number].pairs, work.read(unit)) for unit in units]
    found = collected(scored, {**roles, CEILING: "ceiling"}, silent=silent, remarks=remarks)
    write_results(out, found)
    return found


def _named(columns: Columns) -> tuple[str | None, ...]:
    return columns.condition_key, columns.control, columns.context_key, columns.batch_key, columns.layer


def _recipes(names: Sequence[str], problems: list[str]) -> dict[str, CellRecipe]:
    """Resolve the models that are asked for: label -> recipe."""
    floors = [name for name, entry in entries().items() if entry.floor]
    wanted: list[str] = []
    groups = {FLOORS: floors, EVERY: [DEFAULT, *(n for n, entry in entries().items() if _learns(entry.model))]}
    for name in names or (DEFAULT, FLOORS):
        wanted += groups.get(name, [name])
    found = {}
    for name in wanted:
        model, _, preset = name.partition(":")
        model = DEFAULT if model == "default" else model
        label = f"{model}:{Path(preset).stem}" if preset else model
        try:
            found[label] = cell_recipe(model, preset=preset or None)
        except InputError as error:
            problems.append(str(error))
    return found


def _learns(model: type) -> bool:
    return getattr(model, "learns_conditions", True)


def _totals(data: Path, key: str | None, cells: Cells, problems: list[str]) -> Floats | None:
    """Read each cell's counts over all genes from a column of obs: (n,)."""
    if key is None:
        return None
    obs = read_form(data).obs
    if key not in obs:
        problems.append(f"{unknown('column of obs', key, map(str, obs.columns))} It was to hold total counts")
        return None
    if cells.unit == "log1p":
        problems.append(f"the values are log1p already, so totals in '{key}' say nothing. Leave --total-key out")
        return None
    try:
        totals = obs[key].to_numpy(float)
    except (TypeError, ValueError):
        problems.append(f"column '{key}' is to hold total counts, but holds text")
        return None
    low = ~(totals >= np.asarray(cells.x.sum(axis=1)).ravel() * (1 - 1e-6)) | ~(totals > 0)
    if low.any():
        first = cells.ids[low][0]
        problems.append(
            f"column '{key}' is missing, 0 or below the given counts in {low.sum()} cells, first in '{first}'"
        )
    return totals


def _questions(cells: Cells, asked: Asked, problems: list[str]) -> tuple[list[str], list[str]]:
    """Choose contexts and conditions to hold out, and note what cannot be."""
    if asked.folds not in ("context", "pair"):
        problems.append(unknown("way to hold out", asked.folds, ("context", "pair")))
    everywhere = sorted(set(cells.context))
    for kind, names, known in (
        ("context", asked.holdouts, everywhere),
        ("condition", asked.conditions, cells.conditions),
    ):
        problems += [unknown(kind, name, known) for name in names if name not in known]
    contexts = [name for name in dict.fromkeys(asked.holdouts or everywhere) if name in everywhere]
    conditions = [name for name in dict.fromkeys(asked.conditions or cells.conditions) if name in cells.conditions]
    if len(everywhere) < 2:
        only = shorten(everywhere)
        problems.append(f"all cells are of one context, {only}; with one held out, another is needed to learn from")
    if problems:
        return contexts, conditions
    counts = _Counts.of(cells)
    fit = {name: [c for c in conditions if counts.enough(c, name)] for name in contexts}
    lacking = [name for name in contexts if not fit[name]]
    if asked.folds == "pair":
        full = [c for c in conditions if all(c in fit[name] for name in contexts)]
        if not full or len(contexts) < 2:
            problems.append(counts.too_few(conditions, contexts, "no condition has them in all contexts"))
        return contexts, full
    if lacking and (asked.holdouts or len(lacking) == len(contexts)):
        problems.append(counts.too_few(conditions, lacking, "these contexts do not"))
    return [name for name in contexts if fit[name]], conditions


@dataclass(frozen=True, slots=True)
class _Counts:
    """How many cells each pair of condition and context has."""

    of_pair: Mapping[Pair, int]
    control: str
    contexts: frozenset[str]

    @classmethod
    def of(cls, cells: Cells) -> _Counts:
        pairs = Counter(zip(cells.condition, cells.context, strict=True))
        return cls(pairs, cells.control, frozenset(cells.context))

    def enough(self, condition: str, context: str) -> bool:
        """Whether a pair can be held out: enough cells to be scored on, and another context to learn it from."""
        here = min(self.of_pair[condition, context], self.of_pair[self.control, context])
        others = self.contexts - {context}
        return here >= LEAST_CELLS and any(
            min(self.of_pair[condition, name], self.of_pair[self.control, name]) for name in others
        )

    def too_few(self, conditions: Sequence[str], contexts: Sequence[str], said: str) -> str:
        """Say what the contexts lack."""
        counts = shorten(
            f"{name} ({self.of_pair[self.control, name]} untreated, at most "
            f"{max((self.of_pair[condition, name] for condition in conditions), default=0)} of a condition)"
            for name in contexts
        )
        need = f"{LEAST_CELLS} untreated cells and as many of a condition that another context measured, too"
        fix = "Name others with --holdout, or give more cells"
        return f"a context that is held out needs {need}; {said}: {counts}. {fix}"


def _held_out(
    cells: Cells, contexts: Sequence[str], conditions: Sequence[str], folds: Folds
) -> tuple[list[HeldOut], list[str]]:
    """Split the cells, and say which pairs are scored; with remarks on those that are not."""
    if folds == "pair":
        splits = rotate_pairs(cells, conditions, contexts)
    else:
        splits = hold_out_contexts(cells, contexts)
    held, left, counts = [], [], _Counts.of(cells)
    for split in splits:
        pairs = _pairs_of(cells, split, conditions)
        scored = [pair for pair in pairs if counts.enough(*pair)]
        left += [f"{condition} in {context}" for condition, context in pairs if (condition, context) not in scored]
        held.append(HeldOut(split, tuple(scored)))
    if not left:
        return held, []
    why = f"fewer than {LEAST_CELLS} treated or untreated cells, or measured nowhere else"
    return held, [f"Not scored, {len(left)} pairs ({why}): {shorten(left)}"]


def _pairs_of(cells: Cells, split: CellSplit, conditions: Sequence[str]) -> list[Pair]:
    found = sorted(set(zip(cells.condition[split.valid], cells.context[split.valid], strict=True)))
    return [pair for pair in found if pair[0] in conditions]


def _units(recipes: Mapping[str, CellRecipe], splits: int, seeds: int) -> list[CellUnit]:
    """List all units, split by split, so that a process prepares each split once.

    Every model has as many seeds: where a fit does not hang on them, the cells that it draws do.
    """
    everyone = [*recipes.items(), (CEILING, None)]
    return [
        CellUnit(label, recipe, number, seed)
        for number in range(splits)
        for label, recipe in everyone
        for seed in range(seeds)
    ]


def _without_effect(y: csr_array, cells: Cells, contexts: Sequence[str], conditions: Sequence[str]) -> list[str]:
    """Name the conditions of which there is no effect to predict in what is held out."""
    silent = []
    for condition in conditions:
        rows = [
            (np.flatnonzero(cells.untreated & here), np.flatnonzero((cells.condition == condition) & here))
            for here in (cells.context == name for name in contexts)
        ]
        known = [pair for pair in rows if min(map(len, pair)) >= LEAST_CELLS]
        if known and not is_detected(y, [c for c, _ in known], [t for _, t in known], seed=0):
            silent.append(condition)
    return silent
