"""What a story tells: tables with floors and ceilings, panels to draw, and remarks. Numbers only, no drawing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from pertcast.types import Cells, Floats, Ints

CONTROL = "control"

Role = Literal["floor", "published", "model", "ceiling"]


@dataclass(frozen=True, slots=True)
class Line:
    """Who was scored, what it is, and its scores."""

    name: str
    role: Role
    scores: Mapping[str, float | None]  # by column; None: does not apply


@dataclass(frozen=True, slots=True)
class Table:
    """Scores side by side."""

    title: str
    note: str  # what the columns are, and which way is better
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    def score(self, name: str, column: str) -> float:
        """One number of the table."""
        (line,) = [line for line in self.lines if line.name == name]
        return float(line.scores[column])


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one contestant."""

    name: str
    x: Floats  # (k,)
    y: Floats  # (k,)


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a figure."""

    title: str
    x: str
    y: str
    kind: Literal["lines", "points", "identity", "steps"]  # identity: points beside the diagonal
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """A story as it was told."""

    name: str
    title: str
    data: str  # what was simulated
    tables: tuple[Table, ...]
    panels: tuple[Panel, ...]
    remarks: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Return tables and remarks as one object for machines; pictures are not part of it."""
        tables = [asdict(table) for table in self.tables]
        told = {"story": self.name, "title": self.title, "data": self.data, "simulated": True}
        return {**told, "tables": tables, "remarks": list(self.remarks)}


def as_cells(
    counts: Ints | csr_array, genes: tuple[str, ...], *, condition: str = CONTROL, context: str | Floats = "all",
    first: int = 0,
) -> Cells:  # fmt: skip
    """Dress simulated counts (n, g) as cells of one condition.

    context     one label, or (n,) numbers of populations
    first       number of the first cell, so that cells of several calls have different ids
    """
    n = counts.shape[0]
    labels = np.full(n, context, object) if isinstance(context, str) else _labels("population", context)
    return Cells(
        ids=_labels("cell", np.arange(first, first + n)),
        genes=genes,
        x=csr_array(counts, dtype=np.float32),
        unit="counts",
        condition=np.full(n, condition, object),
        context=labels,
        batch=np.full(n, "one", object),
        control=CONTROL,
    )


def _labels(word: str, numbers: Ints) -> np.ndarray:
    return np.array([f"{word}-{number}" for number in numbers], dtype=object)
