"""The score table: every model beside floors and ceiling, by cell type and by fold, with intervals over compounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from pertcast.errors import InputError
from pertcast.metrics.bootstrap import interval
from pertcast.metrics.rowwise import per_row_mrrmse, per_row_pearson
from pertcast.types import Floats, Strings

KINDS = ("ceiling", "model", "floor")


@dataclass(frozen=True, slots=True)
class Scored:
    """Errors of one predictor on some rows."""

    name: str
    kind: str  # ceiling, model or floor
    rmse: Floats  # (n,)  of each row
    pearson: Floats | None = None  # (n,)  None where predictions are not at hand
    note: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table."""

    name: str
    kind: str
    mrrmse: float
    low: float  # 95 % interval over compounds
    high: float
    pearson: float | None
    v_floor: float  # MRRMSE minus the best floor's
    v_floor_low: float  # 95 % interval of the paired difference
    v_floor_high: float
    parts: dict[str, float]  # MRRMSE by column: cell types, folds, Public/Private
    note: str


@dataclass(frozen=True, slots=True)
class Paired:
    """One predictor's errors minus another's, row by row; below 0 the former is better."""

    name: str
    against: str
    difference: float  # of the MRRMSE
    over_compounds: tuple[float, float]  # 95 % interval, whole compounds drawn again
    over_cell_types: tuple[float, float]  # 95 % interval, whole cell types drawn again

    def text(self) -> str:
        intervals = (
            f"{low:+.4f} to {high:+.4f} over {unit}"
            for (low, high), unit in ((self.over_compounds, "compounds"), (self.over_cell_types, "cell types"))
        )
        return f"{self.name} minus {self.against}: {self.difference:+.4f} (95 % interval {', '.join(intervals)})"


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """All scores of one set of rows."""

    title: str
    best_floor: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    scored: tuple[Scored, ...]  # what the lines were made from, row by row
    compound: Strings  # (n,)
    parts: Mapping[str, np.ndarray]  # column -> (n,) bool

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        lines = [asdict(line) for line in self.lines]
        return {"title": self.title, "best_floor": self.best_floor, "lines": lines, "verdicts": self.verdicts()}

    def with_scored(self, scored: Scored) -> ScoreTable:
        """Add one more predictor of the same rows."""
        return make_table(self.title, [*self.scored, scored], compound=self.compound, parts=self.parts)

    def line(self, name: str) -> Line:
        return next(line for line in self.lines if line.name == name)

    def paired(self, against: str, cell_type: Strings) -> list[Paired]:
        """Compare every other model with one predictor on the same rows, best first.

        cell_type  (n,)  of the rows
        """
        base = next(scored for scored in self.scored if scored.name == against)
        found = []
        for scored in self.scored:
            if scored.kind == "model" and scored is not base:
                d = scored.rmse - base.rmse  # (n,)
                intervals = interval(d, self.compound), interval(d, cell_type)
                found.append(Paired(scored.name, against, float(d.mean()), *intervals))
        return sorted(found, key=lambda one: one.difference)

    def verdicts(self) -> list[str]:
        """Say of every model below its floor that it is."""
        return [
            f"{line.name} is worse than the floor '{self.best_floor}' by {line.v_floor:.4f} "
            f"(interval {line.v_floor_low:+.4f} to {line.v_floor_high:+.4f})."
            for line in self.lines
            if line.kind == "model" and line.v_floor > 0
        ]


def score_rows(name: str, kind: str, *, y_true: Floats, y_pred: Floats, note: str = "") -> Scored:
    """Score predictions (n, g) row by row."""
    pearson = per_row_pearson(y_true=y_true, y_pred=y_pred)
    return Scored(name, kind, per_row_mrrmse(y_true=y_true, y_pred=y_pred), pearson, note)


def make_table(
    title: str, scored: Sequence[Scored], *, compound: Strings, parts: Mapping[str, np.ndarray]
) -> ScoreTable:
    """Put the scores beside each other, best first within ceiling, models and floors.

    compound  (n,)             the unit of the bootstrap
    parts     name -> (n,)     bool: rows of each further column
    Raises InputError if there is no floor among the scores.
    """
    floors = [s for s in scored if s.kind == "floor"]
    if not floors:
        raise InputError("A score table needs at least one floor beside the models, got none.")
    best = min(floors, key=lambda s: s.rmse.mean())
    parts = {name: rows for name, rows in parts.items() if rows.any()}
    lines = [_line(s, best, compound, parts) for s in scored]
    lines.sort(key=lambda line: (KINDS.index(line.kind), line.mrrmse))
    return ScoreTable(title, best.name, tuple(parts), tuple(lines), tuple(scored), compound, parts)


def _line(scored: Scored, best: Scored, compound: Strings, parts: Mapping[str, np.ndarray]) -> Line:
    low, high = interval(scored.rmse, compound)
    difference = scored.rmse - best.rmse
    d_low, d_high = interval(difference, compound)
    pearson = None if scored.pearson is None else float(scored.pearson.mean())
    by_part = {name: float(scored.rmse[rows].mean()) for name, rows in parts.items()}
    mean = float(scored.rmse.mean())
    v_floor = float(difference.mean())
    return Line(scored.name, scored.kind, mean, low, high, pearson, v_floor, d_low, d_high, by_part, scored.note)
