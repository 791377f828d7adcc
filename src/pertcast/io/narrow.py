"""Narrow tables: every column is read as text, checked against the schema with all faults at once, then converted."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa

from pertcast.errors import InputError, shorten
from pertcast.schema import Column, Table

_PATTERNS = {
    "integer": (r"[+-]?\d{1,18}", "a whole number"),
    "number": (r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", "a number"),
    "boolean": (r"(?i:true|false)", "True or False"),
}


def csv_header(path: Path) -> list[str]:
    """Read the column names of a CSV file. Raises InputError when there are none or the file is no text."""
    try:
        with open_checked(path).open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"'{path}' is not a CSV file: {reason(error)}. Write it as UTF-8 text with commas.") from error
    if not any(header):
        raise InputError(f"'{path}' has no header. Its first line must name the columns, separated by commas.")
    return header


def open_checked(path: Path) -> Path:
    """Return the path of a file that is there, is not empty and may be read; say plainly what is wrong otherwise."""
    try:
        with open(path, "rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}. Check the path and its permissions.") from error
    if empty:
        raise InputError(f"'{path}' is empty (0 bytes). Copy or download it again.")
    return path


def read_text(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a CSV file, or some of its columns, as text; an empty cell becomes None."""
    from pyarrow import csv as arrow_csv

    names = csv_header(path)
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise InputError(f"'{path}' names columns twice: {shorten(repeated)}. Every column needs its own name.")
    convert = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(columns or names, pa.string()),
        include_columns=columns,
        strings_can_be_null=True,
        null_values=[""],
    )
    try:
        return text_frame(arrow_csv.read_csv(path, convert_options=convert))
    except pa.ArrowInvalid as error:
        raise InputError(f"'{path}' is not a whole CSV file: {reason(error)}. Copy or write it again.") from error


def text_frame(table: pa.Table | pd.DataFrame) -> pd.DataFrame:
    """Turn columns of any type into text, (n, columns) of str or None."""
    if isinstance(table, pd.DataFrame):
        table = pa.Table.from_pandas(table, preserve_index=False)
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        text = column.cast(pa.string()).to_pandas().astype(object)
        columns[name] = text.where(text != "", None)
    return pd.DataFrame(columns)


def not_text(table: pa.Table, schema: Table) -> list[str]:
    """Name the columns of a typed file that should hold text and do not. Other types are checked value by value."""
    problems = []
    for column in schema.columns:
        if column.dtype != "text" or column.name not in table.column_names:
            continue
        got = table.schema.field(column.name).type
        got = got.value_type if pa.types.is_dictionary(got) else got
        if not (pa.types.is_string(got) or pa.types.is_large_string(got) or pa.types.is_null(got)):
            problems.append(f"column '{column.name}' has type {got}, text expected ({column.meaning})")
    return problems


def counted(number: int, thing: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def reason(error: Exception) -> str:
    """First line of what a library says, without its full stop."""
    return str(error).strip().partition("\n")[0].rstrip(". ")


def typed(frame: pd.DataFrame, table: Table) -> tuple[pd.DataFrame, list[str]]:
    """Check a frame of text against the schema and convert its columns.

    Returns the frame, columns with faults left as text, and all faults as messages. Columns that the schema does not
    know stay text.
    """
    problems = _problems(frame, table)
    if not len(frame):
        problems.append("it has no rows")
    converted = {
        column.name: _convert(frame[column.name], column) for column in table.columns if column.name in frame.columns
    }
    return frame.assign(**converted), problems


def missing_column(column: Column, names: list[str]) -> str:
    """Say that a column is missing, and which one was probably meant."""
    alike = [name for name in names if name.strip().casefold() == column.name.casefold()]
    hint = f"; rename column '{alike[0]}'" if alike else f"; got {shorten(names)}"
    return f"column '{column.name}' is missing ({column.meaning}){hint}"


def row_name(frame: pd.DataFrame, row: int, names: tuple[str, ...]) -> str:
    """Name a row by its number and by its key: `row 17, 'B cells' / 'ABT737'`."""
    values = " / ".join(f"'{frame[name].iloc[row]}'" for name in names if name in frame.columns)
    return f"row {row}, {values}" if values else f"row {row}"


def _problems(frame: pd.DataFrame, table: Table) -> list[str]:
    present = [column for column in table.columns if column.name in frame.columns]
    problems = [
        missing_column(column, list(frame.columns))
        for column in table.columns
        if column.required and column not in present
    ]
    failures = _failures(frame, present)
    for column in present:
        failed = failures[failures["column"] == column.name]
        problems += _column_problems(frame, table, column, failed)
    keys = dict.fromkeys([table.key, *((column.name,) for column in table.columns if column.unique)])
    for key in keys:
        problems += _repeats(frame, key, table)
    return problems


def _failures(frame: pd.DataFrame, columns: list[Column]) -> pd.DataFrame:
    """Let pandera find every value that is missing or not of its type: columns `column`, `check`, `index`."""
    from pandera.errors import SchemaErrors
    from pandera.pandas import Check, DataFrameSchema
    from pandera.pandas import Column as Rule

    rules = {}
    for column in columns:
        checks = []
        if column.dtype in _PATTERNS:
            checks.append(Check.str_matches(f"^{_PATTERNS[column.dtype][0]}$"))
        if column.values:
            checks.append(Check.isin(column.values))
        rules[column.name] = Rule(None, checks, nullable=not column.required)
    try:
        DataFrameSchema(rules).validate(frame, lazy=True)
    except SchemaErrors as error:
        return error.failure_cases
    return pd.DataFrame({"column": [], "check": [], "index": []})


def _column_problems(frame: pd.DataFrame, table: Table, column: Column, failed: pd.DataFrame) -> list[str]:
    problems = []
    missing = failed["check"] == "not_nullable"
    for rows, is_missing in ((failed["index"][missing], True), (failed["index"][~missing], False)):
        if not len(rows):
            continue
        first = row_name(frame, int(min(rows)), table.key)
        if is_missing:
            problems.append(f"'{column.name}' is missing in {counted(len(rows), 'row')} ({column.meaning}): {first}")
            continue
        wanted = f"one of {', '.join(column.values)}" if column.values else _PATTERNS[column.dtype][1]
        got = frame[column.name].iloc[int(min(rows))]
        where = f"not in {counted(len(rows), 'row')}: first '{got}' at {first}"
        problems.append(f"column '{column.name}' must be {wanted}, which it is {where}")
    return problems


def _repeats(frame: pd.DataFrame, key: tuple[str, ...], table: Table) -> list[str]:
    if not key or not set(key) <= set(frame.columns):
        return []
    known = frame[list(key)].notna().all(axis=1)
    repeats = frame.index[frame.duplicated(list(key)) & known]
    if not len(repeats):
        return []
    names = tuple(dict.fromkeys([*key, *table.key]))
    first = row_name(frame, int(repeats[0]), names)
    return [f"the key {_quoted(key)} is repeated by {counted(len(repeats), 'row')}: first {first}"]


def _quoted(names: tuple[str, ...]) -> str:
    quoted = ", ".join(f"'{name}'" for name in names)
    return quoted if len(names) == 1 else f"({quoted})"


def _convert(values: pd.Series, column: Column) -> pd.Series:
    """Convert text to the column's type; a column with a missing or wrong value stays as it is."""
    if column.dtype == "text" or values.isna().any() or not values.str.fullmatch(_PATTERNS[column.dtype][0]).all():
        return values
    if column.dtype == "boolean":
        return values.str.lower() == "true"
    return values.astype("int64" if column.dtype == "integer" else "float64")
