"""Cells from a file or a folder in whichever form: one way in for every command that reads cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pertcast.errors import InputError, shorten
from pertcast.io.counts import CellCounts, read_counts, read_zarr
from pertcast.io.perturbation_files import (
    names_beside,
    perturbation_files,
    read_concatenated,
    read_perturbation_folder,
)
from pertcast.io.tenx import GeneNames, is_mtx_folder, read_10x_h5, read_mtx_folder
from pertcast.io.text_matrix import ENDINGS, GenesIn, read_text_cells

ZARR_MARKS = ("zarr.json", ".zgroup", ".zattrs")
FORMS = (
    "h5ad; a folder in anndata's zarr form; a 10x folder with matrix.mtx, or 10x .h5; a matrix as .csv, .tsv or .txt, "
    "also .gz; a folder with a CSV file per perturbation; .npy with names in a .json file beside it"
)
GENES = "genes.txt"  # beside .npz files: a name a line
OBS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file cannot say of itself."""

    layer: str | None = None  # instead of X, where a form has layers
    obs: Path | None = None  # table of the cells; None: the one beside the data, if any
    genes_in: GenesIn | None = None  # of a matrix as text; None: found out by the cells of the table
    gene_names: GeneNames = "symbol"  # of the 10x forms
    listed_only: bool = False  # leave out cells that the table lacks, instead of refusing them


def read_form(path: Path, how: Reading | None = None) -> CellCounts:
    """Read cells with what is known of each: h5ad, zarr, 10x, text, a file per perturbation, or `.npy`.

    A table of the cells (CSV or TSV, first column their ids) adds its columns to `obs`, also to an h5ad file's. It is
    named, or lies beside the data: `obs.csv` in a folder, `<name>.obs.csv` beside a file.
    Raises InputError for a form that is not known, for cells that the table lacks, and as the readers of the forms do.
    """
    path, how = Path(path), how or Reading()
    if not path.exists():
        raise InputError(f"'{path}' does not exist. Give one of: {FORMS}.")
    beside = how.obs or table_beside(path)
    table = None if beside is None else read_table_of_cells(beside)
    read = _read(path, how, table)
    return read if table is None else joined(read, table, beside, how)


def files_of(path: Path) -> list[Path]:
    """List the files that a reader of this path reads, in a fixed order: a folder's own, or a file and those beside."""
    path = Path(path)
    if path.is_dir():
        return sorted(one for one in path.rglob("*") if one.is_file())
    beside = [table_beside(path), names_beside(path) if path.suffix == ".npy" else None]
    beside += [path.with_name(GENES)] if path.suffix == ".npz" else []
    return [path, *(one for one in beside if one is not None and one.exists())]


def table_beside(path: Path) -> Path | None:
    """Find the table of the cells that lies beside the data."""
    path = Path(path)
    if path.is_dir():
        found = [path / f"obs{ending}" for ending in OBS]
    else:
        stem = path.name.removesuffix(".gz").rpartition(".")[0]
        found = [path.with_name(f"{stem}.obs{ending}") for ending in OBS]
    return next((one for one in found if one.is_file()), None)


def _read(path: Path, how: Reading, table: pd.DataFrame | None) -> CellCounts:
    name = path.name.lower()
    if path.is_dir() and (path.suffix == ".zarr" or any((path / mark).exists() for mark in ZARR_MARKS)):
        return read_zarr(path, layer=how.layer)
    if path.is_file() and name.endswith(".h5ad"):
        return read_counts(path, layer=how.layer)
    if how.layer is not None:
        raise InputError(f"'{path}' has no layers, and so no layer '{how.layer}'. Leave the layer out.")
    if path.is_dir():
        if is_mtx_folder(path):
            return read_mtx_folder(path, gene_names=how.gene_names)
        if perturbation_files(path):
            return read_perturbation_folder(path)
        raise InputError(f"Folder '{path}' holds no cells in a form that is known. Give one of: {FORMS}.")
    if name.endswith(".h5"):
        return read_10x_h5(path, gene_names=how.gene_names)
    if name.endswith(ENDINGS):
        return read_text_cells(path, genes_in=how.genes_in, known=None if table is None else table.index)
    if name.endswith(".npy"):
        return read_concatenated(path)
    raise InputError(f"'{path}' is in no form that is known. Give one of: {FORMS}.")


def read_table_of_cells(path: Path) -> pd.DataFrame:
    """Read a table of cells, CSV or TSV, by the ids of its first column. Raises InputError for ids that repeat."""
    sep = "\t" if ".tsv" in path.name else ","
    try:
        first = pd.read_csv(path, sep=sep, nrows=0).columns[0]
        table = pd.read_csv(path, sep=sep, dtype={first: str}).set_index(first)
    except (OSError, EOFError, IndexError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"Table of cells '{path}' cannot be read: {str(error).strip()}.") from None
    again = table.index[table.index.duplicated()]
    if len(again):
        raise InputError(f"Table of cells '{path}' has {len(again)} ids more than once: {shorten(again.unique())}.")
    return table


def joined(read: CellCounts, table: pd.DataFrame, beside: Path, how: Reading) -> CellCounts:
    """Add the columns of a table, read from `beside`, to cells. Raises InputError for cells that it lacks."""
    ids = read.obs.index.astype(str)
    known = ids.isin(table.index)
    if not known.all():
        if not how.listed_only or not known.any():
            lost = (
                f"{int((~known).sum())} of {len(ids)} cells have no row in '{beside}': {shorten(ids[~known][:3])}, .."
            )
            fix = f"Its first column must hold ids of cells; it begins with {shorten(table.index[:2])}."
            raise InputError(f"{lost} {fix} To leave such cells out: `pertcast cells convert --listed-only`.")
        read = CellCounts(read.obs[known], read.genes, read.values[known.nonzero()[0]])
        ids = ids[known]
    rows = table.loc[ids].set_axis(read.obs.index)
    old = read.obs.drop(columns=[name for name in read.obs if name in rows])
    return CellCounts(pd.concat([old, rows], axis=1), read.genes, read.values)
