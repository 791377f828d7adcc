"""The OpenProblems form: responses and predictions as layers of an h5ad file."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertcast.errors import InputError, several, shorten, unknown
from pertcast.io.atomic import atomic_path
from pertcast.schema import DEFAULT_LAYER, PREDICTION_LAYER

DATASET_ID, METHOD_ID = "dataset_id", "method_id"  # in `uns`
CLIPPED_AT = 4.0  # largest signed -log10 p of the default layer: p is floored at 1e-4
SIGNIFICANT = 0.05


class Responses(Protocol):
    """Layers (n, g) of tested rows and genes, as a table of differential expression has them."""

    signed_log10_p: NDArray
    log_fc: NDArray  # log2
    t: NDArray
    p: NDArray
    adjusted_p: NDArray
    log10_adjusted_p: NDArray
    log_odds: NDArray  # natural log
    mean_log2_cpm: NDArray


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


def dataset_id(path: Path) -> str | None:
    """Read how a file of responses calls its data set; None where it does not say."""
    with _open(path) as file:
        return _text(file, DATASET_ID)


def write_openproblems_responses(path: Path, *, keys: pd.DataFrame, genes: tuple[str, ...], table: Responses) -> None:
    """Write tests of differential expression as the benchmark's de_train, in its layers.

    keys    (n, ..)  cell_type, sm_name and what else is known of each row; they become `obs`
    table            layers (n, g); genes that were not tested have 0 in the responses and NaN in the statistics
    """
    from anndata import AnnData

    response, log10_adjusted = table.signed_log10_p, np.nan_to_num(table.log10_adjusted_p)
    layers = {
        "logFC": table.log_fc,
        "AveExpr": table.mean_log2_cpm,
        "t": table.t,
        "P.Value": table.p,
        "adj.P.Value": table.adjusted_p,
        "B": table.log_odds,
        "is_de": table.p < SIGNIFICANT,
        "is_de_adj": table.adjusted_p < SIGNIFICANT,
        "sign_log10_pval": response,
        "sign_log10_adj_pval": np.sign(response) * np.abs(log10_adjusted),
        DEFAULT_LAYER: np.clip(response, -CLIPPED_AT, CLIPPED_AT),
    }
    obs = keys.set_index(pd.Index([str(row) for row in range(len(keys))]))
    with atomic_path(path) as temporary:
        AnnData(obs=obs, var=pd.DataFrame(index=pd.Index(genes)), layers=layers).write_h5ad(
            temporary, compression="gzip"
        )


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
        uns={DATASET_ID: dataset_id, METHOD_ID: method_id},
    )
    with atomic_path(path) as temporary:
        adata.write_h5ad(temporary, compression="gzip")


def read_openproblems_prediction(path: Path, *, ids: NDArray, genes: tuple[str, ...]) -> NDArray[np.float32]:
    """Read predictions and check that the benchmark would take them: (m, g), rows as `ids`, columns as `genes`.

    Raises InputError that names every fault: rows or genes that are missing, unknown or repeated, values that are not
    finite (the benchmark would silently take them for 0), and ids of data set and method that are missing.
    """
    _, values, have_genes = read_openproblems(path, PREDICTION_LAYER)
    with _open(path) as file:
        have_rows = _index(file, "obs")
        faults = [f"uns['{name}'] is missing, or no text" for name in (DATASET_ID, METHOD_ID) if not _text(file, name)]
    rows, columns = [str(item) for item in ids], [str(gene) for gene in genes]
    for what, have, want in (("rows (id)", have_rows, rows), ("genes", have_genes, columns)):
        for told, found in (
            ("missing", [name for name in want if name not in set(have)]),
            ("unknown", [name for name in have if name not in set(want)]),
            ("repeated", pd.Index(have)[pd.Index(have).duplicated()].tolist()),
        ):
            if found:
                faults.append(f"{len(found)} {what} are {told}: {shorten(found)}")
    if not np.isfinite(values).all():
        row, gene = np.argwhere(~np.isfinite(values))[0]
        faults.append(
            f"{np.count_nonzero(~np.isfinite(values))} values are not finite, first at id {have_rows[row]}, "
            f"gene '{have_genes[gene]}'"
        )
    if faults:
        raise InputError(several(f"Prediction '{path}'", faults, fix="Write it with `--format openproblems`."))
    return values[np.ix_(pd.Index(have_rows).get_indexer(rows), pd.Index(have_genes).get_indexer(columns))]


def _text(file: h5py.File, name: str) -> str | None:
    """Read a text of `uns`; None where there is none."""
    entry = file.get(f"uns/{name}")
    value = entry[()] if isinstance(entry, h5py.Dataset) and entry.shape == () else None
    return value.decode() if isinstance(value, bytes) else None


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
