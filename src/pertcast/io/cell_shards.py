"""Cells of files that together are larger than memory: read piece by piece into files on disk that are then mapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import h5py
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse import csr_array

from pertcast.errors import InputError, several, shorten, unknown
from pertcast.io.arrays import row_pieces
from pertcast.io.cell_forms import GENES, ZARR_MARKS, Reading, joined, read_table_of_cells, table_beside
from pertcast.io.counts import CellCounts
from pertcast.io.single_cells import MOST_LOG1P, checked_values, labels_of, repeated
from pertcast.types import Cells

SHARDS = "h5ad; zarr; .npz of scipy.sparse with <name>.obs.csv and genes.txt beside it; a folder of several of them"


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of cells: what is known of them, without their values."""

    path: Path
    obs: pd.DataFrame  # (n, ..)
    genes: tuple[str, ...]  # (g,)

    def pieces(self, layer: str | None) -> Iterator[csr_array]:
        """Yield the values of some cells after the others: (b, g). Those of an .npz file are read whole."""
        if self.path.suffix == ".npz":
            yield csr_array(sparse.load_npz(self.path))
            return
        yield from _cut(self, layer)


class MatrixOnDisk:
    """A sparse matrix that rows are added to on disk, and that is read from there when they are all in."""

    def __init__(self, folder: Path, width: int):
        folder.mkdir(parents=True)
        self.folder, self.width, self.ends = folder, width, [np.zeros(1, np.int64)]

    def __enter__(self) -> MatrixOnDisk:
        self.values, self.columns = (open(self.folder / name, "wb") for name in ("values", "columns"))
        return self

    def __exit__(self, *raised: object) -> None:
        self.values.close()
        self.columns.close()

    def add(self, x: csr_array) -> None:
        """Add rows (b, g) below those that are there; explicit zeros are dropped."""
        if not x.data.all():
            x = x.copy()
            x.eliminate_zeros()
        self.ends.append(self.ends[-1][-1] + x.indptr[1:].astype(np.int64))
        x.data.astype(np.float32, copy=False).tofile(self.values)
        x.indices.astype(np.int64).tofile(self.columns)  # as the trainer wants them, so that it need not copy them

    def mapped(self) -> csr_array:
        """Return all rows (n, g); what is not looked at stays on disk."""
        ends = np.concatenate(self.ends)
        kinds = (("values", np.float32), ("columns", np.int64))
        parts = (
            np.memmap(self.folder / name, kind, "r+", shape=(int(ends[-1]),)) if ends[-1] else np.zeros(0, kind)
            for name, kind in kinds
        )
        return csr_array((*parts, ends), shape=(len(ends) - 1, self.width))


def read_mapped(
    path: Path,
    scratch: Path,
    *,
    condition_key: str,
    control: str,
    context_key: str | None = None,
    batch_key: str | None = None,
    layer: str | None = None,
    need_treated: bool = False,
) -> Cells:
    """Read cells as `read_cells` does, from a file or a folder of them, values staying on disk.

    path     h5ad, anndata's zarr form, or .npz as `scipy.sparse.save_npz` writes it, with `<name>.obs.csv` and
             genes.txt beside it; or a folder with several of these, which are put below each other by name
    scratch  new folder for the values: 12 bytes for each other than zero. It must stay while the cells are used
    Shards have the same genes, in any order. Raises InputError as `read_cells`, for h5ad stored by genes, and for
    shards that do not fit together.
    """
    shards = [_shard(one) for one in shard_files(path)]
    read = _together(Path(path), shards)
    problems = repeated(read)
    keys = {"condition": condition_key, "context": context_key, "batch": batch_key}
    labels = labels_of(read.obs, keys, problems, control=control, need_treated=need_treated)
    if problems:
        raise InputError(several(f"Cells of '{path}'", problems))
    units, most = set(), 0.0
    with MatrixOnDisk(scratch, len(read.genes)) as matrix:
        for shard in shards:
            order = None if shard.genes == read.genes else pd.Index(shard.genes).get_indexer(read.genes)
            for x in shard.pieces(layer):
                values, unit = _checked(shard, x, layer)
                units.add(unit)
                most = max(most, float(values.data.max(initial=0)))
                matrix.add(values if order is None else csr_array(values[:, order]))
    unit = "counts" if units <= {"counts"} else "log1p"
    if unit == "log1p" and most > MOST_LOG1P:
        fix = "Give whole counts, or log1p of normalised ones, in all of them."
        raise InputError(f"Cells of '{path}': some values are not whole, and others are as large as {most:g}. {fix}")
    ids = np.array([str(name) for name in read.obs.index], dtype=object)
    x = matrix.mapped()
    if x.shape[0] != len(ids):
        raise InputError(f"Cells of '{path}': {x.shape[0]} rows of values, {len(ids)} cells. Copy or write it again.")
    return Cells(ids, read.genes, x, unit, control=control, **labels)


