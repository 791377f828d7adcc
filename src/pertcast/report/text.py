"""A score table as plain text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from pertcast.validation.scores import Line, ScoreTable

HEAD = ("", "MRRMSE", "95 % interval", "Pearson", "v best floor", "interval")


def plain(table: ScoreTable) -> str:
    """Lay a table out for a terminal, its notes and verdicts below."""
    body = [[*HEAD, *table.columns], *(_cells(line, table.columns) for line in table.lines)]
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    rows = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in body]  # fmt: skip
    return "\n".join([table.title, rows[0], "-" * len(rows[0]), *rows[1:], *_remarks(table)])


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
