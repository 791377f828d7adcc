"""What comes of finished runs: a score table on held-out rows, and a blend that is written, validated and scored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pertcast.ensemble import Blended, blend_members
from pertcast.errors import InputError, shorten
from pertcast.facts import facts, remarks, write_checked
from pertcast.io.tables import Competition, read_solution
from pertcast.runs import Run
from pertcast.scoring import BLEND, FLOORS, Scope, held_out_table, names_of, solution_table
from pertcast.types import Fold, Question
from pertcast.validation import cross_validate as cv
from pertcast.validation.scores import ScoreTable, score_rows


@dataclass(frozen=True, slots=True)
class CVResult:
    """Cross-validated models with their score table."""

    competition: Competition
    question: Question
    folds: list[Fold]
    runs: list[Run]
    held_out: cv.OutOfFold
    table: ScoreTable
    scope: Scope


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submission on disk, how it was blended, and what is known of its score."""

    path: Path
    simulated: bool
    blended: Blended
    cv_table: ScoreTable
    scope: Scope
    score_table: ScoreTable | None  # on the solution, where the folder has one
    remarks: list[str]


def cv_result(competition: Competition, question: Question, folds: list[Fold], runs: list[Run]) -> CVResult:
    """Collect what runs said of the rows that their folds held out, and score it beside floors and ceiling."""
    held_out = cv.collect(runs, question, folds)
    table, scope = held_out_table(competition, question, folds, runs=runs, held_out=held_out)
    return CVResult(competition, question, folds, runs, held_out, table, scope)


def submit(result: CVResult, out: Path, *, name: str, style: str = "kaggle") -> Submitted:
    """Blend, write, read back and validate, and score where the truth lies beside the data.

    out     a file, or a folder for files named after date, `name`, score and content
    style   `kaggle` (CSV) or `openproblems` (h5ad)
    Raises InputError where there is nothing to blend but zeros.
    """
    competition, question = result.competition, result.question
    zeros = names_of(result.runs, ("zeros",))  # no use in a blend
    if len(zeros) == len(result.runs):
        raise InputError(f"There is nothing to blend but zeros: {shorten(zeros)}. Name a run of another model.")
    test = cv.test_predictions(result.runs)
    blended = blend_members(question, result.held_out, test, folds=result.folds, leave_out=zeros)
    scope = replace(result.scope, y_pred=blended.held_out)
    line = score_rows(BLEND, "model", y_true=scope.y_true, y_pred=scope.y_pred, note=blended.text())
    table = result.table.with_scored(line)
    blends = {seen: blend.as_dict() for seen, blend in blended.blends.items()}
    how = {"blends": blends, "diversity": blended.diversity.as_dict()}
    told = facts(competition, question, result.runs, blended=how, cv=table.as_dict())
    cv_score = table.line(BLEND).mrrmse
    path = write_checked(competition, blended.test, out, name=name, style=style, cv_score=cv_score, told=told)
    solution = competition.folder / "solution.parquet"
    score_table = None
    if solution.is_file():
        truth = read_solution(solution, ids=question.test_ids, genes=question.genes)
        floors = names_of(result.runs, FLOORS)
        members = {name: said.values for name, said in test.items() if name not in floors}
        score_table = solution_table(competition, question, truth, {BLEND: blended.test, **members})
    return Submitted(path, competition.simulated, blended, table, scope, score_table, remarks(competition, question))
