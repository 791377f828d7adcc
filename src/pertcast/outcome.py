"""What comes of finished runs: a score table on held-out rows, and a blend that is written, validated and scored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pertcast.correction import BAGS
from pertcast.ensemble import Blended, blend_members
from pertcast.errors import InputError, shorten
from pertcast.facts import facts, remarks, write_checked
from pertcast.io.tables import Competition, read_solution
from pertcast.runs import Run, reads_cells
from pertcast.scoring import BLEND, FLOORS, Scope, held_out_table, names_of, solution_table
from pertcast.types import Fold, Predictions, Question, Strings
from pertcast.validation import cross_validate as cv
from pertcast.validation.scores import Paired, Scored, ScoreTable, score_rows

BARE = "blend without cells"


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
    paired: tuple[Paired, ...]  # the blend against the one without members that read cells: held-out rows, solution


def cv_result(competition: Competition, question: Question, folds: list[Fold], runs: list[Run]) -> CVResult:
    """Collect what runs said of the rows that their folds held out, and score it beside floors and ceiling."""
    held_out = cv.collect(runs, question, folds)
    table, scope = held_out_table(competition, question, folds, runs=runs, held_out=held_out)
    return CVResult(competition, question, folds, runs, held_out, table, scope)


def submit(result: CVResult, out: Path, *, name: str, style: str = "kaggle", bags: int = BAGS) -> Submitted:
    """Blend, write, read back and validate, and score where the truth lies beside the data.

    out     a file, or a folder for files named after date, `name`, score and content
    style   `kaggle` (CSV) or `openproblems` (h5ad)
    bags    of trees that learn what the blend leaves over, gene by gene; 0: it is left
    Raises InputError where there is nothing to blend but zeros.
    """
    competition, question = result.competition, result.question
    zeros = names_of(result.runs, ("zeros",))  # no use in a blend
    if len(zeros) == len(result.runs):
        raise InputError(f"There is nothing to blend but zeros: {shorten(zeros)}. Name a run of another model.")
    test = cv.test_predictions(result.runs)
    blended = blend_members(question, result.held_out, test, folds=result.folds, leave_out=zeros, bags=bags)
    bare = _without_cells(result, test, leave_out=zeros, bags=bags)
    scope = replace(result.scope, y_pred=blended.held_out)
    table = result.table.with_scored(_scored(BLEND, blended, scope))
    if bare is not None:
        table = table.with_scored(_scored(BARE, bare, scope))
    blends = {seen: blend.as_dict() for seen, blend in blended.blends.items()}
    how = {"blends": blends, "diversity": blended.diversity.as_dict()}
    told = facts(competition, question, result.runs, blended=how, cv=table.as_dict())
    cv_score = table.line(BLEND).mrrmse
    path = write_checked(competition, blended.test, out, name=name, style=style, cv_score=cv_score, told=told)
    paired = _paired(table, scope.cell_type)
    solution = competition.folder / "solution.parquet"
    score_table = None
    if solution.is_file():
        truth = read_solution(solution, ids=question.test_ids, genes=question.genes)
        floors = names_of(result.runs, FLOORS)
        members = {name: said.values for name, said in test.items() if name not in floors}
        members |= {} if bare is None else {BARE: bare.test}
        score_table = solution_table(competition, question, truth, {BLEND: blended.test, **members})
        paired += _paired(score_table, question.test_cell_type)
    said = remarks(competition, question)
    return Submitted(path, competition.simulated, blended, table, scope, score_table, said, paired)


def _without_cells(
    result: CVResult, test: dict[str, Predictions], *, leave_out: tuple[str, ...], bags: int
) -> Blended | None:
    """Blend once more without the members that read single cells; None where there are none, or no others."""
    readers = tuple(run.recipe.name for run in result.runs if reads_cells(run.recipe))
    leave_out = (*leave_out, *readers)
    if not readers or set(result.held_out.members) <= set(leave_out):
        return None
    return blend_members(result.question, result.held_out, test, folds=result.folds, leave_out=leave_out, bags=bags)


def _scored(name: str, blended: Blended, scope: Scope) -> Scored:
    return score_rows(name, "model", y_true=scope.y_true, y_pred=blended.held_out, note=blended.text())


def _paired(table: ScoreTable, cell_type: Strings) -> tuple[Paired, ...]:
    """What members that read cells change in the blend, where that can be said."""
    if all(scored.name != BARE for scored in table.scored):
        return ()
    return tuple(one for one in table.paired(BARE, cell_type) if one.name == BLEND)