def shard_files(path: Path) -> list[Path]:
    """List the files of cells of a path by name: itself, or what a folder holds. Raises InputError without any."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"'{path}' does not exist. Give one of: {SHARDS}.")
    if not path.is_dir() or _is_zarr(path):
        return [path]
    found = sorted(one for one in path.iterdir() if one.suffix in (".h5ad", ".npz") or _is_zarr(one))
    if not found:
        raise InputError(f"Folder '{path}' holds no cells that can be streamed. Give one of: {SHARDS}.")
    return found


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and (path.suffix == ".zarr" or any((path / mark).exists() for mark in ZARR_MARKS))


def _shard(path: Path) -> Shard:
    """Read what is known of the cells of one file."""
    beside = table_beside(path)
    if path.suffix == ".npz":
        return _npz_shard(path, beside)
    if path.suffix != ".h5ad" and not _is_zarr(path):
        raise InputError(f"'{path}' cannot be streamed. Give one of: {SHARDS}.")
    from anndata.io import read_elem

    with _opened(path) as store:
        read = CellCounts(read_elem(store["obs"]), tuple(map(str, read_elem(store["var"]).index)), np.zeros((0, 0)))
    if beside is not None:
        read = joined(read, read_table_of_cells(beside), beside, Reading())
    return Shard(path, read.obs, read.genes)


def _npz_shard(path: Path, beside: Path | None) -> Shard:
    names = path.with_name(GENES)
    lost = [what for what, at in ((f"{path.stem}.obs.csv", beside), (GENES, names)) if at is None or not at.exists()]
    if lost:
        raise InputError(f"'{path}' holds values alone, and there is no {' and no '.join(lost)} beside it. Write it.")
    try:
        with np.load(path) as held:
            shape = tuple(int(size) for size in held["shape"])
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"'{path}' is not what scipy.sparse.save_npz writes: {error}. Write it again.") from None
    obs, genes = read_table_of_cells(beside), tuple(names.read_text().splitlines())
    if shape != (len(obs), len(genes)):
        found = f"{len(obs)} cells and {len(genes)} genes"
        raise InputError(f"'{path}' has shape {shape}, but the files beside it name {found}. Write them again.")
    return Shard(path, obs, genes)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an h5ad file or a zarr folder to read from."""
    try:
        if path.suffix == ".h5ad":
            with h5py.File(path, "r") as store:
                yield store
        else:
            import zarr

            yield zarr.open_group(path, mode="r")
    except (OSError, KeyError) as error:
        raise InputError(f"'{path}' is not whole: {error}. Copy or write it again.") from error


def _cut(shard: Shard, layer: str | None) -> Iterator[csr_array]:
    """Yield the values of an h5ad file or a zarr folder piece by piece."""
    from anndata.io import sparse_dataset

    with _opened(shard.path) as store:
        layers = store["layers"] if "layers" in store else {}
        if layer is not None and layer not in layers:
            raise InputError(f"'{shard.path}': {unknown('layer', layer, layers)} Choose one, or leave it out for X.")
        x = store["X"] if layer is None else layers[layer]
        if not hasattr(x, "shape"):  # a group: sparse
            x = sparse_dataset(x)
            if x.format != "csr":
                raise InputError(
                    f"'{shard.path}' is stored by genes (CSC), so no cell can be read alone. Write it as CSR."
                )
            ends = np.asarray(x.group["indptr"][:], np.int64)
        else:
            ends = np.arange(len(shard.obs) + 1) * len(shard.genes)
        for rows in row_pieces(ends):
            yield csr_array(x[rows])


def _together(path: Path, shards: Sequence[Shard]) -> CellCounts:
    """Put what is known of all cells below each other. Raises InputError for shards of other genes."""
    genes = shards[0].genes
    other = [one.path.name for one in shards if set(one.genes) != set(genes) or len(one.genes) != len(genes)]
    if other:
        fix = "Give every shard the same genes."
        raise InputError(f"Cells of '{path}': {shorten(other)} have other genes than {shards[0].path.name}. {fix}")
    return CellCounts(pd.concat([one.obs for one in shards]), genes, np.zeros((0, 0)))


def _checked(shard: Shard, x: csr_array, layer: str | None) -> tuple[csr_array, str]:
    problems: list[str] = []
    read = CellCounts(shard.obs, shard.genes, x)
    values, unit = checked_values(read, problems, what="X" if layer is None else f"layer '{layer}'")
    if problems:
        raise InputError(several(f"Cells of '{shard.path}'", problems))
    return values, unit
