"""Read a submission CSV and say everything that is wrong with it.

One parser reads good and bad files alike (the standard library's, about 2 s at 255 x 18,211), so that what is accepted
and what is reported can never differ, and checking a file imports nothing heavy.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pertcast.errors import InputError, several, shorten
from pertcast.schema import ID
from pertcast.types import Floats, Predictions

MOST = 3  # places named of each kind of fault; the rest is counted
MISSING = {"", "nan", "na", "n/a", "#n/a", "null", "none", "<na>"}  # what writers put where there is no number
NOT_CSV = {b"PAR1": "a Parquet file", b"PK\x03\x04": "a zip archive", b"\x1f\x8b": "a gzip file", b"\x89HDF": "HDF5"}
EMPTY, INFINITE, TEXT = "empty or NaN", "infinite", "not a number"
CELL_FIXES = {
    EMPTY: "Every gene of every row needs a number",
    INFINITE: "Look for a division by zero or an overflow in the model",
    TEXT: "Write plain numbers such as -1.25 or 3e-05, without separators of thousands or units",
}


class Checked(Predictions):
    """A submission that passed every check: rows and genes in the template's order, values in float64."""

    __slots__ = ()


@dataclass
class _Table:
    """A CSV as it stands, and what could not be read as a number."""

    header: list[str]
    id_column: int | None  # None: there is none
    genes: list[str]  # header without the id column
    ids: list[str] = field(default_factory=list)  # (k,)  text of the id
    lines: list[int] = field(default_factory=list)  # (k,)  line of the file, from 1
    rows: list[Floats] = field(default_factory=list)  # k x (g,)
    lengths: list[str] = field(default_factory=list)  # rows with more or fewer cells than the header
    bad_cells: Counter[str] = field(default_factory=Counter)  # how many of each kind
    places: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in CELL_FIXES})  # the first few


def validate_submission(path: Path, *, ids: Sequence[int], genes: Sequence[str]) -> Checked:
    """Check a submission against its template and return it in the template's order.

    ids    (n,)  that must each have one row; the order of the rows is free, values are returned in the order of `ids`
    genes  (g,)  that must follow the column `id`, in this order
    Raises InputError that names every fault with its position and its fix.
    """
    return _checked(Path(path), _read(Path(path)), [int(i) for i in ids], [str(gene) for gene in genes])


def read_submission(path: Path) -> Checked:
    """Read a CSV of predictions that is its own template: all is checked but which ids and genes it holds."""
    table = _read(Path(path))
    ids = dict.fromkeys(int(text) for text in table.ids if _is_whole(text))
    return _checked(Path(path), table, list(ids), list(dict.fromkeys(table.genes)))


def _checked(path: Path, table: _Table, ids: list[int], genes: list[str]) -> Checked:
    faults = [*_header_faults(table, genes), *_row_faults(table, ids), *_cell_faults(table)]
    if faults:
        raise InputError(several(f"Submission '{path}'", faults))
    row_of = {int(text): i for i, text in enumerate(table.ids)}
    return Checked(np.array(ids), tuple(genes), np.stack([table.rows[row_of[i]] for i in ids]))


# Reading


def _read(path: Path) -> _Table:
    """Read the file once; what makes it no CSV at all is raised at once."""
    try:
        _refuse_other_files(path)
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            table = _table(next((row for row in rows if row), []), path)
            for cells in rows:
                if cells:  # empty lines are left out, as pandas does
                    _take_row(table, cells, rows.line_num)
    except UnicodeDecodeError as error:
        raise InputError(f"Submission '{path}' is not text in UTF-8 ({error}). Save it as a plain CSV.") from error
    except csv.Error as error:
        raise InputError(f"Submission '{path}' is not a CSV: line {rows.line_num}: {error}. Write it again.") from error
    except OSError as error:
        raise InputError(f"Submission '{path}' cannot be read: {error.strerror}. Check the file.") from error
    return table


def _refuse_other_files(path: Path) -> None:
    if not path.exists():
        raise InputError(f"Submission '{path}' does not exist. Check the path.")
    if path.is_dir():
        raise InputError(f"Submission '{path}' is a folder, expected a CSV file. Name the file in it.")
    with open(path, "rb") as file:
        start = file.read(4096)
    if not start.strip():
        raise InputError(f"Submission '{path}' is empty, expected a CSV. Write it again.")
    kind = next((kind for magic, kind in NOT_CSV.items() if start.startswith(magic)), None)
    if kind or b"\0" in start:
        raise InputError(f"Submission '{path}' is not a CSV but {kind or 'a binary file'}. Write it as a plain CSV.")


def _table(header: list[str], path: Path) -> _Table:
    """Start a table; a first line after which nothing else could be judged is refused."""
    for separator, said in ((";", "';'"), ("\t", "a tab")):
        if len(header) == 1 and separator in header[0]:
            raise InputError(f"Submission '{path}' separates columns by {said}, expected ','. Save it with commas.")
    if all(_is_number(name) for name in header):
        raise InputError(f"Submission '{path}' has no header: line 1 holds numbers. Put 'id' and the genes in line 1.")
    lower = [name.strip().lower() for name in header]
    at = header.index(ID) if ID in header else lower.index(ID) if ID in lower else None
    return _Table(header, at, [name for j, name in enumerate(header) if j != at])


