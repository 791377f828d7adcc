"""Which rows are scored beside which floors and which ceiling: held-out training rows, and the rows of a solution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pertcast.io.submission_csv import validate_submission
from pertcast.io.tables import Competition, Solution, question_of, read_predictions, read_solution
from pertcast.runs import Run
from pertcast.types import Floats, Fold, Question, Strings
from pertcast.validation.cross_validate import OutOfFold, fit_on_all
from pertcast.validation.scores import Scored, ScoreTable, make_table, score_rows

FLOORS = ("zeros", "gene-mean", "cell-type-mean", "compound-mean", "additive")
BLEND = "blend"
ORACLE = "oracle"


@dataclass(frozen=True, slots=True)
class Scope:
    """Rows that were scored, as a report draws them."""

    compound: Strings  # (n,)
    cell_type: Strings  # (n,)
    y_true: Floats  # (n, g)
    y_pred: Floats  # (n, g)  by the best model, or the submission


def held_out_table(
    competition: Competition, question: Question, folds: list[Fold], *, runs: Sequence[Run], held_out: OutOfFold
) -> tuple[ScoreTable, Scope]:
    """Score models on the rows that were held out, beside floors and, on simulated data, the oracle."""
    y, cell_type, compound = (x[held_out.rows] for x in (question.y, question.cell_type, question.compound))
    floors = names_of(runs, FLOORS)
    scored = [
        score_rows(name, "floor" if name in floors else "model", y_true=y, y_pred=values)
        for name, values in held_out.members.items()
    ]
    if not any(s.kind == "floor" for s in scored):  # runs blended without theirs
        scored.append(score_rows("zeros", "floor", y_true=y, y_pred=np.zeros_like(y)))
    oracle = _oracle(competition, "oracle_train.parquet", np.arange(len(question)))
    if oracle is not None:
        scored.append(score_rows(ORACLE, "ceiling", y_true=y, y_pred=oracle[held_out.rows]))
    parts = {c: cell_type == c for c in question.target_types}
    parts |= {fold.name: held_out.fold == k for k, fold in enumerate(folds)}
    title = f"MRRMSE of {len(y)} held-out training rows in {len(folds)} folds, {_kind(competition)}"
    table = make_table(title, scored, compound=compound, parts=parts)
    best = next(line.name for line in table.lines if line.name in held_out.members)
    scope = Scope(compound, cell_type, y, held_out.members[best])
    return table, scope


def solution_table(
    competition: Competition, question: Question, truth: Solution, predictions: dict[str, Floats]
) -> ScoreTable:
    """Score predictions of the test rows beside floors fitted on all training rows, and the oracle."""
    scored = [score_rows(name, "model", y_true=truth.y, y_pred=values) for name, values in predictions.items()]
    scored += [
        score_rows(name, "floor", y_true=truth.y, y_pred=values)
        for name, values in fit_on_all(question, FLOORS).items()
    ]
    oracle = _oracle(competition, "oracle.parquet", question.test_ids)
    if oracle is not None:
        scored.append(score_rows(ORACLE, "ceiling", y_true=truth.y, y_pred=oracle))
    parts = _usage_parts(truth) | {c: question.test_cell_type == c for c in question.target_types}
    title = f"MRRMSE of the {len(truth.y)} rows of the solution, {_kind(competition)}"
    return make_table(title, scored, compound=question.test_compound, parts=parts)


def score_submission(competition: Competition, solution: Path, path: Path) -> tuple[ScoreTable, Scope]:
    """Score the submission in `path` beside what floors and oracle reach on the same rows.

    Raises InputError, naming all faults at once, for a solution or a submission that does not fit the competition.
    """
    truth = read_solution(solution, ids=competition.test["id"].to_numpy(), genes=competition.genes)
    given = validate_submission(path, ids=truth.ids, genes=competition.submission_genes)
    column = {gene: i for i, gene in enumerate(given.genes)}
    y_pred = given.values[:, [column[gene] for gene in competition.genes]].astype(np.float32)
    question = question_of(competition)
    scope = Scope(question.test_compound, question.test_cell_type, truth.y, y_pred)
    return solution_table(competition, question, truth, {path.name: y_pred}), scope


def errors_table(
    competition: Competition, question: Question, folds: Sequence[Fold], errors: Mapping[str, Floats]
) -> ScoreTable:
    """Put errors of the rows that some folds hold out, one by one, beside each other and the oracle's.

    errors   name -> (n,)   RMSE of each row, fold after fold; names of floors are known
    """
    rows = np.concatenate([fold.valid for fold in folds])
    scored = [Scored(name, "floor" if name in FLOORS else "model", rmse) for name, rmse in errors.items()]
    oracle = _oracle(competition, "oracle_train.parquet", np.arange(len(question)))
    if oracle is not None:
        scored.append(score_rows(ORACLE, "ceiling", y_true=question.y[rows], y_pred=oracle[rows]))
    number = np.concatenate([np.full(len(fold.valid), k) for k, fold in enumerate(folds)])
    parts = {fold.name: number == k for k, fold in enumerate(folds)}
    title = f"MRRMSE of {len(rows)} held-out training rows in {len(folds)} folds, {_kind(competition)}"
    return make_table(title, scored, compound=question.compound[rows], parts=parts)


def bare_table(truth: Solution, y_pred: Floats, name: str) -> ScoreTable:
    """Score where nothing is known of the rows but the truth: zeros is the only floor."""
    scored: list[Scored] = [
        score_rows(name, "model", y_true=truth.y, y_pred=y_pred),
        score_rows("zeros", "floor", y_true=truth.y, y_pred=np.zeros_like(truth.y)),
    ]
    title = f"MRRMSE of the {len(truth.y)} rows of the solution (compounds not at hand: interval over rows)"
    return make_table(title, scored, compound=truth.ids.astype(object), parts=_usage_parts(truth))


def _usage_parts(truth: Solution) -> dict[str, np.ndarray]:
    return {usage: truth.usage == usage for usage in ("Public", "Private")}


def _oracle(competition: Competition, name: str, ids: np.ndarray) -> Floats | None:
    """Read the oracle's predictions, which only simulated competitions have."""
    path = competition.folder / name
    return read_predictions(path, ids=ids, genes=competition.genes) if path.is_file() else None


def names_of(runs: Sequence[Run], models: Sequence[str]) -> tuple[str, ...]:
    return tuple(run.recipe.name for run in runs if run.recipe.model in models)


def _kind(competition: Competition) -> str:
    return "SIMULATED data" if competition.simulated else "measured data"
