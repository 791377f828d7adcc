"""A score table as plain text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from pertcast.validation.scores import Line, ScoreTable

MOST_PARTS = 8  # columns of parts that fit a line of a hundred characters
HEAD = ("", "MRRMSE", "95 % interval", "Pearson", "v best floor", "interval")


def plain(table: ScoreTable) -> str:
    """Lay a table out for a terminal: all rows first, then the parts, then notes and verdicts."""
    cells = [_cells(line, table.columns) for line in table.lines]
    first = _aligned([list(HEAD), *(row[: len(HEAD)] for row in cells)])
    blocks = [table.title, *first]
    for start in range(0, len(table.columns), MOST_PARTS):
        parts = slice(start, start + MOST_PARTS)
        rows = [[row[0], *row[len(HEAD) :][parts]] for row in cells]
        blocks += ["", *_aligned([["MRRMSE by part", *table.columns[parts]], *rows])]
    remarks = _remarks(table)
    return "\n".join([*blocks, *(["", *remarks] if remarks else [])])


def _aligned(rows: list[list[str]]) -> list[str]:
    """Pad cells to columns, names to the left, numbers to the right, with a rule below the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def markdown(table: ScoreTable) -> str:
    """Lay a table out for a README."""
    body = [[*HEAD, *table.columns], ["---"] * (len(HEAD) + len(table.columns))]
    body += [_cells(line, table.columns) for line in table.lines]
    rows = [f"| {' | '.join(row)} |" for row in body]
    return "\n".join([table.title, "", *rows, "", *_remarks(table)])


def _remarks(table: ScoreTable) -> list[str]:
    return [*(f"{line.name}: {line.note}" for line in table.lines if line.note), *table.verdicts()]


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
