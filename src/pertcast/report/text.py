"""A score table as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import fill

from pertcast.validation.scores import Line, ScoreTable

WIDTH = 100  # characters of a line on a terminal
HEAD = ("", "MRRMSE", "95 % interval", "Pearson", "v best floor", "95 % interval")
PARTS = "MRRMSE by part"


def plain(table: ScoreTable) -> str:
    """Lay a table out for a terminal: all rows first, then the parts, then notes and verdicts."""
    cells = [_cells(line, table.columns) for line in table.lines]
    first = aligned([list(HEAD), *(row[: len(HEAD)] for row in cells)])
    blocks = [table.title, *first]
    names = max(len(PARTS), *(len(row[0]) for row in cells))
    for parts in _parts_that_fit(table.columns, WIDTH - names):
        rows = [[row[0], *row[len(HEAD) :][parts]] for row in cells]
        blocks += ["", *aligned([[PARTS, *table.columns[parts]], *rows])]
    remarks = [fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for text in _remarks(table)]
    return "\n".join([*blocks, "", *remarks])


def _parts_that_fit(columns: Sequence[str], width: int) -> Iterator[slice]:
    """Cut the columns into blocks of at most `width` characters, at least one column in each."""
    start, used = 0, 0
    for i, column in enumerate(columns):
        wanted = max(len(column), 5) + 2  # a score has five characters, a gap two
        if i > start and used + wanted > width:
            yield slice(start, i)
            start, used = i, 0
        used += wanted
    if columns:
        yield slice(start, len(columns))


def aligned(rows: list[list[str]]) -> list[str]:
    """Pad cells to columns, names to the left, numbers to the right, with a rule below the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def piped(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in markdown: the first is the head, names to the left, numbers to the right."""
    head, *rest = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rest))


def _remarks(table: ScoreTable) -> list[str]:
    best = f"Lower is better. 'v best floor' is the difference to the floor '{table.best_floor}', below 0 where better."
    return [best, *(f"{line.name}: {line.note}" for line in table.lines if line.note), *table.verdicts()]


def _cells(line: Line, columns: Sequence[str]) -> list[str]:
    name = line.name if line.kind == "model" else f"{line.name} ({line.kind})"
    return [
        name,
        f"{line.mrrmse:.4f}",
        f"{line.low:.3f} - {line.high:.3f}",
        "" if line.pearson is None else f"{line.pearson:.3f}",
        f"{line.v_floor:+.4f}",
        f"{line.v_floor_low:+.3f} to {line.v_floor_high:+.3f}",
        *(f"{line.parts[column]:.3f}" for column in columns),
    ]
