"""Cells as networks on a log scale read them, and the way back to the unit they came in."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from scipy.sparse import csr_array

from pertcast.config import Config
from pertcast.io.arrays import row_pieces
from pertcast.types import Cells, Floats

TOTAL = 1e4  # counts a cell is scaled to before log1p
FREE = ("device", "checkpoint_every")  # settings of a training that name no other training


def as_log1p(cells: Cells, totals: Floats | None = None) -> csr_array:
    """Return log1p of counts per 10,000; log1p values as they are: (n, g) float32.

    totals  (n,) counts of each cell over all genes, where the file has fewer; None: the sum of the given counts
    """
    if cells.unit == "log1p":
        return csr_array(cells.x, dtype=np.float32)
    x = csr_array(cells.x)
    scale = TOTAL / (total_counts(cells) if totals is None else totals)
    values = np.empty(x.nnz, np.float32)
    for rows in row_pieces(x.indptr):  # numbers of double precision take twice the memory of all else
        part = slice(x.indptr[rows.start], x.indptr[rows.stop])
        values[part] = np.log1p(x.data[part] * np.repeat(scale[rows], np.diff(x.indptr[rows.start : rows.stop + 1])))
    return csr_array((values, x.indices.copy(), x.indptr.copy()), shape=x.shape)


def from_log1p(x: Floats, cells: Cells, *, rng: np.random.Generator | None = None) -> Floats:
    """Turn log1p values (n, g) back into the unit of the cells they stand for: (n, g) float32.

    rng  counts are rounded up or down by chance, so that their mean stays; None: expected counts
    Of counts, a cell keeps the depth it was measured at.
    """
    if cells.unit == "log1p":
        return x.astype(np.float32)
    counts = np.maximum(np.expm1(x.astype(np.float64)), 0) * total_counts(cells)[:, None] / TOTAL
    if rng is not None:
        whole = np.round(counts)  # a value that is one count up to rounding is that count
        counts = np.where(np.abs(counts - whole) < 1e-3, whole, np.floor(counts + rng.random(counts.shape)))
    return counts.astype(np.float32)


def single_counts(cells: Cells) -> Floats:
    """Value of a single count in each cell on the log1p scale; of log1p values the smallest above 0: (n, 1).

    It is 0 in a cell without any.
    """
    if cells.unit == "counts":
        return np.log1p(TOTAL / total_counts(cells))[:, None].astype(np.float32)
    x = csr_array(cells.x)
    parts = (x.data[a:b] for a, b in zip(x.indptr, x.indptr[1:], strict=False))
    least = np.array([part[part > 0].min(initial=np.inf) for part in parts])
    return np.where(np.isinf(least), 0, least)[:, None].astype(np.float32)


def total_counts(cells: Cells) -> Floats:
    """Counts of each cell, at least 1: (n,)."""
    return np.maximum(np.asarray(cells.x.sum(axis=1), dtype=np.float64).ravel(), 1.0)


def checkpoint_digest(settings: Config, cells: Cells, seed: int, *more: Floats) -> str:
    """Name of settings, seed and cells: whoever has the same may take a checkpoint of training up.

    settings  with a group `training`; its device, and how often it is saved, are free
    more      arrays that training follows from as well
    """
    told = settings.model_dump(mode="json")
    for free in FREE:
        told["training"].pop(free)
    said = [told, seed, cells.genes, cells.unit, cells.control, *map(list, (cells.condition, cells.context))]
    digest = hashlib.sha256(json.dumps(said).encode())
    for part in (cells.x.data, cells.x.indices, cells.x.indptr, *more):
        digest.update(np.ascontiguousarray(part))
    return digest.hexdigest()
