"""Pseudobulk from long single-cell counts, streamed: memory does not grow with the number of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from pertcast.cell_schema import COUNT, COUNTS_EXCLUDED, COUNTS_LONG, COUNTS_OBS, OBS_ID
from pertcast.errors import InputError, several
from pertcast.io.narrow import csv_header, missing_column, open_checked, read_text, reason, typed
from pertcast.schema import GENE, Table

_ROWS = 1 << 20  # rows of the long table in memory at a time
_BYTES = 1 << 20  # of each column of the file read at a time


@dataclass(frozen=True, slots=True)
class LongFiles:
    """The competition's cells: counts, the table of the cells beside them, and excluded pairs where there are any."""

    counts: Path
    obs: Path
    excluded: Path | None


def long_files(path: Path) -> LongFiles | None:
    """Find the files of long counts, given a Parquet file or a folder that holds `adata_train.parquet`.

    None for anything else. What lies beside has the competition's names.
    """
    path = Path(path)
    counts = path / COUNTS_LONG.file if path.is_dir() else path
    if counts.suffix != ".parquet" or not counts.is_file():
        return None
    excluded = counts.with_name(COUNTS_EXCLUDED.file)
    return LongFiles(counts, counts.with_name(COUNTS_OBS.file), excluded if excluded.exists() else None)


def pseudobulk_long(
    counts: Path,
    obs_meta: Path,
    *,
    excluded: Path | None = None,
    by: Sequence[str] = ("plate_name", "well", "cell_type"),
    tables: tuple[Table, Table] = (COUNTS_LONG, COUNTS_OBS),
) -> tuple[pd.DataFrame, NDArray[np.int64], tuple[str, ...]]:
    """Sum the counts of all cells of a group, gene by gene.

    counts      Parquet, `obs_id, gene, count`, one row per cell and gene with a count above zero
    tables      what `counts` and `obs_meta` are; the second column of the former's key tells what was counted
    obs_meta    CSV, one row per cell; `by` names columns of it (a well is not unique across plates)
    excluded    CSV of pairs `obs_id, gene` whose counts are left out; their cells still count as cells
    returns     groups in sorted order (k, columns of `by`, every column constant within groups, `cells`),
                summed counts (k, g), and the g genes in sorted order
    Raises InputError when a column is missing or of a wrong type, or a cell of `counts` is not in `obs_meta`.
    """
    table, gene_column = tables[0], tables[0].key[1]
    cells = _read_cells(Path(obs_meta), tuple(by), tables[1])
    groups, group_of_cell = _group(cells, list(by))
    cell_codes = pd.Index(cells[OBS_ID])
    genes = _genes(Path(counts), table)
    gene_codes = pd.Index(genes)
    left_out = None if excluded is None else _Excluded(Path(excluded), cell_codes, gene_codes)

    sums = np.zeros(len(groups) * len(genes), np.int64)  # (k * g,)
    for batch in _batches(Path(counts), [OBS_ID, gene_column, COUNT], table):
        cell = _codes(batch.column(OBS_ID), cell_codes)  # (rows,)
        if (cell < 0).any():
            stranger = f"the cell '{batch.column(OBS_ID)[int(np.argmax(cell < 0))]}'"
            raise InputError(f"'{counts}' holds {stranger}, which '{obs_meta}' lacks. Use files of one data set.")
        gene = _codes(batch.column(gene_column), gene_codes)  # (rows,)
        number = _numbers(batch.column(COUNT), Path(counts))
        if left_out is not None:
            number[left_out.contains(cell, gene)] = 0
        np.add.at(sums, group_of_cell[cell] * len(genes) + gene, number)
    return groups, sums.reshape(len(groups), len(genes)), genes


