"""Genes that vary more than others of their mean."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from pertcast.types import Ints

BINS = 20
LEAST_CELLS = 10


def variable_genes(y: csr_array, most: int) -> Ints:
    """Choose genes by dispersion: their columns, ascending, at most so many.

    y   (n, g)  log1p values of training cells, and of no others

    Of genes seen in at least LEAST_CELLS cells: log of variance over mean of expm1 of the values, standardised within
    BINS bins of equal width of log1p mean; a gene alone in its bin, as the strongest ones are, gets 1.
    Source: Satija et al. 2015, doi:10.1038/nbt.3192.
    """
    values = csr_array(y, dtype=np.float64)
    values.data = np.expm1(values.data)
    n = values.shape[0]
    mean = values.mean(axis=0)
    variance = (values.multiply(values).mean(axis=0) - mean**2) * n / max(n - 1, 1)
    seen = np.bincount(values.indices, minlength=values.shape[1]) >= LEAST_CELLS
    genes = np.flatnonzero(seen & (variance > 0))
    spread, level = np.log(variance[genes] / mean[genes]), np.log1p(mean[genes])
    if not len(genes):
        return genes
    edges = np.linspace(level.min(), level.max(), BINS + 1)
    which = np.clip(np.searchsorted(edges, level, side="left") - 1, 0, BINS - 1)  # a bin holds its upper edge
    score = np.ones(len(genes))
    for number in set(which):
        rows = which == number
        if rows.sum() > 1:
            sd = spread[rows].std(ddof=1)
            score[rows] = (spread[rows] - spread[rows].mean()) / sd if sd > 0 else 0.0
    return np.sort(genes[np.argsort(-score, kind="stable")[:most]])
