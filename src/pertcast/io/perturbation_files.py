"""Cells in the forms that studies of knock-outs pass on: a CSV file per perturbation, or one concatenated matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from pertcast.errors import InputError, several, shorten
from pertcast.types import Cells, Floats

ENDINGS = (".csv", ".csv.gz")
MOST_LOG = 30.0  # log1p of more than all counts that a cell can hold
WHOLE = "single"  # context of files that lie in the folder itself


def read_perturbation_folder(folder: Path, *, control: str) -> Cells:
    """Read a folder of CSV files, one per perturbation, genes in rows and cells in columns.

    `<condition>.csv` in the folder itself, or `<context>/<condition>.csv`; the control's file is `<control>.csv`. The
    condition is the whole name of the file: ATF is not ATF1 (S003-14). Kept are the genes common to all files, sorted.
    Whole numbers are counts, all else is taken for log1p of normalised counts.
    Raises InputError naming all faults at once: no files, cells or genes that occur twice, no common gene, values that
    are no numbers, negative or too large to be logarithms.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.name.endswith(ENDINGS))
    if not files:
        raise InputError(f"'{folder}' holds no CSV file. Give a folder of files `<condition>.csv`, genes x cells.")
    tables, problems = [], []
    for path in files:
        if len(path.relative_to(folder).parts) > 2:  # noqa: PLR2004 - context and file
            problems.append(f"'{path}' lies too deep. Expected `<context>/<condition>.csv`")
            continue
        try:
            table = pd.read_csv(path, index_col=0)
            values = table.to_numpy(dtype=np.float64)
        except (ValueError, OSError) as error:
            problems.append(f"'{path}' cannot be read as numbers, genes x cells: {error}")
            continue
        genes = [str(name) for name in table.index]
        twice = [name for name, n in Counter(genes).items() if n > 1]
        if twice:
            problems.append(f"'{path}' has {len(twice)} genes more than once: {shorten(twice)}")
        tables.append((path, genes, [str(name) for name in table.columns], values))
    common = sorted(set.intersection(*(set(genes) for _, genes, _, _ in tables))) if tables else []
    if tables and not common:
        problems.append("no gene is common to all files")
    ids = [name for _, _, names, _ in tables for name in names]
    again = [name for name, n in Counter(ids).items() if n > 1]
    if again:
        problems.append(f"{len(again)} cells stand in more than one place: {shorten(again)}. Make cell ids unique")
    if problems:
        raise InputError(several(f"Folder '{folder}'", problems))
    parts, condition, context = [], [], []
    for path, genes, names, values in tables:
        place = {gene: row for row, gene in enumerate(genes)}
        parts.append(values[[place[gene] for gene in common]].T)
        inside = path.relative_to(folder).parts
        condition += [path.name.removesuffix(".gz").removesuffix(".csv")] * len(names)
        context += [inside[0] if len(inside) > 1 else WHOLE] * len(names)
    return _cells(np.concatenate(parts), ids, common, condition, context, control=control, subject=f"'{folder}'")


def read_concatenated(
    path: Path, *, genes: Sequence[str], perturbed: Sequence[str], batches: Sequence[str], control: str = "control"
) -> Cells:
    """Read one `.npy` matrix whose rows are [expression | perturbed genes, 0 or 1 | batch, one-hot].

    genes      (g,)  names of the expression columns
    perturbed  (p,)  names of the perturbation columns; a row with several reads `A+B`, one with none is the control
    batches    (b,)  names of the batch columns: the contexts of the cells
    Rows have no names, and are called row0, row1, ... Same unit rules and errors as `read_perturbation_folder`, and
    another width or marks that are not 0 or 1.
    """
    path = Path(path)
    try:
        matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read as a matrix: {error}. Give a .npy file of numbers.") from None
    g, p, b = len(genes), len(perturbed), len(batches)
    if matrix.ndim != 2 or matrix.shape[1] != g + p + b:  # noqa: PLR2004 - a matrix
        want = f"{g} genes, {p} perturbations and {b} batches make {g + p + b} columns"
        raise InputError(f"'{path}' has shape {matrix.shape}, but {want}. Name the columns that it has.")
    marks, batch = matrix[:, g : g + p], matrix[:, g + p :]
    problems = []
    if not np.isin(marks, (0, 1)).all():
        problems.append(f"{int((~np.isin(marks, (0, 1))).sum())} marks of perturbations are neither 0 nor 1")
    if not (np.isin(batch, (0, 1)).all() and (batch.sum(axis=1) == 1).all()):
        problems.append("every row must have exactly one batch")
    if problems:
        raise InputError(several(f"'{path}'", problems))
    condition = ["+".join(perturbed[j] for j in np.flatnonzero(row)) or control for row in marks]
    context = [batches[j] for j in batch.argmax(axis=1)]
    ids = [f"row{number}" for number in range(len(matrix))]
    return _cells(matrix[:, :g], ids, list(genes), condition, context, control=control, subject=f"'{path}'")


def _cells(
    x: Floats, ids: list[str], genes: list[str], condition: list[str], context: list[str], *, control: str, subject: str
) -> Cells:
    problems = []
    if not np.isfinite(x).all():
        problems.append(f"{int((~np.isfinite(x)).sum())} values are NaN or infinite")
    elif (x < 0).any():
        problems.append(f"{int((x < 0).sum())} values are negative: give counts or log1p values, not scaled ones")
    counts = not problems and bool((x == np.round(x)).all())
    if not problems and not counts and x.max() > MOST_LOG:
        problems.append(f"values up to {x.max():.4g} are neither whole nor logarithms")
    if control not in condition:
        problems.append(f"no cell is of the control '{control}'. Found: {shorten(sorted(set(condition)))}")
    if problems:
        raise InputError(several(subject, problems))
    labels = (np.array(part, dtype=object) for part in (condition, context, context))
    unit = "counts" if counts else "log1p"
    return Cells(np.array(ids, dtype=object), tuple(genes), csr_array(x.astype(np.float32)), unit, *labels, control)