class _Excluded:
    """Pairs of cell and gene that are left out, looked up by binary search among sorted pair numbers."""

    def __init__(self, path: Path, cells: pd.Index, genes: pd.Index):
        names = csv_header(path)
        problems = [missing_column(c, names) for c in COUNTS_EXCLUDED.columns if c.name not in names]
        if problems:
            raise InputError(several(f"Table '{COUNTS_EXCLUDED.name}' ({path})", problems))
        kind = pa.dictionary(pa.int32(), pa.string())
        convert = arrow_csv.ConvertOptions(
            include_columns=[OBS_ID, GENE], column_types={OBS_ID: kind, GENE: kind}, strings_can_be_null=False
        )
        pairs = [np.zeros(0, np.int64)]
        for batch in arrow_csv.open_csv(path, convert_options=convert):
            cell, gene = _codes(batch.column(OBS_ID), cells), _codes(batch.column(GENE), genes)
            known = (cell >= 0) & (gene >= 0)  # a pair that has no counts excludes nothing
            pairs.append(cell[known] * len(genes) + gene[known])
        self.genes = len(genes)
        self.pairs = np.unique(np.concatenate(pairs))  # (p,)
        self.touched = np.zeros(len(cells), bool)  # (cells,)  most cells lose nothing and need no search
        self.touched[self.pairs // self.genes] = True

    def contains(self, cell: NDArray[np.int64], gene: NDArray[np.int64]) -> NDArray[np.bool_]:
        found = self.touched[cell]  # (rows,)
        pairs = cell[found] * self.genes + gene[found]
        place = np.searchsorted(self.pairs, pairs)
        found[found] = self.pairs[np.minimum(place, len(self.pairs) - 1)] == pairs
        return found


def _read_cells(path: Path, by: tuple[str, ...], table: Table) -> pd.DataFrame:
    cells, problems = typed(read_text(path), table)
    problems += [f"column '{name}' is missing (groups are formed by it)" for name in by if name not in cells.columns]
    if problems:
        raise InputError(several(f"Table '{table.name}' ({path})", problems))
    return cells


def _group(cells: pd.DataFrame, by: list[str]) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Describe each group once, and give the group number of every cell (cells,)."""
    grouped = cells.groupby(by, sort=True, dropna=False)
    other = [name for name in cells.columns if name not in (*by, OBS_ID)]
    constant = [name for name in other if (grouped[name].nunique(dropna=False) == 1).all()]
    groups = grouped[constant].first() if constant else pd.DataFrame(index=grouped.size().index)
    return groups.assign(cells=grouped.size()).reset_index(), grouped.ngroup().to_numpy()


def _open(path: Path, table: Table) -> pq.ParquetFile:
    try:
        types = pq.read_schema(open_checked(path))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    needed = [column for column in table.columns if column.required]
    problems = [missing_column(column, types.names) for column in needed if column.name not in types.names]
    if not problems and not pa.types.is_integer(types.field(COUNT).type):
        problems = [f"column '{COUNT}' has type {types.field(COUNT).type}, whole numbers expected (raw counts)"]
    if problems:
        raise InputError(several(f"Table '{table.name}' ({path})", problems))
    # Text is repeated millions of times: as dictionaries, each batch looks its few distinct values up once. Without
    # buffering ahead, memory stays flat even where the file is one single row group.
    return pq.ParquetFile(path, read_dictionary=list(table.key), pre_buffer=False, buffer_size=_BYTES)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"'{path}' is not a whole Parquet file: {reason(error)}. Copy or download it again.")


def _genes(path: Path, table: Table) -> tuple[str, ...]:
    """Collect the distinct genes in sorted order, reading that column alone."""
    genes: set[str] = set()
    for batch in _batches(path, [table.key[1]], table):
        genes.update(_dictionary(batch.column(0)).dictionary.to_pylist())
    return tuple(sorted(genes))


def _batches(path: Path, columns: list[str], table: Table) -> Iterator[pa.RecordBatch]:
    file = _open(path, table)
    try:
        yield from file.iter_batches(batch_size=_ROWS, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _dictionary(column: pa.Array) -> pa.DictionaryArray:
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


def _codes(column: pa.Array, known: pd.Index) -> NDArray[np.int64]:
    """Number every value by its place in `known`, -1 where it has none: (rows,)."""
    column = _dictionary(column)
    of_value = known.get_indexer(column.dictionary.to_numpy(zero_copy_only=False))  # (distinct,)
    return of_value[column.indices.to_numpy(zero_copy_only=False)]


def _numbers(column: pa.Array, path: Path) -> NDArray[np.int64]:
    number = column.to_numpy(zero_copy_only=False)
    if column.null_count or (number < 0).any():
        raise InputError(f"'{path}' holds missing or negative values in '{COUNT}'. Raw counts are expected.")
    return number.astype(np.int64)
