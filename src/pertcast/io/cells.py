"""The OpenProblems form: responses and predictions as layers of an h5ad file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertcast.errors import InputError, unknown
from pertcast.io.atomic import atomic_path
from pertcast.schema import DEFAULT_LAYER, PREDICTION_LAYER


def gene_names(path: Path) -> tuple[str, ...]:
    """Read the names of the genes (`var`) of an h5ad file, and nothing else."""
    with _open(path) as file:
        return _index(file, "var")


def read_openproblems(
    path: Path, layer: str = DEFAULT_LAYER
) -> tuple[pd.DataFrame, NDArray[np.float32], tuple[str, ...]]:
    """Read one layer of an h5ad file of responses.

    Returns `obs` (n, ...), the layer as (n, g) float32, and the names of the g genes. Other layers are not read.
    Raises InputError when the file is no h5ad file or lacks the layer.
    """
    from anndata.io import read_elem

    with _open(path) as file:
        layers = file["layers"] if "layers" in file else {}
        if layer not in layers:
            raise InputError(f"'{path}': {unknown('layer', layer, layers)} Choose the one that holds the response.")
        try:
            obs, values = read_elem(file["obs"]), read_elem(layers[layer])
        except (OSError, KeyError, ValueError) as error:
            raise _damaged(path, error) from error
        genes = _index(file, "var")
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    if values.shape != (len(obs), len(genes)):
        raise _damaged(path, f"layer '{layer}' has shape {values.shape}, expected {(len(obs), len(genes))}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported by the caller
        return obs.reset_index(drop=True), values.astype(np.float32), genes


def write_openproblems_prediction(
    path: Path, *, ids: NDArray, genes: tuple[str, ...], values: NDArray[np.floating], dataset_id: str, method_id: str
) -> None:
    """Write predictions as the benchmark reads them.

    ids         (m,)    the rows of id_map; they name the rows of the file
    values      (m, g)  in the unit of the response; goes to `layers["prediction"]`
    dataset_id, method_id   go to `uns`
    Raises InputError when the file cannot be written.
    """
    from anndata import AnnData

    adata = AnnData(
        obs=pd.DataFrame(index=pd.Index([str(item) for item in ids])),
        var=pd.DataFrame(index=pd.Index(genes)),
        layers={PREDICTION_LAYER: np.asarray(values, np.float32)},
        uns={"dataset_id": dataset_id, "method_id": method_id},
    )
    with atomic_path(path) as temporary:
        adata.write_h5ad(temporary, compression="gzip")


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise _damaged(path, error) from error


def _index(file: h5py.File, name: str) -> tuple[str, ...]:
    try:
        group = file[name]
        return tuple(group[group.attrs["_index"]].asstr()[:])
    except (KeyError, OSError, AttributeError, TypeError) as error:
        raise _damaged(Path(file.filename), error) from error


def _damaged(path: Path, error: object) -> InputError:
    return InputError(f"'{path}' is not a whole h5ad file: {error}. Copy or download it again.")
