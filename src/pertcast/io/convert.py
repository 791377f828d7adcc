"""Cells of any form written as h5ad with what commands need: labels of cells, unique names, wanted genes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, csr_matrix

from pertcast.cell_schema import CONDITION
from pertcast.errors import InputError, several, shorten
from pertcast.io.atomic import atomic_path
from pertcast.io.cell_forms import Reading, read_form
from pertcast.io.counts import CellCounts
from pertcast.io.single_cells import checked_values, repeated

SAMPLE = "sample"  # column that suffixes of cell ids fill, beside the condition


def convert_cells(
    source: Path,
    out: Path,
    *,
    how: Reading | None = None,
    suffixes: Mapping[str, str] | None = None,
    genes: Path | None = None,
    drop_constant: bool = False,
) -> dict[str, object]:
    """Read cells in whichever form and write them as h5ad: values sparse, columns of `obs` as they were.

    how            what the source cannot say of itself
    suffixes       ending of a cell's id -> its condition, "" for all others; see `label_by_suffix`
    genes          file with a gene per line (or a table's first column): all others are dropped
    drop_constant  drop genes with the same value in all cells, after that
    Returns what was written. Raises InputError naming all faults of names and values at once.
    """
    out = Path(out)
    _check_name(out)
    read = read_form(source, how)
    if suffixes:
        read = label_by_suffix(read, suffixes)
    problems = repeated(read)
    x, unit = checked_values(read, problems, what="X")
    if problems:
        raise InputError(several(f"Cells of '{source}'", problems))
    read, before, remarks = replace(read, values=x), len(read.genes), []
    if genes is not None:
        read = select_genes(read, _listed(read, genes))
        remarks.append(f"{before - len(read.genes)} of {before} genes are not listed and are dropped")
    if drop_constant:
        before = len(read.genes)
        read = select_genes(read, _varying(read))
        remarks.append(f"{before - len(read.genes)} of {before} genes do not vary and are dropped")
    write_counts(out, read)
    columns = {name: sorted(map(str, read.obs[name].unique()))[:20] for name in read.obs if _is_label(read.obs[name])}
    return {
        "file": str(out), "cells": len(read.obs), "genes": len(read.genes), "unit": unit, "obs": list(read.obs.columns),
        "labels": columns, "remarks": remarks,
    }  # fmt: skip


def label_by_suffix(read: CellCounts, suffixes: Mapping[str, str]) -> CellCounts:
    """Tell cells' conditions by the ends of their ids, and their samples by what follows the last hyphen (S001-18).

    suffixes  ending -> condition; the longest that fits counts, and "" fits all
    `AAACCTG-B3` is of sample `B3`; with {"3": "inflamed", "": "healthy"} it is inflamed.
    Raises InputError for cells that none fits.
    Source: GSE116222, Parikh et al. 2019, doi:10.1038/s41586-019-0992-y, whose samples end in 1, 2 and 3.
    """
    ids, longest = [str(name) for name in read.obs.index], sorted(suffixes, key=len, reverse=True)
    found = [next((suffixes[end] for end in longest if name.endswith(end)), None) for name in ids]
    lost = [name for name, label in zip(ids, found, strict=True) if label is None]
    if lost:
        ends = shorten(f"'{end}'" for end in longest)
        fix = 'Add the ending, or "" for all others.'
        raise InputError(f"{len(lost)} of {len(ids)} cells end in none of {ends}: {shorten(lost)}. {fix}")
    told = {CONDITION: found, SAMPLE: [name.rpartition("-")[2] for name in ids]}
    return replace(read, obs=read.obs.assign(**told))


def write_counts(path: Path, read: CellCounts) -> None:
    """Write cells as h5ad: same cells, same bytes. Raises InputError when the file cannot be written."""
    import anndata

    _check_name(path)
    obs = read.obs.set_axis(pd.Index([str(name) for name in read.obs.index], dtype=object))
    for name in obs.select_dtypes(object):
        obs[name] = obs[name].where(obs[name].isna(), obs[name].astype(str))
    data = anndata.AnnData(csr_matrix(read.values), obs, pd.DataFrame(index=pd.Index(read.genes, dtype=object)))
    with atomic_path(path) as temporary:
        data.write_h5ad(temporary, compression="gzip")


def select_genes(read: CellCounts, columns: np.ndarray) -> CellCounts:
    """Return the genes in these columns, in this order."""
    return replace(read, genes=tuple(read.genes[j] for j in columns), values=csr_array(read.values)[:, columns])


def _check_name(path: Path) -> None:
    if path.suffix != ".h5ad":
        raise InputError(f"'{path}' must end in .h5ad, the form cells are written in.")


def _listed(read: CellCounts, path: Path) -> np.ndarray:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"List of genes '{path}' cannot be read: {error}.") from None
    wanted = {line.replace("\t", ",").partition(",")[0].strip().strip('"') for line in lines}
    rows = np.flatnonzero([gene in wanted for gene in read.genes])
    if not len(rows):
        what = f"'{path}' lists none of the {len(read.genes)} genes ({shorten(read.genes, most=3)})"
        raise InputError(f"{what}; it begins with {shorten(lines, most=3)}. List the names that the data use.")
    return rows


def _varying(read: CellCounts) -> np.ndarray:
    x = csr_array(read.values)
    rows = np.flatnonzero(x.max(axis=0).toarray().ravel() > x.min(axis=0).toarray().ravel())
    if not len(rows):
        raise InputError(f"No gene varies over the {len(read.obs)} cells. Keep constant genes, or give more cells.")
    return rows


def _is_label(column: pd.Series) -> bool:
    return column.dtype == object or isinstance(column.dtype, pd.CategoricalDtype)
