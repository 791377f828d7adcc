"""What transfers: every model on compounds, on scaffolds and on cell types that its training rows never showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pertcast.config import Recipe, load_preset, load_recipe
from pertcast.engine.local import available_jobs
from pertcast.errors import InputError, shorten
from pertcast.io.cache import Cache
from pertcast.io.tables import Competition, question_of, read_competition
from pertcast.leaderboard import keep_table
from pertcast.models.registry import build
from pertcast.preflight import check_device, check_recipes, make_folder, placed
from pertcast.runs import Run
from pertcast.scoring import FLOORS, held_out_table
from pertcast.types import Fold, Question
from pertcast.validation.cross_validate import collect, cross_validate
from pertcast.validation.folds import group_labels, make_folds
from pertcast.validation.scores import ScoreTable, make_table

SPLITS = ("compound", "scaffold", "celltype")
NEIGHBOURS = "nearest"  # recipe that stands beside the floors: whatever learns should do better
PRESET = "transfer"


@dataclass(frozen=True, slots=True)
class Split:
    """All that was scored on one kind of held-out label, and what could not be."""

    table: ScoreTable  # intervals by drawing the held-out labels again: compounds, scaffolds or cell types
    folds: int
    refused: Mapping[str, str]  # recipe -> why it cannot answer


@dataclass(frozen=True, slots=True)
class Transfer:
    """One set of models on several kinds of held-out labels."""

    simulated: bool
    splits: Mapping[str, Split]  # fold strategy -> what came of it

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON and for the tables that are made from it."""
        splits = [
            {"name": name, **split.table.as_dict(), "folds": split.folds, "refused": dict(split.refused)}
            for name, split in self.splits.items()
        ]
        return {"simulated": self.simulated, "splits": splits}


def transfer(
    recipes: Sequence[str],
    data: Path,
    *,
    out: Path,
    cache: Path,
    splits: Sequence[str] = SPLITS,
    seeds: int = 1,
    changes: Sequence[str] = (),
    device: str = "auto",
    jobs: int = 1,
    layer: str | None = None,
) -> Transfer:
    """Cross-validate recipes, by name or TOML file, on several kinds of folds, beside floors and nearest neighbours.

    recipes   none: those of the preset `transfer`
    splits    fold strategies that hold out whole labels
    seeds     of each fold, for models that draw at random; nothing is fitted on all rows
    changes, device, jobs, layer   as in `workflow.cross_validate`, whose finished units are used again
    A recipe that cannot be fitted on these data, or asked for such rows, is a line of the table with its reason.
    Raises InputError for anything else wrong with data, recipes or splits, before any model is fitted.
    """
    check_device(device)
    named = list(recipes) or [*load_preset(PRESET).recipes]
    loaded = [placed(load_recipe(name, changes), device) for name in named]
    check_recipes(loaded)
    for recipe in loaded:
        build(recipe.model, recipe.settings)  # a setting that does not exist is a fault, not a model that cannot answer
    loaded += [load_recipe(name) for name in (NEIGHBOURS, *FLOORS) if name not in {one.name for one in loaded}]
    competition = read_competition(data, layer=layer)
    question = question_of(competition)
    folds = {name: make_folds(name, question, groups=group_labels(name, question)) for name in dict.fromkeys(splits)}
    ungrouped = [name for name, made in folds.items() if made[0].groups is None]
    if ungrouped:
        raise InputError(f"Folds that hold out no whole label: {shorten(ungrouped)}. Use {', '.join(SPLITS)}.")
    make_folder(out)
    done = {}
    for name, made in folds.items():
        runs, refused = _fitted(
            question, loaded, made,
            strategy=name, seeds=seeds, out=out, data_digest=competition.digest, cache=Cache(cache),
            jobs=jobs or available_jobs(),
        )  # fmt: skip
        done[name] = _split(name, competition, question, made, runs=runs, refused=refused, out=out)
    return Transfer(competition.simulated, done)


def _fitted(
    question: Question, recipes: Sequence[Recipe], folds: list[Fold], **how: Any
) -> tuple[list[Run], dict[str, str]]:
    """Fit all at once; where one cannot answer, either half apart, so that it keeps no other from it."""
    try:
        return cross_validate(question, recipes, folds, refit_seeds=0, **how), {}
    except InputError as error:
        if len(recipes) == 1:
            return [], {recipes[0].name: str(error)}
    middle = len(recipes) // 2
    first, second = (_fitted(question, part, folds, **how) for part in (recipes[:middle], recipes[middle:]))
    return first[0] + second[0], first[1] | second[1]


def _split(
    name: str,
    competition: Competition,
    question: Question,
    folds: list[Fold],
    *,
    runs: list[Run],
    refused: dict[str, str],
    out: Path,
) -> Split:
    held_out = collect(runs, question, folds)
    table, _ = held_out_table(competition, question, folds, runs=runs, held_out=held_out)
    table = replace(table, title=f"{table.title}, whole {name}s held out")
    keep_table(out, table, runs=runs, folds=folds, data_digest=competition.digest, simulated=competition.simulated)
    labels = folds[0].groups[held_out.rows]
    return Split(make_table(table.title, table.scored, compound=labels, parts=table.parts), len(folds), refused)
