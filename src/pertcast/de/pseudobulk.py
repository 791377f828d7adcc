"""Sums of counts over the cells of one sample: the unit whose noise includes that between samples.

Source: Squair et al. 2021, doi:10.1038/s41467-021-25960-2 (why cells of one sample are no replicates).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pertcast.errors import InputError, several, shorten
from pertcast.types import Ints

N_CELLS = "n_cells"
LARGEST_COUNT = 2.0**53  # beyond it float64 does not tell whole numbers apart

Counts = NDArray | sparse.sparray | sparse.spmatrix


@dataclass(frozen=True, slots=True)
class Pseudobulk:
    """Counts of samples, each the sum of its cells."""

    counts: Ints  # (n, g)  int64
    obs: pd.DataFrame  # (n, keys + n_cells)  what the cells of a sample share, sorted by the keys
    genes: tuple[str, ...]  # (g,)
    dropped: pd.DataFrame  # (m, keys + n_cells)  samples of too few cells

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, rows: NDArray) -> "Pseudobulk":
        """Keep the given samples, by number or by mask."""
        obs = self.obs.loc[rows] if rows.dtype == bool else self.obs.iloc[rows]
        return replace(self, counts=self.counts[rows], obs=obs.reset_index(drop=True))


def pseudobulk(
    counts: Counts, obs: pd.DataFrame, keys: Sequence[str], *, genes: Sequence[str] | None = None, min_cells: int = 1
) -> Pseudobulk:
    """Sum the counts of all cells that agree in the columns `keys`.

    counts     (c, g)  whole numbers >= 0, dense or sparse; cells by genes
    obs        (c, ..) a row per cell
    keys               columns of `obs`, such as cell type, donor and condition
    genes      (g,)    names; numbers where not given
    min_cells          samples of fewer cells are dropped, and listed

    Raises InputError, naming all faults at once, for columns that are missing or repeated, cells without a label,
    counts that are not whole, negative or not finite, and when no sample has enough cells.
    """
    keys = list(keys)
    names = tuple(map(str, genes)) if genes is not None else tuple(str(j) for j in range(counts.shape[1]))
    problems = [*_faults_of_obs(obs, keys, len(names), counts.shape), *_faults_of_counts(counts)]
    if min_cells < 1:
        problems.append(f"min_cells must be at least 1, got {min_cells}")
    if problems:
        raise InputError(several("Pseudobulk", problems, fix="Give raw counts, and a label for every cell."))
    groups = obs[keys].groupby(keys, observed=True, sort=True)
    number = groups.ngroup().to_numpy()  # (c,)
    first = np.unique(number, return_index=True)[1]
    table = obs[keys].iloc[first].reset_index(drop=True)
    table[N_CELLS] = np.bincount(number)
    return enough_cells(_sums(counts, number, len(table)), table, genes=names, min_cells=min_cells)


def enough_cells(counts: Ints, obs: pd.DataFrame, *, genes: tuple[str, ...], min_cells: int) -> Pseudobulk:
    """Keep samples of at least so many cells, and list the others.

    counts  (n, g)   sums of samples
    obs     (n, ..)  with the column `n_cells`
    Raises InputError when no sample has enough cells.
    """
    kept = (obs[N_CELLS] >= min_cells).to_numpy()
    if not kept.any():
        most = int(obs[N_CELLS].max())
        raise InputError(f"Pseudobulk: no sample has {min_cells} cells, the largest has {most}. Lower min_cells.")
    return Pseudobulk(counts, obs, genes, obs[~kept].reset_index(drop=True)).take(kept)


def _sums(counts: Counts, number: Ints, groups: int) -> Ints:
    """Sum rows by group number, as one product with a sparse indicator matrix: (c, g) -> (groups, g)."""
    cells = len(number)
    indicator = sparse.csr_array((np.ones(cells), (number, np.arange(cells))), shape=(groups, cells))
    total = indicator @ counts  # float64: sums of whole numbers are exact below 2^53
    return np.asarray(total.todense() if sparse.issparse(total) else total).astype(np.int64)


def _faults_of_obs(obs: pd.DataFrame, keys: list[str], genes: int, shape: tuple[int, ...]) -> list[str]:
    problems = []
    if shape != (len(obs), genes):
        problems.append(f"counts {shape} must have a row for each of {len(obs)} cells and {genes} genes")
    if not len(obs):
        problems.append("there are no cells")
    if not keys or len(set(keys)) < len(keys):
        problems.append(f"columns to group by must be named once each, got {shorten(keys) or 'none'}")
    missing = [key for key in dict.fromkeys(keys) if key not in obs.columns]
    if missing:
        have = shorten(obs.columns, most=12) or "none"
        problems.append(f"obs lacks the columns {shorten(missing)}; it has {have}")
    if N_CELLS in keys:
        problems.append(f"a column to group by may not be called '{N_CELLS}'; the number of cells goes there")
    for key in dict.fromkeys(keys):
        empty = int(obs[key].isna().sum()) if key in obs.columns else 0
        if empty:
            problems.append(f"column '{key}' has no label for {empty} of {len(obs)} cells")
    return problems


def _faults_of_counts(counts: Counts) -> list[str]:
    values = counts.data if sparse.issparse(counts) else np.asarray(counts)
    if values.dtype.kind in "bu":
        return []
    if values.dtype.kind not in "if":
        return [f"counts must be numbers, got type {values.dtype}"]
    problems = []
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(values)
        for what, wrong in (
            ("not finite", ~finite),
            ("negative", values < 0),
            ("not whole", finite & (values != np.floor(values))),
            (f"beyond {LARGEST_COUNT:.0e}", finite & (values > LARGEST_COUNT)),
        ):
            if wrong.any():
                value = values[wrong].flat[0]
                problems.append(f"{np.count_nonzero(wrong)} counts are {what}, first {value:g}")
    return problems
