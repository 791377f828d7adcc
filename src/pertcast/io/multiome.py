"""Untreated cells of the competition's multiome: expression and accessibility, pooled by cell type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pertcast.cell_schema import EXPRESSION, FEATURE_TYPE, MULTIOME_LONG, MULTIOME_OBS, MULTIOME_VAR, PEAKS
from pertcast.errors import InputError, several, shorten
from pertcast.io.atomic import atomic_path, write_parquet
from pertcast.io.long_counts import pseudobulk_long
from pertcast.io.narrow import read_text, typed
from pertcast.schema import CELL_ACCESSIBILITY, CELL_BASELINE, CELL_TYPE, LOCATION

POOLED_TO = 10_000  # counts that each cell type is scaled to, so that those with more cells have no larger profiles


@dataclass(frozen=True, slots=True)
class Pooled:
    """Log of 1 + counts in 10,000, over all cells of a type."""

    cell_types: tuple[str, ...]  # (k,)
    cells: NDArray[np.int64]  # (k,)
    genes: tuple[str, ...]  # (g,)
    expression: NDArray[np.float32]  # (k, g)
    peaks: tuple[str, ...]  # (p,)
    accessibility: NDArray[np.float32]  # (k, p)


def pool_multiome(folder: Path) -> Pooled:
    """Sum the counts of `multiome_train.parquet` by cell type, streamed, and scale either kind to the same total.

    The two tables beside it say of which type each cell is, and which locations are genes and which are peaks.
    Raises InputError for files or columns that are missing, for locations that are described nowhere, and for cell
    types without a count of a kind.
    """
    folder = Path(folder)
    counts, obs, var = (folder / table.file for table in (MULTIOME_LONG, MULTIOME_OBS, MULTIOME_VAR))
    groups, sums, locations = pseudobulk_long(counts, obs, by=(CELL_TYPE,), tables=(MULTIOME_LONG, MULTIOME_OBS))
    described, problems = typed(read_text(var), MULTIOME_VAR)
    if problems:
        raise InputError(several(f"Table '{MULTIOME_VAR.name}' ({var})", problems))
    kind = described.set_index(LOCATION)[FEATURE_TYPE].reindex(locations)
    strange = kind.index[kind.isna()]
    if len(strange):
        names = shorten(strange)
        raise InputError(f"'{counts}' has {len(strange)} locations that '{var}' lacks: {names}. Use files of one set.")
    cell_types = tuple(groups[CELL_TYPE])
    parts = {}
    for name in (EXPRESSION, PEAKS):
        columns = np.flatnonzero(kind.to_numpy() == name)
        parts[name] = (
            tuple(locations[j] for j in columns),
            _scaled(sums[:, columns], cell_types, f"{name} in '{counts}'"),
        )
    return Pooled(cell_types, groups["cells"].to_numpy(), *parts[EXPRESSION], *parts[PEAKS])


def _scaled(sums: NDArray[np.int64], cell_types: tuple[str, ...], what: str) -> NDArray[np.float32]:
    total = sums.sum(axis=1, keepdims=True)
    empty = [name for name, count in zip(cell_types, total.ravel(), strict=True) if not count]
    if empty and sums.shape[1]:
        raise InputError(f"No count of {what} is of {shorten(empty)}. Take their cells out of the table of cells.")
    return np.log1p(POOLED_TO * sums / np.maximum(total, 1)).astype(np.float32)


def write_pooled(folder: Path, pooled: Pooled) -> list[Path]:
    """Write `cell_baseline.csv` and, where there are peaks, `cell_accessibility.parquet`: the files of both."""
    baseline = pd.DataFrame(pooled.expression, columns=list(pooled.genes))
    baseline.insert(0, CELL_TYPE, pooled.cell_types)
    written = [folder / CELL_BASELINE.file]
    with atomic_path(written[0]) as temporary:
        baseline.to_csv(temporary, index=False)
    if pooled.peaks:
        columns = [pa.array(pooled.peaks), *map(pa.array, pooled.accessibility)]
        written.append(folder / CELL_ACCESSIBILITY.file)
        write_parquet(written[1], pa.table(columns, names=[LOCATION, *pooled.cell_types]))
    return written
