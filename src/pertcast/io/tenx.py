"""Counts as 10x Genomics' pipelines write them: a folder with a Matrix Market file, or one HDF5 file."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from pertcast.cell_schema import EXPRESSION
from pertcast.errors import InputError, shorten
from pertcast.io.counts import CellCounts

GeneNames = Literal["symbol", "id"]

PARTS = {"matrix": ("matrix.mtx",), "features": ("features.tsv", "genes.tsv"), "barcodes": ("barcodes.tsv",)}


def is_mtx_folder(folder: Path) -> bool:
    """Whether a folder holds a Matrix Market file."""
    return any(_ends(path, PARTS["matrix"]) for path in Path(folder).iterdir())


def read_mtx_folder(folder: Path, *, gene_names: GeneNames = "symbol") -> CellCounts:
    """Read matrix.mtx, features.tsv (before version 3 genes.tsv) and barcodes.tsv, each also as .gz.

    gene_names  what genes are called: their symbols, which may repeat, or their ids
    File names may have a prefix of their own. Of several types of features only gene expression is kept.
    Raises InputError when a file is missing or there are two of it, and where sizes disagree.
    """
    from scipy.io import mmread

    folder = Path(folder)
    matrix, features, barcodes = (_part(folder, names) for names in PARTS.values())
    try:
        values = mmread(matrix, spmatrix=False)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"'{matrix}' is not a whole Matrix Market file: {error}. Copy or download it again.") from None
    table, cells = _columns(features), [row[0] for row in _columns(barcodes)]
    if values.shape != (len(table), len(cells)):
        named = f"{len(table)} features and {len(cells)} barcodes"
        raise InputError(f"'{matrix}' has shape {values.shape}, but the folder names {named}. Copy all three again.")
    place = {"id": 0, "symbol": 1}[gene_names]
    names = [row[min(place, len(row) - 1)] for row in table]  # with a single column it is both
    types = [row[2] if len(row) > 2 else EXPRESSION for row in table]  # noqa: PLR2004 - id, symbol, type
    return _expression(csr_array(values.T), cells, names, types)


def read_10x_h5(path: Path, *, gene_names: GeneNames = "symbol") -> CellCounts:
    """Read an HDF5 file of Cell Ranger, version 3 and later or before.

    gene_names  what genes are called: their symbols, which may repeat, or their ids
    Of several types of features only gene expression is kept.
    Raises InputError when it is no such file, holds several genomes, or is damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            group, fields = _layout(file, Path(path))
            names = _text(group[fields[gene_names]])
            types = _text(group["features/feature_type"]) if "features/feature_type" in group else [EXPRESSION]
            g, n = (int(size) for size in group["shape"][:])
            parts = tuple(group[name][:] for name in ("data", "indices", "indptr"))
            values = csr_array(parts, shape=(n, g))  # genes x cells by column is cells x genes by row
            cells = _text(group["barcodes"])
    except InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"'{path}' is not a whole 10x HDF5 file: {error}. Copy or download it again.") from None
    if (len(cells), len(names)) != values.shape:
        raise InputError(f"'{path}' names {len(cells)} cells and {len(names)} genes for a matrix of {values.shape}.")
    return _expression(values, cells, names, types * len(names) if len(types) == 1 else types)


def _layout(file: h5py.File, path: Path) -> tuple[h5py.Group, dict[str, str]]:
    if "matrix" in file:
        return file["matrix"], {"symbol": "features/name", "id": "features/id"}
    genomes = [name for name, group in file.items() if isinstance(group, h5py.Group) and "gene_names" in group]
    if len(genomes) != 1:
        found = f"it holds {len(genomes)} genomes: {shorten(genomes)}" if genomes else f"it holds {shorten(file)}"
        raise InputError(f"'{path}' is no 10x file of one genome; {found}. Export the genome that you want.")
    return file[genomes[0]], {"symbol": "gene_names", "id": "genes"}


def _expression(values: csr_array, cells: Sequence[str], names: Sequence[str], types: Sequence[str]) -> CellCounts:
    kept = np.flatnonzero(np.array(types) == EXPRESSION)
    if len(kept) < len(names):
        values, names = values[:, kept], [names[j] for j in kept]
    return CellCounts(pd.DataFrame(index=pd.Index(cells, dtype=object)), tuple(names), values)


def _part(folder: Path, names: tuple[str, ...]) -> Path:
    found = sorted(path for path in folder.iterdir() if _ends(path, names))
    if len(found) != 1:
        got = shorten((path.name for path in found), most=4) or "none"
        raise InputError(f"'{folder}' must hold one {' or '.join(names)}, plain or as .gz; got {got}.")
    return found[0]


def _ends(path: Path, names: tuple[str, ...]) -> bool:
    return path.is_file() and path.name.removesuffix(".gz").endswith(names) and not path.name.startswith(".")


def _columns(path: Path) -> list[list[str]]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            return [line.rstrip("\r\n").split("\t") for line in file]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' cannot be read: {error}. Copy or download it again.") from None


def _text(stored: h5py.Dataset) -> list[str]:
    return [str(value) for value in np.asarray(stored.asstr()[:], dtype=object)]
