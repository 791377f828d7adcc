"""Matrices as text, plain or as .gz: names in the first column and the first line, read a piece at a time."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, vstack

from pertcast.errors import InputError
from pertcast.io.counts import CellCounts

GenesIn = Literal["rows", "columns"]

ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
PIECE = 4_000_000  # numbers held densely at once


@dataclass(frozen=True, slots=True)
class TextMatrix:
    """Numbers and their names, as they stand in the file."""

    rows: tuple[str, ...]  # (r,)
    columns: tuple[str, ...]  # (c,)
    values: csr_array  # (r, c)  float32


def read_text_cells(path: Path, *, genes_in: GenesIn | None, known: pd.Index | None) -> CellCounts:
    """Read cells x genes or genes x cells.

    genes_in  which one it is; None: whichever side has cells that are known
    known     ids of cells of a table about them; None: there is no such table
    Raises InputError where nothing tells the cells from the genes, and as `read_text_matrix`.
    """
    if genes_in is None and known is None:
        fix = "Say --genes-in rows or columns to `pertcast cells convert`, or give a table of the cells"
        raise InputError(f"'{path}' may hold cells x genes or genes x cells. {fix} beside it.")
    matrix = read_text_matrix(path)
    if genes_in is None:
        found = {"columns": pd.Index(matrix.rows).isin(known), "rows": pd.Index(matrix.columns).isin(known)}
        share = {side: float(hits.mean()) if len(hits) else 0.0 for side, hits in found.items()}
        if share["rows"] == share["columns"]:
            what = f"{share['rows']:.0%} of its rows and as many of its columns are cells of the table"
            raise InputError(f"'{path}' may hold cells x genes or genes x cells: {what}. Say --genes-in, or mend ids.")
        genes_in = max(share, key=share.get)
    cells, genes, values = matrix.rows, matrix.columns, matrix.values
    if genes_in == "rows":
        cells, genes, values = genes, cells, csr_array(values.T)
    return CellCounts(pd.DataFrame(index=pd.Index(cells, dtype=object)), tuple(genes), values)


def read_text_matrix(path: Path) -> TextMatrix:
    """Read a matrix of numbers; it becomes sparse piece by piece and is never held densely.

    Fields are parted by tabs where the first line has one, else by commas, else by blanks. The first line may lack a
    name for the first column, as R writes it. An empty field is NaN.
    Raises InputError naming line and column of what is no number, and for a file that is cut off or has no numbers.
    """
    path = Path(path)
    try:
        sep, columns, corner = _header(path)
        names, parts = [], []
        for piece in _pieces(path, sep, len(columns)):
            names += piece.pop(0).tolist()
            parts.append(csr_array(piece.to_numpy(np.float32)))
    except (OSError, EOFError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"'{path}' cannot be read as a table of numbers: {str(error).strip()}.") from None
    if not names:
        raise InputError(f"'{path}' holds no line beyond its header{f' ({corner}, ..)' if corner else ''}.")
    return TextMatrix(tuple(names), tuple(columns), csr_array(vstack(parts)))


def _header(path: Path) -> tuple[str, list[str], str]:
    """Separator, names of the columns of numbers, and what stands above the names of the rows."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as file:
        line = file.readline()
        sep = next((sep for sep in ("\t", ",") if sep in line), " ")
        head, first = next(csv.reader([line], delimiter=sep), []), next(csv.reader(file, delimiter=sep), [])
    if len(first) == len(head) + 1:
        return sep, head, ""
    return sep, head[1:], head[0] if head else ""


def _pieces(path: Path, sep: str, width: int) -> Iterator[pd.DataFrame]:
    """Rows of numbers, their names in column 0; a further column would take what a line has too much."""
    how = {
        "sep": sep, "header": None, "skiprows": 1, "names": list(range(width + 2)), "converters": {0: str},
        "chunksize": max(1, PIECE // max(width, 1)), "encoding": "utf-8",
    }  # fmt: skip
    columns = range(1, width + 1)
    try:
        with pd.read_csv(path, dtype={**dict.fromkeys(columns, np.float32), width + 1: str}, **how) as pieces:
            for piece in pieces:
                more = piece[piece.pop(width + 1).notna()]
                if len(more):
                    what = f"the line of '{more.iat[0, 0]}' has more fields than the {width + 1} of the first line"
                    raise InputError(f"'{path}' cannot be read as a table of numbers: {what}.")
                yield piece
    except pd.errors.ParserError:
        raise
    except ValueError:
        with pd.read_csv(path, dtype=dict.fromkeys(range(1, width + 2), str), **how) as pieces:
            raise InputError(_first_fault(path, pieces)) from None


def _first_fault(path: Path, pieces: Iterator[pd.DataFrame]) -> str:
    """Say where the first field stands that is no number."""
    line = 2
    for piece in pieces:
        fields = piece.drop(columns=0)
        wrong = (fields.notna() & fields.apply(pd.to_numeric, errors="coerce").isna()).to_numpy()
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            where = f"line {line + row} ('{piece.iat[row, 0]}'), column {column + 2}"
            return f"'{path}' holds '{fields.iat[row, column]}' in {where}, expected a number."
        line += len(piece)
    return f"'{path}' holds what is no number."
