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

BLOCK = 64  # rows of a dense matrix at once
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
    cut, whole = _cut(count, length)
    hidden = _bytes(int(start[-1]), rng) < np.repeat(cut, length)
    if whole.any():
        hidden |= np.repeat(whole, length)
    _settle(hidden, start, count, rng)
    return hidden


def _cut(count: Ints, present: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Below which random byte an entry of each row is hidden at first (n,); and which rows are hidden whole (n,)."""
    share = np.divide(count, present, out=np.zeros(len(present)), where=present > 0)
    return np.minimum(np.round(share * LEVELS), LEVELS - 1).astype(np.uint8), count == present


def _bytes(count: int, rng: np.random.Generator) -> Ints:
    """Draw random bytes, eight at a time: (count,) uint8."""
    return rng.integers(0, 2**64 - 1, count // 8 + 1, dtype=np.uint64, endpoint=True).view(np.uint8)[:count]


def _settle(
    hidden: NDArray[np.bool_], start: Ints, count: Ints, rng: np.random.Generator, may: NDArray[np.bool_] | None = None
) -> None:
    """Show or hide random entries (k,) of rows that hide too many or too few, in place; only those that `may` (k,) be.

    A round draws about as many entries as it takes; of those in the wrong state the first ones count, none twice.
    """
    ends = list(zip(start[:-1], start[1:], strict=True))
    found = np.fromiter((np.count_nonzero(hidden[a:b]) for a, b in ends), np.int64, len(count))
    present = np.diff(start) if may is None else np.fromiter((np.count_nonzero(may[a:b]) for a, b in ends), np.int64)
    wrong = np.flatnonzero(found != count)
    more = found[wrong] < count[wrong]  # whether the row is to hide more
    lacks, length = np.abs(found[wrong] - count[wrong]), np.diff(start)[wrong]
    fitting = np.where(more, present[wrong] - found[wrong], found[wrong])  # entries in the wrong state
    while len(wrong):
        which = np.repeat(np.arange(len(wrong)), np.ceil(1.2 * lacks * length / fitting).astype(np.int64) + 2)
        at = start[wrong[which]] + rng.integers(length[which])
        fits = hidden[at] != more[which]
        if may is not None:
            fits &= may[at]
        at, which = at[fits], which[fits]
        first = np.sort(np.unique(at, return_index=True)[1])  # in the order they were drawn, row by row
        at, which = at[first], which[first]
        rank = np.arange(len(which)) - np.searchsorted(which, which)
        at, which = at[rank < lacks[which]], which[rank < lacks[which]]
        hidden[at] = ~hidden[at]
        taken = np.bincount(which, minlength=len(wrong))
        lacks, fitting = lacks - taken, fitting - taken
        left = lacks > 0
        wrong, more, lacks, length, fitting = (part[left] for part in (wrong, more, lacks, length, fitting))


def hide_sparse(x: csr_array, low: float, high: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Hide a share of the entries other than zero of each row (n, g): a flag for each of `x.data`; none are zeros."""
    return hide(x.indptr, hidden_counts(np.diff(x.indptr), low, high, rng), rng)


def hide_dense(x: Floats, low: float, high: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Hide a share of the entries other than zero of each row: (n, g) flags. No list of these entries is made."""
    hidden = np.empty(x.shape, bool)
    for first in range(0, len(x), BLOCK):
        may = x[first : first + BLOCK] != 0
        present = np.fromiter(map(np.count_nonzero, may), np.int64, len(may))
        count = hidden_counts(present, low, high, rng)
        cut, whole = _cut(count, present)
        flags = _bytes(may.size, rng).reshape(may.shape) < cut[:, None]
        flags[whole] = True
        flags &= may
        _settle(flags.reshape(-1), np.arange(len(may) + 1) * x.shape[1], count, rng, may.reshape(-1))
        hidden[first : first + BLOCK] = flags
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
