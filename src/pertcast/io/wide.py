"""Wide tables: a few columns that say what a row is, then one number per gene, read into one float32 matrix."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from pertcast.errors import InputError, shorten
from pertcast.io.narrow import counted, csv_header, not_text, open_checked, reason, row_name, text_frame, typed
from pertcast.schema import Table

_SLICE = 1024  # gene columns decoded at a time, so that the file's own float64 never stands in memory as a whole
_BLOCK = 1 << 26  # bytes of CSV parsed at a time; a row of 18,000 genes is a third of a megabyte
_INDEX_COLUMN = re.compile(r"__index_level_\d+__|Unnamed: \d+|")
_MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]
_DAMAGED = "Copy or download it again."


@dataclass(frozen=True, slots=True)
class Wide:
    """A wide table as it was read, with all its faults."""

    path: Path
    keys: pd.DataFrame  # (n, columns of the schema that the file has)
    genes: tuple[str, ...]  # (g,)  in the order of the file
    values: NDArray[np.float32]  # (n, g)
    problems: list[str]


def column_names(path: Path) -> list[str]:
    """Read the names of the columns of a Parquet or CSV file, and nothing else."""
    return csv_header(path) if path.suffix == ".csv" else _parquet_file(path).schema_arrow.names


def gene_columns(names: list[str], table: Table) -> tuple[tuple[str, ...], list[str]]:
    """Tell the gene columns among all columns of a table: (genes, faults)."""
    known = {column.name for column in table.columns}
    genes = [name for name in names if name not in known]
    problems = []
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        problems.append(f"every column needs its own name, got several times: {shorten(repeated)}")
    index = [name for name in genes if _INDEX_COLUMN.fullmatch(name)]
    if index:
        problems.append(f"column '{index[0]}' is a row number, not a gene; write the table without its index")
    if not genes:
        problems.append(f"there is no gene column; its columns are {shorten(names)}")
    return tuple(genes), problems


def read_wide(path: Path, table: Table) -> Wide:
    """Read a Parquet or CSV file of the given form.

    Faults of the content are listed in `problems`; a file that is no whole table raises InputError.
    """
    is_csv = path.suffix == ".csv"
    names = column_names(path)
    genes, problems = gene_columns(names, table)
    if len(set(names)) < len(names):
        return Wide(path, pd.DataFrame(), genes, np.zeros((0, len(genes)), np.float32), problems)
    try:
        keys, values, faults = _read_csv(path, genes) if is_csv else _read_parquet(path, genes)
    except (pa.ArrowException, OSError) as error:
        kind = "CSV" if is_csv else "Parquet"
        raise InputError(f"'{path}' is not a whole {kind} file: {reason(error)}. {_DAMAGED}") from error
    frame, key_faults = typed(text_frame(keys), table)
    problems += [] if is_csv else not_text(keys, table)
    problems += key_faults + faults
    if not faults:
        problems += not_finite(values, genes, frame, table.key)
    return Wide(path, frame, genes, values, problems)


def not_finite(values: NDArray, genes: tuple[str, ...], frame: pd.DataFrame, key: tuple[str, ...]) -> list[str]:
    """Say how many of the numbers (n, g) are NaN or infinite, and where the first of them stands."""
    if np.isfinite(values).all():
        return []
    problems = []
    for kind, found in (("NaN or missing", np.isnan(values)), ("infinite or beyond 3.4e38", np.isinf(values))):
        if found.any():
            row, gene = np.argwhere(found)[0]
            where = f"gene '{genes[gene]}', {row_name(frame, int(row), key)}"
            problems.append(f"finite numbers expected, got {counted(found.sum(), 'value')} {kind}: first {where}")
    return problems


def wide_table(keys: dict[str, NDArray], genes: tuple[str, ...], values: NDArray[np.floating]) -> pa.Table:
    """Build the table that `read_wide` reads: key columns (n,) first, then a float32 column per gene of (n, g)."""
    columns = np.ascontiguousarray(values.T, dtype=np.float32)  # (g, n)
    arrays = [pa.array(column) for column in (*keys.values(), *columns)]
    return pa.table(arrays, names=[*keys, *genes])


def _parquet_file(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(open_checked(path), memory_map=True)
    except (pa.ArrowException, OSError) as error:
        size = f"{path.stat().st_size:,} bytes"
        raise InputError(f"'{path}' is not a whole Parquet file ({size}): {reason(error)}. {_DAMAGED}") from error


def _read_parquet(path: Path, genes: tuple[str, ...]) -> tuple[pa.Table, NDArray[np.float32], list[str]]:
    file = _parquet_file(path)
    schema = file.schema_arrow
    is_gene = set(genes)
    keys = [name for name in schema.names if name not in is_gene]
    values = np.empty((file.metadata.num_rows, len(genes)), np.float32)  # (n, g)
    wrong = [gene for gene in genes if not _is_number(schema.field(gene).type)]
    if wrong:
        problem = _not_numbers(file.read(columns=wrong), wrong)
        return file.read(columns=keys).select(keys), values, [problem]
    for start in range(0, len(genes), _SLICE):
        part = genes[start : start + _SLICE]
        table = file.read(columns=list(part))
        for offset, gene in enumerate(part):
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported so
                values[:, start + offset] = table.column(gene).to_numpy()
    return file.read(columns=keys).select(keys), values, []


def _read_csv(path: Path, genes: tuple[str, ...]) -> tuple[pa.Table, NDArray[np.float32], list[str]]:
    names = csv_header(path)
    is_gene = set(genes)
    types = {name: pa.float32() if name in is_gene else pa.string() for name in names}
    keys = [name for name in names if name not in is_gene]
    try:
        table = _parse_csv(path, types)
    except pa.ArrowInvalid as error:
        if "conversion error" not in str(error):
            raise
        table = _parse_csv(path, dict.fromkeys(names, pa.string()))
        wrong = [gene for gene in genes if _first_text(table.column(gene)) is not None]
        if not wrong:
            raise
        return table.select(keys), np.empty((len(table), len(genes)), np.float32), [_not_numbers(table, wrong)]
    values = np.empty((len(table), len(genes)), np.float32)  # (n, g)
    for column, gene in enumerate(genes):
        values[:, column] = table.column(gene).to_numpy()
    return table.select(keys), values, []


def _parse_csv(path: Path, types: dict[str, pa.DataType]) -> pa.Table:
    # Words for a missing number are plain words in a column of text: a compound may be called NA.
    convert = arrow_csv.ConvertOptions(column_types=types, null_values=_MISSING, strings_can_be_null=False)
    return arrow_csv.read_csv(path, read_options=arrow_csv.ReadOptions(block_size=_BLOCK), convert_options=convert)


def _not_numbers(table: pa.Table, genes: list[str]) -> str:
    """Say which gene columns do not hold numbers, and the first cell of the first of them that is none."""
    cells = table.column(genes[0])
    row = _first_text(cells)
    got = f"type {cells.type}" if row is None else f"first '{cells[row]}' at row {row}"
    return f"numbers expected in {counted(len(genes), 'gene column')}, got other things: {shorten(genes)}; {got}"


def _first_text(cells: pa.ChunkedArray) -> int | None:
    return next((row for row, cell in enumerate(cells.to_pylist()) if not _parses(cell)), None)


def _parses(cell: object) -> bool:
    try:
        float(str(cell))
    except ValueError:
        return cell is None or cell in _MISSING
    return True


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)
