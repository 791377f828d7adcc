"""Single cells as models read them, from a file in whichever form; and what models predict, as h5ad."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, csr_matrix, issparse

from pertcast.errors import InputError, several, shorten, unknown
from pertcast.io.atomic import atomic_path
from pertcast.io.cell_forms import Reading, read_form
from pertcast.io.counts import CellCounts
from pertcast.types import Cells, Floats, Strings

KEY = "pertcast"  # in `uns`: a JSON string
MOST_LOG1P = 30.0  # log1p of any count that a cell can have is below it
MEAN_SHIFT = "mean_shift"  # column of `var`: what the mean shift of training adds to every cell


def read_cells(
    path: Path,
    *,
    condition_key: str,
    control: str,
    context_key: str | None = None,
    batch_key: str | None = None,
    layer: str | None = None,
    need_treated: bool = False,
) -> Cells:
    """Read cells with what was done to them, in any form of `read_form`.

    condition_key   column of `obs`; `control` is its label of untreated cells
    context_key     column with cell type, line or population; without it all are of one context, "all"
    batch_key       column with what was measured together; without it one batch, "all"
    layer           what to read instead of X
    need_treated    refuse a file in which every cell is untreated
    Whole numbers are counts, all else is taken for log1p of normalised counts. Raises InputError naming all faults at
    once: columns or labels that are missing, ids or genes that occur twice, values that are negative, NaN or too large
    to be logarithms.
    """
    path = Path(path)
    read = read_form(path, Reading(layer=layer))
    keys = {"condition": condition_key, "context": context_key, "batch": batch_key}
    problems = repeated(read)
    labels = labels_of(read.obs, keys, problems, control=control, need_treated=need_treated)
    x, unit = checked_values(read, problems, what="X" if layer is None else f"layer '{layer}'")
    if problems:
        raise InputError(several(f"Cells of '{path}'", problems))
    ids = np.array([str(name) for name in read.obs.index], dtype=object)
    return Cells(ids, read.genes, x, unit, control=control, **labels)


def read_expression(
    path: Path, *, where: Mapping[str, str] | None = None, layer: str | None = None
) -> tuple[Cells, dict[str, object]]:
    """Read cells whatever was done to them, and what `write_cells` noted of them in the file; {} where it did not.

    where   column of `obs` -> label: only cells that carry all of them
    A note of the unit counts more than the values: expected counts are not whole. Raises InputError as `read_cells`,
    and where no cell is left.
    """
    path = Path(path)
    read = read_form(path, Reading(layer=layer))
    about = _noted(path) if path.suffix == ".h5ad" else {}
    problems = repeated(read)
    rows = _chosen(read.obs, where or {}, problems)
    x, unit = checked_values(read, problems, what="X", unit=about.get("unit"))
    if problems:
        raise InputError(several(f"Cells of '{path}'", problems))
    ids = np.array([str(name) for name in read.obs.index], dtype=object)
    same = np.full(len(ids), "all", dtype=object)
    cells = Cells(ids, read.genes, x, unit, same, same, same, control="all")
    return cells if rows.all() else cells.take(rows), about


def write_cells(
    path: Path,
    cells: Cells,
    *,
    about: Mapping[str, object],
    mean_shift: Floats | None = None,
    layers: Mapping[str, csr_array] | None = None,
    told: Mapping[str, Floats] | None = None,
) -> None:
    """Write predicted cells as h5ad: same cells, same bytes.

    about       noted as JSON in `uns["pertcast"]`, with the unit of the values: the run's digest, seed, condition
    mean_shift  (g,) what the mean shift of training adds, for `var`; scores are printed beside it
    layers      (n, g) each, beside the values
    told        (n,) each, further columns of `obs`
    `obs` has condition, context and batch of every cell, and the id of the untreated cell that it was predicted from.
    Raises InputError when the path does not end in .h5ad, or cannot be written.
    """
    import anndata

    path = Path(path)
    if path.suffix != ".h5ad":
        raise InputError(f"'{path}' must end in .h5ad, the form cells are written in.")
    ids = pd.Index([str(name) for name in cells.ids], dtype=object)
    obs = pd.DataFrame(
        {
            "source_cell": ids.to_numpy(),
            **{name: pd.Categorical(list(getattr(cells, name))) for name in ("condition", "context", "batch")},
            **(told or {}),
        },
        index=ids,
    )
    var = pd.DataFrame(index=pd.Index(cells.genes, dtype=object))
    if mean_shift is not None:
        var[MEAN_SHIFT] = np.asarray(mean_shift, float)
    note = json.dumps({**about, "unit": cells.unit}, sort_keys=True, allow_nan=False)
    beside = {name: csr_matrix(x) for name, x in (layers or {}).items()}
    data = anndata.AnnData(csr_matrix(cells.x), obs, var, uns={KEY: note}, layers=beside)
    with atomic_path(path) as temporary:
        data.write_h5ad(temporary, compression="gzip")


def read_mean_shift(path: Path, genes: tuple[str, ...]) -> Floats | None:
    """Read what `write_cells` noted of the mean shift, in the order of these genes: (g,); None where it did not."""
    import h5py
    from anndata.io import read_elem

    if Path(path).suffix != ".h5ad":
        return None
    with h5py.File(path, "r") as file:
        var = read_elem(file["var"])
    return var[MEAN_SHIFT].reindex(list(genes)).to_numpy(float) if MEAN_SHIFT in var else None


def labels_of(
    obs: pd.DataFrame, keys: Mapping[str, str | None], problems: list[str], *, control: str, need_treated: bool
) -> dict[str, Strings]:
    """Read the labels of cells: kind (condition, context, batch) -> (n,). Faults are added to the list.

    keys  of each kind its column of `obs` (n, ..); None: all are of one, "all"
    """
    labels = {}
    for kind, key in keys.items():
        if key is None:
            labels[kind] = np.full(len(obs), "all", dtype=object)
        elif not len(obs.columns):
            fix = "Give a table of them: obs.csv in the folder, or <name>.obs.csv beside the file"
            problems.append(f"nothing is told of the cells, so no column '{key}' holds the {kind}. {fix}")
        elif key not in obs:
            problems.append(f"{unknown('column of obs', key, map(str, obs.columns))} It was to hold the {kind}")
        else:
            labels[kind] = _labels(obs[key], problems, what=f"column '{key}' of obs")
    if "condition" in labels:
        problems += _control_faults(labels["condition"], control, keys["condition"], need_treated=need_treated)
    return labels


def _noted(path: Path) -> dict[str, object]:
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path, "r") as file:
            noted = json.loads(str(read_elem(file["uns"][KEY])))
    except (KeyError, TypeError, ValueError, OSError):
        return {}
    return noted if isinstance(noted, dict) else {}


def repeated(read: CellCounts) -> list[str]:
    """Name cell ids and genes that occur more than once, and say where there are none at all."""
    problems = []
    for what, names, fix in (
        ("cell ids", read.obs.index, "Make them unique"),
        ("genes", pd.Index(read.genes), "Make them unique; 10x forms also have ids: `cells convert --gene-names id`"),
    ):
        again = names[names.duplicated()]
        if len(again):
            problems.append(f"{len(again)} {what} occur more than once: {shorten(again.unique())}. {fix}")
    if not len(read.obs) or not len(read.genes):
        problems.append(f"it has {len(read.obs)} cells and {len(read.genes)} genes; at least 1 of each is needed")
    return problems


def _chosen(obs: pd.DataFrame, where: Mapping[str, str], problems: list[str]) -> np.ndarray:
    """Which cells carry all labels: (n,) bool."""
    rows = np.ones(len(obs), bool)
    for key, label in where.items():
        if key not in obs:
            problems.append(unknown("column of obs", key, map(str, obs.columns)))
            continue
        labels = obs[key].astype(str).to_numpy()
        if label not in labels:
            problems.append(f"column '{key}': {unknown('label', label, set(labels))}")
        rows &= labels == label
    if where and not problems and not rows.any():
        told = " and ".join(f"{key}={label}" for key, label in where.items())
        problems.append(f"no cell has {told}")
    return rows


def _labels(column: pd.Series, problems: list[str], *, what: str) -> Strings:
    missing = column.isna()
    if missing.any():
        first = column.index[missing.to_numpy()][0]
        problems.append(f"{what} is empty in {missing.sum()} cells, first in '{first}'. Fill or drop them")
    return np.array([str(value) for value in column], dtype=object)


def _control_faults(condition: Strings, control: str, key: str, *, need_treated: bool) -> list[str]:
    known = set(condition)
    if control not in known:
        return [f"column '{key}' has no untreated cells: {unknown('label', control, known)}"]
    if need_treated and len(known) < 2:
        return [f"column '{key}' holds '{control}' in every cell; at least one other condition is needed to learn from"]
    return []


def checked_values(read: CellCounts, problems: list[str], *, what: str, unit: object = None) -> tuple[csr_array, str]:
    """Return the values as CSR float32, and their unit. Faults are added to the list."""
    values = csr_array(read.values)  # copied where it was dense
    stored = values.data
    if stored.dtype.kind not in "fiub":
        problems.append(f"{what} holds {stored.dtype}, expected numbers")
        return values, "counts"
    bad = stored.size - int(np.isfinite(stored).sum())
    low = stored[np.isfinite(stored)].min(initial=0)
    high = stored[np.isfinite(stored)].max(initial=0)
    whole = unit == "counts" or not stored.size or bool((stored == np.floor(stored)).all())
    if bad:
        problems.append(f"{what} holds {bad} values that are NaN or infinite")
    if low < 0:
        problems.append(f"{what} holds values below 0, down to {low:g}; give counts or log1p values, not scaled ones")
    if not whole and not bad and high > MOST_LOG1P:
        fix = "Give whole counts, or log1p of normalised ones"
        problems.append(f"{what} holds values that are not whole, up to {high:g}: neither counts nor log1p. {fix}")
    if not issparse(read.values) or values.dtype != np.float32:
        values = values.astype(np.float32)
    return values, "counts" if whole else "log1p"
