"""A map of cells in two dimensions on which further states can be placed: principal axes, or UMAP where installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from scipy.linalg import eigh

from pertcast.cells.log_scale import as_log1p
from pertcast.cells.variable_genes import variable_genes
from pertcast.errors import InputError
from pertcast.types import Cells, Floats, Ints, Strings

MOST_GENES = 2000  # that vary most; their covariance is held whole
UMAP_AXES = 30  # principal axes that UMAP starts from


@dataclass(frozen=True, slots=True)
class Atlas:
    """Cells on a map, and what places others on the same map."""

    ids: Strings  # (n,)
    context: Strings  # (n,)
    condition: Strings  # (n,)
    places: Floats  # (n, 2)
    axes: tuple[str, str]  # names of the two
    genes: tuple[str, ...]  # (g,) that `place` expects
    columns: Ints  # (v,) of them that are read
    mean: Floats  # (v,)
    loadings: Floats  # (v, k)
    umap: Any = None  # fitted; None: the axes are the first two principal ones

    @classmethod
    def of(cls, cells: Cells, *, method: Literal["pca", "umap"] = "pca", seed: int = 0) -> Atlas:
        """Map cells by the genes that vary most among them, on the log1p scale.

        seed  of UMAP; principal axes take none, and point to the side where their largest loading is above 0
        Raises InputError for fewer than 3 cells, an unknown method, or UMAP where it is not installed.
        """
        if method not in ("pca", "umap"):
            raise InputError(f"An atlas is drawn by pca or umap, not by '{method}'.")
        if method == "umap" and find_spec("umap") is None:
            raise InputError("UMAP needs the package umap-learn, which is not installed. Install it, or use pca.")
        if len(cells) < 3:
            raise InputError(f"An atlas needs at least 3 cells, got {len(cells)}.")
        x = as_log1p(cells)
        columns = variable_genes(x, MOST_GENES)
        columns = columns if len(columns) >= 2 else np.arange(len(cells.genes))
        mean, loadings, shares = _principal(x[:, columns], UMAP_AXES if method == "umap" else 2)
        codes = x[:, columns] @ loadings - mean @ loadings
        umap, axes = None, tuple(f"principal axis {k + 1} ({shares[k]:.1%} of variance)" for k in range(2))
        if method == "umap":
            fitted = import_module("umap").UMAP(random_state=seed, n_jobs=1)  # no requirement: an extra where it is
            umap, axes = fitted.fit(codes), ("UMAP 1", "UMAP 2")
        places = codes if umap is None else np.asarray(umap.embedding_)
        return cls(
            cells.ids, cells.context, cells.condition, places, axes, cells.genes, columns, mean, loadings, umap
        )  # fmt: skip

    def place(self, x: Floats, genes: tuple[str, ...]) -> Floats:
        """Place states (..., g) of the named genes, on the log1p scale, on the map: (..., 2).

        Raises InputError for genes that the map reads and the states lack.
        """
        at = {gene: column for column, gene in enumerate(genes)}
        read = [self.genes[column] for column in self.columns]
        lost = [gene for gene in read if gene not in at]
        if lost:
            raise InputError(f"States lack {len(lost)} of {len(read)} genes that the atlas reads, first '{lost[0]}'.")
        codes = (x[..., [at[gene] for gene in read]] - self.mean) @ self.loadings
        if self.umap is None:
            return codes
        return np.asarray(self.umap.transform(codes.reshape(-1, codes.shape[-1]))).reshape(*codes.shape[:-1], 2)


def _principal(x: Any, count: int) -> tuple[Floats, Floats, Floats]:
    """Mean (v,), first principal axes (v, k) and their shares of the variance (k,) of sparse cells (n, v)."""
    n, v = x.shape
    mean = np.asarray(x.mean(axis=0)).ravel().astype(np.float64)
    covariance = (x.T @ x).toarray() / n - np.outer(mean, mean)
    k = min(count, v)
    values, axes = eigh(covariance, subset_by_index=(v - k, v - 1))
    values, axes = values[::-1], axes[:, ::-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(k)])
    return mean, axes, np.maximum(values, 0) / max(np.trace(covariance), 1e-12)
