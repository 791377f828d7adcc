"""The truth of a simulated file, rebuilt from the file alone, and its score on any cells."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from pertcast.errors import InputError, shorten
from pertcast.simulate.cells import Condition, SimulatedCells
from pertcast.simulate.files import CONTEXT, KEY, VERSION
from pertcast.simulate.mechanisms import StructuralModel
from pertcast.simulate.populations import Context, block_rows
from pertcast.types import Ints


def read_about(path: Path) -> dict[str, object]:
    """Read what a simulated file says of itself: `simulated`, kind, seed, version, facts, model.

    Raises InputError when the file is no h5ad file, or was not simulated by this package.
    """
    with _open(path) as file:
        try:
            about = json.loads(file["uns"][KEY][()])
        except (KeyError, TypeError, ValueError, AttributeError):
            about = None
    if not isinstance(about, Mapping) or about.get("simulated") is not True:
        raise InputError(f"'{path}' holds no simulated truth. `pertcast simulate` writes files that do.")
    if about["version"] != VERSION:
        raise InputError(f"'{path}' was simulated by version {about['version']}, this is {VERSION}. Simulate it again.")
    return dict(about)


def read_truth(path: Path) -> StructuralModel:
    """Rebuild the model that a file's cells were drawn from. Raises as `read_about`."""
    return StructuralModel.from_dict(read_about(path)["model"])


def read_cells(path: Path) -> SimulatedCells:
    """Read a simulated file whole: counts (CSR), context, conditions, model. Raises as `read_about`."""
    (cells,) = _blocks(path, whole=True)
    return cells


def oracle_nll(path: Path, *, genes: tuple[str, ...] | None = None) -> float:
    """Mean negative log likelihood of a file's counts at the truth, in nats; memory holds a block of cells.

    genes   whose counts are scored; default: all
    Raises InputError as `read_about`, or for a gene that is not in the file.
    """
    total, entries = 0.0, 0
    for cells in _blocks(path):
        likelihood, scored = cells.log_likelihood_sum(genes)
        total, entries = total + likelihood, entries + scored
    return -total / entries


def _blocks(path: Path, *, whole: bool = False) -> Iterator[SimulatedCells]:
    about = read_about(path)
    model = StructuralModel.from_dict(about["model"])
    conditions = tuple(Condition(name, set_to) for name, set_to in about["conditions"].items())
    with _open(path) as file:
        context, condition = _context(file, path, conditions)
        order = _order(file, path, model)
        for rows in [slice(0, len(context))] if whole else block_rows(len(context), len(model.genes)):
            counts = _rows(file, rows, order)
            own = None if condition is None else condition[rows]
            yield SimulatedCells(counts, context.take(rows), model, conditions, own)


def _rows(file: h5py.File, rows: slice, order: Ints) -> sparse.csr_array:
    """Read some rows of X, sparse or dense, with the columns in the given order."""
    x = file["X"]
    if isinstance(x, h5py.Dataset):
        return sparse.csr_array(x[rows])[:, order]
    ends = x["indptr"][rows.start : rows.stop + 1]
    part = slice(int(ends[0]), int(ends[-1]))
    shape = (rows.stop - rows.start, int(x.attrs["shape"][1]))
    counts = sparse.csr_array((x["data"][part], x["indices"][part], ends - ends[0]), shape=shape)
    return counts if np.array_equal(order, np.arange(shape[1])) else counts[:, order]


def _order(file: h5py.File, path: Path, model: StructuralModel) -> Ints:
    """Return the column of X of every gene of the model: genes are matched by name."""
    from anndata.io import read_elem

    place = {str(name): i for i, name in enumerate(read_elem(file["var"]).index)}
    missing = [gene for gene in model.genes if gene not in place]
    if missing:
        raise InputError(f"'{path}' lacks {len(missing)} genes that its truth has: {shorten(missing)}.")
    return np.array([place[gene] for gene in model.genes])


def _context(file: h5py.File, path: Path, conditions: tuple[Condition, ...]) -> tuple[Context, Ints | None]:
    """Read the table of cells: their context, and the number of the condition of each if there are any."""
    from anndata.io import read_elem

    obs: pd.DataFrame = read_elem(file["obs"])
    needed = (*CONTEXT, "condition") if conditions else CONTEXT
    missing = [name for name in needed if name not in obs]
    if missing:
        raise InputError(f"'{path}': columns {', '.join(missing)} of obs are missing; the truth needs them.")
    codes = (_codes(obs[name]) for name in CONTEXT[:2])
    context = Context(*codes, *(obs[name].to_numpy(float) for name in CONTEXT[2:]))
    if not conditions:
        return context, None
    number = {condition.name: i for i, condition in enumerate(conditions)}
    lost = sorted(set(obs["condition"].astype(str)) - set(number))
    if lost:
        raise InputError(f"'{path}': the truth does not know the conditions {shorten(lost)}.")
    return context, obs["condition"].astype(str).map(number).to_numpy(int)


def _codes(labels: pd.Series) -> Ints:
    """`P0`, `B3`, ... -> 0, 3, ...; subsets of a file may have lost categories, so the label itself counts."""
    return labels.astype(str).str[1:].astype(np.int64).to_numpy()


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"'{path}' is not a whole h5ad file: {error}. Simulate or copy it again.") from error
