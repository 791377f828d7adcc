"""Values of single cells with what is known of each cell, from a file or folder that anndata wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pertcast.errors import InputError, unknown
from pertcast.io.cells import gene_names


@dataclass(frozen=True, slots=True)
class CellCounts:
    """Cells as they were read."""

    obs: pd.DataFrame  # (c, ..)
    genes: tuple[str, ...]  # (g,)
    values: NDArray | sparse.spmatrix | sparse.sparray  # (c, g)  as stored, dense or sparse


def read_counts(path: Path, *, layer: str | None = None) -> CellCounts:
    """Read `obs`, the names of the genes, and `X` or one layer of an h5ad file; other layers are not read.

    Raises InputError when the file is no h5ad file, lacks the layer, or its parts disagree in size.
    """
    from anndata.io import read_elem

    genes = gene_names(path)
    with h5py.File(path, "r") as file:
        layers = file["layers"] if "layers" in file else {}
        if layer is not None and layer not in layers:
            known = ", ".join(sorted(layers)) or "none"
            what = unknown("layer", layer, layers) if len(layers) else f"Unknown layer '{layer}'. Known: {known}."
            raise InputError(f"'{path}': {what} Choose the one that holds raw counts; without a choice X is read.")
        if layer is None and "X" not in file:
            raise InputError(f"'{path}' has no X. Name the layer that holds raw counts: {', '.join(sorted(layers))}.")
        try:
            obs = read_elem(file["obs"])
            values = read_elem(file["X"] if layer is None else layers[layer])
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"'{path}' is not a whole h5ad file: {error}. Copy or download it again.") from error
    if values.shape != (len(obs), len(genes)):
        size = f"{len(obs)} cells and {len(genes)} genes"
        raise InputError(f"'{path}': the matrix has shape {values.shape}, expected {size}. Copy or download it again.")
    return CellCounts(obs, genes, values)


def read_zarr(path: Path, *, layer: str | None = None) -> CellCounts:
    """Read the same from a folder in anndata's zarr form. Raises InputError as `read_counts`."""
    import zarr
    from anndata.io import read_elem

    try:
        store = zarr.open_group(path, mode="r")
        where = store["layers"] if layer is not None else store
        name = "X" if layer is None else layer
        if name not in where:
            known = ", ".join(sorted(store["layers"])) or "none"
            raise InputError(f"'{path}' has no {'X' if layer is None else f'layer {layer!r}'}. Layers: {known}.")
        obs, var, values = read_elem(store["obs"]), read_elem(store["var"]), read_elem(where[name])
    except InputError:
        raise
    except Exception as error:  # zarr and anndata raise classes of their own, which differ by version
        raise InputError(f"'{path}' is not a whole anndata zarr store: {error}. Copy or write it again.") from error
    return CellCounts(obs, tuple(str(gene) for gene in var.index), values)
