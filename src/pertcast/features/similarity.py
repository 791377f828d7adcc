"""How alike two rows are: cell types by their responses, compounds by structure, profiles by direction.

All are kernels: positive semidefinite over any rows, so that their sums and products may serve in kernel ridge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pertcast.features.groups import group_sums
from pertcast.types import Block, Floats, Ints

OFFSET_ROWS = 5.0  # pseudo-rows that draw a cell type's mean response to the overall one before types are compared


def cell_type_similarity(
    of_type: Ints, of_compound: Ints, scores: Floats, *, types: int, prior_compounds: float = 20.0
) -> Floats:
    """Compare cell types by the compounds that both were measured with: (types, types), 1 on the diagonal.

    of_type      (n,)    0..types-1, of each training row
    of_compound  (n,)
    scores       (n, k)  principal scores of the centred response; more than one row of a pair count as their mean
    prior_compounds      pseudo-compounds that draw a pair of types to the mean correlation of all pairs

    Uncentred correlation of what the cell type's mean leaves, where each row counts by the root of its length, so that
    a few strong compounds do not decide alone. What all pairs have in common is taken off: 0 is an average pair.
    Types without a row are alike to themselves only.
    """
    pairs, of_pair = np.unique(np.stack([of_type, of_compound]), axis=1, return_inverse=True)
    values = _group_mean(scores, of_pair.ravel(), pairs.shape[1])  # (p, k)
    values = values - _group_mean(values, pairs[0], types, pseudo=OFFSET_ROWS)[pairs[0]]
    length = np.maximum(np.sqrt((values**2).sum(1)), 1e-12)
    codes = np.unique(pairs[1], return_inverse=True)[1]
    x = np.zeros((types, codes.max() + 1, values.shape[1]))  # (types, compounds, k), zero where not measured
    x[pairs[0], codes] = values / np.sqrt(length)[:, None]
    measured = np.zeros(x.shape[:2])
    measured[pairs[0], codes] = 1.0
    power = np.einsum("tck,tck->tc", x, x) @ measured.T  # (types, types) of the first over compounds of the second
    shared = measured @ measured.T
    flat = x.reshape(types, -1)
    correlation = flat @ flat.T / np.maximum(np.sqrt(power * power.T), 1e-12)
    return _above_average(correlation, shared * (1 - np.eye(types)), prior_compounds)


def tanimoto_kernel(left: Floats, right: Floats) -> Floats:
    """Tanimoto similarity of fingerprints of bits or of counts: (a, d), (b, d) -> (a, b) float64 in [0, 1].

    Common part over the whole of both; 0 where neither has any.
    Source: Ralaivola et al. 2005, doi:10.1016/j.neunet.2005.07.009.
    """
    left, right = left.astype(np.float64), right.astype(np.float64)
    common = left @ right.T
    whole = (left**2).sum(1)[:, None] + (right**2).sum(1)[None, :] - common
    return np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)


def structure_kernel(left: Sequence[Block], right: Sequence[Block]) -> Floats:
    """Mean Tanimoto similarity over several kinds of fingerprint: blocks of a and b rows -> (a, b) float64.

    Each structure is compared once, however many rows have it.
    """
    total = 0.0
    for one, other in zip(left, right, strict=True):
        rows, of_row = np.unique(one.index, return_inverse=True)
        columns, of_column = np.unique(other.index, return_inverse=True)
        total = total + tanimoto_kernel(one.table[rows], other.table[columns])[of_row][:, of_column]
    return total / len(left)


def context_kernel(left: Block, right: Block) -> Floats:
    """Alike in untreated cells: blocks of a and b rows -> (a, b) float64, 1 for equal ones.

    Gaussian, with the block's own unit as its width: exp(-1) for two cell types that have nothing in common. Each table
    row is compared once.
    """
    rows, of_row = np.unique(left.index, return_inverse=True)
    columns, of_column = np.unique(right.index, return_inverse=True)
    x, z = left.table[rows].astype(np.float64), right.table[columns].astype(np.float64)
    squared = ((x[:, None] - z[None]) ** 2).sum(-1)
    return np.exp(-squared / 2)[of_row][:, of_column]


def profile_kernel(left: Floats, right: Floats, *, unit: float) -> Floats:
    """Alike in direction, stronger for stronger profiles: (a, k), (b, k) -> (a, b) float64.

    The arc-cosine kernel of first order of the directions, times the roots of both lengths over `unit`: a wide layer
    of rectified units sees the directions so. 0 where a profile is zero: nothing is known of it.
    Source: Cho and Saul 2009, Kernel Methods for Deep Learning.
    """
    lengths = [np.sqrt((side.astype(np.float64) ** 2).sum(1)) for side in (left, right)]
    directions = [side / np.maximum(size, 1e-12)[:, None] for side, size in zip((left, right), lengths, strict=True)]
    cosine = np.clip(directions[0] @ directions[1].T, -1.0, 1.0)
    angle = np.arccos(cosine)
    alike = (np.sin(angle) + (np.pi - angle) * cosine) / np.pi  # 1 for one direction, 0 for opposite ones
    return alike * np.sqrt(np.outer(*lengths)) / unit


def _group_mean(values: Floats, group: Ints, groups: int, *, pseudo: float = 0.0) -> Floats:
    """Mean of each group's rows, and of `pseudo` rows of zeros: (n, k) -> (groups, k)."""
    return group_sums(values, group, groups) / np.maximum(np.bincount(group, minlength=groups) + pseudo, 1.0)[:, None]


def _above_average(correlation: Floats, shared: Floats, prior: float) -> Floats:
    """Shrink pairs to the average pair, take that off, and keep what is a kernel."""
    pairs = max(shared.sum(), 1.0)
    average = min(max(float((correlation * shared).sum() / pairs), 0.0), 0.99)
    shrunk = (correlation * shared + average * prior) / (shared + prior)
    kernel = np.maximum((shrunk - average) / (1 - average), 0.0)
    np.fill_diagonal(kernel, 1.0)
    values, vectors = np.linalg.eigh(kernel)
    kernel = (vectors * np.maximum(values, 1e-9)) @ vectors.T
    size = np.sqrt(np.diag(kernel))
    return kernel / np.outer(size, size)