def _take_row(table: _Table, cells: list[str], line: int) -> None:
    count = len(cells)
    has_id = table.id_column is not None and table.id_column < count
    text = cells.pop(table.id_column).strip() if has_id else ""
    numbers = _numbers(cells)  # (g,)
    table.ids.append(text)
    table.lines.append(line)
    table.rows.append(numbers)
    if count != len(table.header):
        table.lengths.append(f"line {line} (id {text}) has {count} cells")
    for j in np.flatnonzero(~np.isfinite(numbers)):
        kind = _kind(cells[j])
        table.bad_cells[kind] += 1
        if len(table.places[kind]) < MOST:
            name = f"'{table.genes[j]}'" if j < len(table.genes) else f"number {j + 2}"
            table.places[kind].append(f"id {text}, column {name} (line {line}): '{cells[j]}'")


def _numbers(cells: list[str]) -> Floats:
    """Read cells as numbers; what is none becomes NaN."""
    if not cells:
        return np.empty(0)
    try:
        if "_" not in "".join(cells):  # Python would read 1_000 as a number
            return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        pass
    return np.array([float(cell) if _is_number(cell) else math.nan for cell in cells])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) < 19  # fits 64 bits


def _kind(cell: str) -> str:
    """Tell why a cell gave no finite number."""
    if cell.strip().lower().lstrip("+-") in MISSING:
        return EMPTY
    return INFINITE if _is_number(cell) else TEXT


# Judging


def _header_faults(table: _Table, genes: list[str]) -> list[str]:
    faults = _id_column_faults(table)
    counts = Counter(table.genes)
    known, given = set(genes), set(counts)
    position = {name: j for j, name in reversed(list(enumerate(table.header, start=1)))}
    twice = [f"'{name}' {n} times, first in column {position[name]}" for name, n in counts.items() if n > 1]
    if twice:
        faults.append(f"repeated columns ({len(twice)}): {_some(twice)}. Keep one of each")
    missing = [f"'{gene}'" for gene in genes if gene not in given]
    if missing or not genes:
        faults.append(f"genes without a column ({len(missing)}): {shorten(missing)}. Add a column for each")
    extra = [f"'{name}' in column {position[name]}" for name in counts if name not in known]
    if extra:
        faults.append(f"columns that are no genes of the template ({len(extra)}): {_some(extra)}. Remove them")
    have = list(dict.fromkeys(name for name in table.genes if name in known))
    expect = [gene for gene in genes if gene in given]
    if have != expect:
        got, wanted = next((a, b) for a, b in zip(have, expect, strict=True) if a != b)
        where = f"column {position[got]} is '{got}' where '{wanted}' belongs"
        faults.append(f"the genes are in another order: {where}. Reorder the columns by name, values with them")
    return faults


def _id_column_faults(table: _Table) -> list[str]:
    at = table.id_column
    if at is None:
        return [f"there is no column 'id': column 1 is '{table.header[0]}'. Put the ids in a first column named 'id'"]
    name, faults = table.header[at], []
    if name != ID:
        faults.append(f"column {at + 1} is named '{name}', expected 'id'. Rename it, in lower case and without spaces")
    if at:
        faults.append(f"'{name}' is column {at + 1}, expected column 1. Move it to the front, and write no row index")
    return faults


def _row_faults(table: _Table, ids: list[int]) -> list[str]:
    if not table.ids:
        return [f"it has a header but no rows, expected {len(ids) or 'one per id'}. Write it again"]
    faults = []
    if table.lengths:
        expected = f"the header has {len(table.header)}. Write one cell per column"
        faults.append(f"rows of another length ({len(table.lengths)}): {_some(table.lengths)}; {expected}")
    if table.id_column is None:
        return faults
    lines: dict[int, list[int]] = {}
    for text, line in zip(table.ids, table.lines, strict=True):
        if _is_whole(text):
            lines.setdefault(int(text), []).append(line)
    wrong = [f"'{t}' on line {line}" for t, line in zip(table.ids, table.lines, strict=True) if not _is_whole(t)]
    known = set(ids)
    twice = [f"{i} on lines {shorten(where)}" for i, where in lines.items() if len(where) > 1]
    strange = [f"{i} on line {where[0]}" for i, where in lines.items() if i not in known]
    missing = [i for i in ids if i not in lines]
    for found, said, fix in (
        (wrong, "ids that are no whole numbers", "Write them as 0, 1, 2"),
        (twice, "repeated ids", "Keep one row of each"),
        (strange, "unknown ids", "Remove their rows"),
        (missing, "missing ids", "Add a row for each"),
    ):
        if found:
            faults.append(f"{said} ({len(found)}): {_some(found)}. {fix}")
    return faults


def _cell_faults(table: _Table) -> list[str]:
    return [
        f"cells that are {kind} ({table.bad_cells[kind]}): {_some(places, table.bad_cells[kind])}. {CELL_FIXES[kind]}"
        for kind, places in table.places.items()
        if places
    ]


def _some(places: list, count: int | None = None) -> str:
    """Name the first few and count the rest; the places themselves hold commas."""
    more = (count or len(places)) - MOST
    return "; ".join(str(place) for place in places[:MOST]) + (f"; and {more} more" if more > 0 else "")
