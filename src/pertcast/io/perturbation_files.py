"""Cells in the forms that studies of knock-outs pass on: a CSV file per perturbation, or one concatenated matrix."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, vstack

from pertcast.errors import InputError, several, shorten
from pertcast.io.counts import CellCounts
from pertcast.io.text_matrix import TextMatrix, read_text_matrix

ENDINGS = (".csv", ".csv.gz")
WHOLE = "single"  # context of files that lie in the folder itself


def perturbation_files(folder: Path) -> list[Path]:
    """List the files of a folder that hold a perturbation each; a table of cells, `obs.csv`, is none."""
    found = (path for path in Path(folder).rglob("*") if path.name.endswith(ENDINGS))
    return sorted(path for path in found if path.name.partition(".")[0] != "obs")


def read_perturbation_folder(folder: Path) -> CellCounts:
    """Read a folder of CSV files, one per perturbation, genes in rows and cells in columns.

    `<condition>.csv` in the folder itself, or `<context>/<condition>.csv`; columns `condition` and `context` of `obs`
    say where a cell was found. The condition is the whole name of the file: ATF is not ATF1 (S003-14). Kept are the
    genes common to all files, sorted.
    Raises InputError naming all faults at once: no files, files that lie too deep or hold no numbers, genes that occur
    twice in a file, cells that occur twice, no common gene.
    """
    folder = Path(folder)
    files = perturbation_files(folder)
    if not files:
        raise InputError(f"'{folder}' holds no CSV file. Give a folder of files `<condition>.csv`, genes x cells.")
    tables, problems = {}, []
    for path in files:
        if len(path.relative_to(folder).parts) > 2:  # noqa: PLR2004 - context and file
            problems.append(f"'{path}' lies too deep. Expected `<context>/<condition>.csv`")
            continue
        try:
            tables[path] = read_text_matrix(path)
        except InputError as error:
            problems.append(str(error).rstrip("."))
            continue
        twice = [name for name, n in Counter(tables[path].rows).items() if n > 1]
        if twice:
            problems.append(f"'{path}' has {len(twice)} genes more than once: {shorten(twice)}")
    common = sorted(set.intersection(*(set(table.rows) for table in tables.values()))) if tables else []
    if tables and not common:
        problems.append("no gene is common to all files")
    again = [name for name, n in Counter(cell for table in tables.values() for cell in table.columns).items() if n > 1]
    if again:
        problems.append(f"{len(again)} cells stand in more than one place: {shorten(again)}. Make cell ids unique")
    if problems:
        raise InputError(several(f"Folder '{folder}'", problems))
    parts = [_selected(table, common) for table in tables.values()]
    obs = pd.concat([_told(path.relative_to(folder), table) for path, table in tables.items()])
    return CellCounts(obs, tuple(common), csr_array(vstack(parts)))


def read_concatenated(path: Path) -> CellCounts:
    """Read one `.npy` matrix whose rows are [expression | perturbed genes, 0 or 1 | batch, one-hot].

    `<name>.json` beside it names its columns: `genes` (g,), `perturbed` (p,), `batches` (b,), and the label of rows
    without a perturbation, `control` (default "control"). A row with several reads `A+B`; batches are the contexts of
    the cells. Rows have no names, and are called row0, row1, ...
    Raises InputError for names that are missing, another width, or marks that are not 0 or 1.
    """
    path = Path(path)
    names = _names(path)
    genes, perturbed, batches = (names[key] for key in ("genes", "perturbed", "batches"))
    try:
        matrix = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read as a matrix: {error}. Give a .npy file of numbers.") from None
    g, p, b = len(genes), len(perturbed), len(batches)
    if matrix.ndim != 2 or matrix.shape[1] != g + p + b:  # noqa: PLR2004 - a matrix
        want = f"{g} genes, {p} perturbations and {b} batches make {g + p + b} columns"
        raise InputError(f"'{path}' has shape {matrix.shape}, but {want}. Name the columns that it has.")
    marks, batch = np.asarray(matrix[:, g : g + p]), np.asarray(matrix[:, g + p :])
    problems = []
    if not np.isin(marks, (0, 1)).all():
        problems.append(f"{int((~np.isin(marks, (0, 1))).sum())} marks of perturbations are neither 0 nor 1")
    if not (np.isin(batch, (0, 1)).all() and (batch.sum(axis=1) == 1).all()):
        problems.append("every row must have exactly one batch")
    if problems:
        raise InputError(several(f"'{path}'", problems))
    condition = ["+".join(perturbed[j] for j in np.flatnonzero(row)) or names["control"] for row in marks]
    told = {"condition": condition, "context": [batches[j] for j in batch.argmax(axis=1)]}
    obs = pd.DataFrame(told, index=pd.Index([f"row{number}" for number in range(len(matrix))], dtype=object))
    return CellCounts(obs, tuple(genes), csr_array(matrix[:, :g]))


def names_beside(path: Path) -> Path:
    """Where the names of a matrix's columns are kept."""
    return Path(path).with_suffix(".json")


def _names(path: Path) -> dict[str, list[str] | str]:
    beside = names_beside(path)
    want = '{"genes": [..], "perturbed": [..], "batches": [..], "control": ".."}'
    try:
        names = {"control": "control", **json.loads(beside.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"'{path}' has no names: '{beside}' cannot be read ({error}). Expected {want}.") from None
    lists = [names.get(key) for key in ("genes", "perturbed", "batches")]
    if not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists):
        raise InputError(f"'{beside}' must hold {want}; got {shorten(names)}.")
    return names


def _selected(table: TextMatrix, genes: list[str]) -> csr_array:
    """Cells x genes: (c, g)."""
    place = {gene: row for row, gene in enumerate(table.rows)}
    return csr_array(table.values[[place[gene] for gene in genes]].T)


def _told(inside: Path, table: TextMatrix) -> pd.DataFrame:
    condition = inside.name.removesuffix(".gz").removesuffix(".csv")
    context = inside.parts[0] if len(inside.parts) > 1 else WHOLE
    return pd.DataFrame({"condition": condition, "context": context}, index=pd.Index(table.columns, dtype=object))
