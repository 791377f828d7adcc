"""Which entries of a cell are hidden: a number drawn per cell, then that many of them, uniformly, none twice."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from pertcast.errors import InputError
from pertcast.nn.sparse_rows import SparseBatch
from pertcast.types import Floats, Ints

LEVELS = 256  # of a random byte


def hidden_counts(present: Ints, low: float, high: float, rng: np.random.Generator) -> Ints:
    """Draw how many of the entries of each row (n,) are hidden: (n,), uniform over what lies in [low, high] of them.

    A row so short that no whole number lies in between hides the number next to the middle.
    Raises InputError unless 0 <= low <= high <= 1.
    """
    if not 0 <= low <= high <= 1:
        raise InputError(f"Hidden shares must rise from at least 0 to at most 1, got {low:g} to {high:g}.")
    least = np.ceil(low * present - 1e-9).astype(np.int64)
    most = np.floor(high * present + 1e-9).astype(np.int64)
    middle = np.round((low + high) / 2 * present).astype(np.int64)
    none = least > most
    return rng.integers(np.where(none, middle, least), np.where(none, middle, most) + 1)


def hide(start: Ints, count: Ints, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Hide `count` (n,) entries of each row, every set of so many equally likely: (k,) flags.

    start  (n + 1,)  where the entries of each row begin among all k

    Every entry is first hidden by a random byte, independently; then rows that have too many or too few show or hide
    random ones. Given its size a random set is uniform, and stays so when random members leave or join.
    """
    length = np.diff(start)
    share = np.divide(count, length, out=np.zeros(len(length)), where=length > 0)
    cut = np.minimum(np.round(share * LEVELS), LEVELS - 1).astype(np.uint8)
    hidden = np.frombuffer(rng.bytes(int(start[-1])), np.uint8) < np.repeat(cut, length)
    hidden |= np.repeat(count == length, length)
    some = length > 0
    found = np.zeros(len(length), np.int64)
    if some.any():
        found[some] = np.add.reduceat(hidden.view(np.uint8), start[:-1][some], dtype=np.int64)
    wrong = np.flatnonzero(found != count)
    more = found[wrong] < count[wrong]  # whether the row is to hide more
    lacks = np.abs(found[wrong] - count[wrong])
    while len(wrong):
        which = np.repeat(np.arange(len(wrong)), lacks)
        at = start[wrong[which]] + rng.integers(length[wrong[which]])
        fits = hidden[at] != more[which]
        at, first = np.unique(at[fits], return_index=True)
        hidden[at] = ~hidden[at]
        lacks -= np.bincount(which[fits][first], minlength=len(wrong))
        left = lacks > 0
        wrong, more, lacks = wrong[left], more[left], lacks[left]
    return hidden


def hide_sparse(x: csr_array, low: float, high: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Hide a share of the entries other than zero of each row (n, g): a flag for each of `x.data`; none are zeros."""
    return hide(x.indptr, hidden_counts(np.diff(x.indptr), low, high, rng), rng)


def hide_dense(x: Floats, low: float, high: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Hide a share of the entries other than zero of each row: (n, g) flags; the same as of the matrix made sparse."""
    hidden, start = np.zeros(x.shape, bool), np.zeros(len(x) + 1, np.int64)
    for row, values in enumerate(x):
        start[row + 1] = start[row] + np.count_nonzero(values)
    flags = hide(start, hidden_counts(np.diff(start), low, high, rng), rng)
    for row, values in enumerate(x):
        hidden[row, values != 0] = flags[start[row] : start[row + 1]]
    return hidden


def hide_batch(batch: SparseBatch, low: float, high: float, rng: np.random.Generator, *, zeros: bool = False) -> Tensor:
    """Hide a share of the entries of each row of a batch on its device: (b, g) flags.

    zeros  whether zeros are hidden as well, at the same share
    """
    b, g = batch.shape
    if zeros:
        flags = hide(np.arange(b + 1) * g, hidden_counts(np.full(b, g), low, high, rng), rng)
        return torch.from_numpy(flags).to(batch.device).view(b, g)
    present = torch.bincount(batch.place // g, minlength=b).cpu().numpy()
    flags = hide(np.concatenate([[0], np.cumsum(present)]), hidden_counts(present, low, high, rng), rng)
    hidden = torch.zeros(b * g, dtype=torch.bool, device=batch.device)
    hidden[batch.place] = torch.from_numpy(flags).to(batch.device)
    return hidden.view(b, g)
