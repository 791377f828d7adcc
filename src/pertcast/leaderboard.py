"""Score tables kept beside the runs that they compare, and joined again wherever they ask the same question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pertcast.errors import InputError
from pertcast.io.atomic import write_json
from pertcast.runs import Run, fold_digest
from pertcast.types import Fold
from pertcast.validation.scores import KINDS, ScoreTable

FOLDER = "tables"  # in a folder of runs


@dataclass(frozen=True, slots=True)
class Standing:
    """One predictor on a board. Scores are of held-out rows; lower is better."""

    name: str
    kind: str  # ceiling, model or floor
    run: str  # its folder; "" for an oracle, which no run made
    mrrmse: float
    low: float  # 95 % interval over compounds
    high: float
    pearson: float | None
    v_floor: float  # MRRMSE minus the best floor's


@dataclass(frozen=True, slots=True)
class Board:
    """All that was scored on the same held-out rows, best first within ceiling, models and floors."""

    title: str
    best_floor: str
    simulated: bool
    standings: tuple[Standing, ...]


def keep_table(
    folder: Path, table: ScoreTable, *, runs: Sequence[Run], folds: Sequence[Fold], data_digest: str, simulated: bool
) -> Path:
    """Keep a score table of cross-validation in a folder of runs; the same runs again replace it."""
    question = hashlib.sha256("".join([data_digest, *map(fold_digest, folds)]).encode()).hexdigest()[:8]
    names = {run.recipe.name: run.folder.name for run in runs}
    key = hashlib.sha256("".join(sorted(names.values())).encode()).hexdigest()[:8]
    path = folder / FOLDER / f"{question}-{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"question": question, "simulated": simulated, "runs": names, **table.as_dict()})
    return path


def read_boards(folder: Path) -> list[Board]:
    """Join the tables kept in a folder of runs, one board for each question, by title.

    Of a run that stands in several tables the newest counts. Raises InputError where a table cannot be read.
    """
    paths = sorted((folder / FOLDER).glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    by_question: dict[str, list[dict[str, Any]]] = {}
    for path in paths:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            by_question.setdefault(told["question"], []).append(told)
        except (OSError, ValueError, KeyError) as error:
            fix = "Delete it; the `pertcast cv` command that made it makes it again."
            raise InputError(f"Score table '{path}' cannot be read: {error}. {fix}") from None
    return sorted((_board(tables) for tables in by_question.values()), key=lambda board: board.title)


def _board(tables: list[dict[str, Any]]) -> Board:
    found: dict[tuple[str, str], Standing] = {}
    for told in tables:
        for line in told["lines"]:
            run = told["runs"].get(line["name"], "")
            shown = ("kind", "mrrmse", "low", "high", "pearson", "v_floor")
            found[line["name"], run] = Standing(line["name"], run=run, **{key: line[key] for key in shown})
    order = sorted(found.values(), key=lambda one: (KINDS.index(one.kind), one.mrrmse, one.run))
    last = tables[-1]
    return Board(last["title"], last["best_floor"], last["simulated"], tuple(order))
