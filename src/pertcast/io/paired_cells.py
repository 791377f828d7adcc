"""The single cells behind some rows of a table of responses, and the untreated ones; no other cell is read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from pertcast.errors import InputError, several, shorten, unknown
from pertcast.schema import CELL_TYPE, COMPOUND

SAMPLE = ("plate_name", "well", "donor_id")  # columns that tell samples apart; the last is who the cells are of


def read_paired_cells(
    path: Path, pairs: Collection[tuple[str, str]], *, genes: Sequence[str], control: str
) -> tuple[csr_array, pd.DataFrame]:
    """Read the raw counts of the cells of these pairs of cell type and compound, and of all untreated cells.

    path     h5ad with cell_type, sm_name, plate_name, well and donor_id in `obs`; rows of other cells stay on disk
    control  label of untreated cells in sm_name
    returns  counts (n, g) float32, columns as `genes`; and the five columns, as text
    Raises InputError, all faults at once, for columns, genes, pairs or a control that the file lacks, and for values
    that are no counts.
    """
    import anndata

    try:
        file = anndata.read_h5ad(path, backed="r")
    except (OSError, KeyError) as error:
        raise InputError(f"'{path}' is not a whole h5ad file: {error}. Copy or make it again.") from error
    try:
        columns = [CELL_TYPE, COMPOUND, *SAMPLE]
        problems = [unknown("column of obs", name, list(file.obs)) for name in columns if name not in file.obs]
        lost = sorted(set(genes) - set(file.var_names))
        if lost:
            problems.append(f"{len(lost)} of {len(genes)} genes are missing: {shorten(lost)}")
        obs = file.obs[columns].astype(str) if not problems else pd.DataFrame()
        wanted = _wanted(obs, set(pairs), control, problems) if not problems else np.zeros(0, bool)
        if problems:
            raise InputError(several(f"Cells of '{path}'", problems))
        counts = csr_array(file[wanted].to_memory().X, dtype=np.float32)
        order = file.var_names.get_indexer(list(genes))
    finally:
        file.file.close()
    if counts.nnz and (not np.isfinite(counts.data).all() or counts.data.min() < 0 or (counts.data % 1).any()):
        raise InputError(f"Cells of '{path}' hold values that are no counts. Give raw counts in X.")
    if not np.array_equal(order, np.arange(counts.shape[1])):  # else a copy for nothing
        counts = counts[:, order]
    return counts, obs[wanted].reset_index(drop=True)


def _wanted(obs: pd.DataFrame, pairs: set[tuple[str, str]], control: str, problems: list[str]) -> np.ndarray:
    """Which cells are untreated, or of one of the pairs: (n,) bool."""
    if not (obs[COMPOUND] == control).any():
        problems.append(f"no cell is untreated: {unknown(f'label of {COMPOUND}', control, set(obs[COMPOUND]))}")
    key = pd.MultiIndex.from_frame(obs[[CELL_TYPE, COMPOUND]])
    missing = sorted(pairs - set(key))
    if missing:
        shown = shorten(" / ".join(pair) for pair in missing)
        problems.append(f"{len(missing)} of {len(pairs)} pairs of training have no cell: {shown}")
    return (key.isin(pairs) if pairs else np.zeros(len(obs), bool)) | (obs[COMPOUND] == control).to_numpy()
