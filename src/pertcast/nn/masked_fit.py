"""Training of masked networks: genes hidden anew in every batch, and the one set of hidden genes that scores them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy.sparse import csr_array
from torch import Tensor

from pertcast.config import Config
from pertcast.nn.fit import FitSettings
from pertcast.nn.masked_net import DEPTH, MaskedNet, facts_of
from pertcast.nn.masking import hide_batch, hide_sparse
from pertcast.nn.sparse_rows import SparseBatch, SparseRows, sparse_pieces
from pertcast.types import Floats

BLOCK = 256  # cells a block of prediction
UNTOLD = 0.5  # share of training cells whose condition is not told
LEAST_TIES = 25  # genes of a cell at its smallest value: so many that the few visible ones show it as well


class Hiding(Config):
    """Which genes of a training cell are hidden and scored."""

    low: float = Field(0.5, ge=0, le=1)  # share of the genes, drawn per cell between the two
    high: float = Field(0.8, gt=0, le=1)
    zeros: bool = False  # whether genes observed at 0 may be hidden and are scored; as published they are not

    @model_validator(mode="after")
    def _rises(self) -> Hiding:
        if self.low > self.high:
            raise ValueError(f"low must be at most high, got {self.low} and {self.high}")
        return self


class MaskedTraining(FitSettings):
    """As found on held-out cells of measured blood cells."""

    epochs: int = Field(30, ge=1)
    batch: int = Field(64, ge=1)
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    patience: int | None = Field(10, ge=1)
    checkpoint_every: int = Field(1, ge=1)  # epochs, where a checkpoint is asked for


class MaskedLoss:
    """Mean squared error of hidden genes and of nothing else: those given with the rows, or drawn for this batch."""

    def __init__(self, hiding: Hiding) -> None:
        self.hiding = hiding

    def __call__(self, net: MaskedNet, rows: Mapping[str, Tensor | SparseBatch]) -> Tensor:
        batch, code = rows["x"], rows["code"]
        x = batch.dense()
        if "hidden" in rows:
            hidden = rows["hidden"].dense() > 0
        else:
            rng = np.random.default_rng(int(torch.randint(2**62, ())))
            hidden = hide_batch(batch, self.hiding.low, self.hiding.high, rng, zeros=self.hiding.zeros)
        if net.training:
            code = torch.where(torch.rand(len(code), device=code.device) < UNTOLD, -1, code)
        visible = x.masked_fill(hidden, 0.0)
        error = net(visible, hidden, facts_of(visible, hidden, net.mean), code) - x
        return (error.square() * hidden).sum() / hidden.sum().clamp_min(1)


def fixed_hidden(x: csr_array, hiding: Hiding, seed: int) -> csr_array:
    """Hidden genes that are drawn once and kept: (n, g), 1 where hidden."""
    rng = np.random.default_rng(seed)
    if hiding.zeros:
        whole = csr_array(np.ones(x.shape, np.float32))
        whole.data = hide_sparse(whole, hiding.low, hiding.high, rng).astype(np.float32)
    else:
        whole = csr_array(x, copy=True)
        whole.eliminate_zeros()
        whole.data = hide_sparse(whole, hiding.low, hiding.high, rng).astype(np.float32)
    whole.eliminate_zeros()
    return whole


def start_of(x: csr_array, *, zeros: bool) -> dict[str, Tensor]:
    """What a network begins with: `mean`, `rise` and `spread` (g,) of training genes over what may be hidden of them.

    The rise is the mean above a single count. A gene without an entry has 0 for both. The spread is a standard
    deviation, and where that is less than a quarter of its median over genes, this quarter.
    """
    n, g = x.shape
    count, sums = np.zeros(g), np.zeros((3, g))
    for part in sparse_pieces(x):
        least = np.repeat(_least(part), np.diff(part.indptr))
        count += np.bincount(part.indices, minlength=g)
        for total, values in zip(sums, (part.data, part.data - least, part.data**2), strict=True):
            total += np.bincount(part.indices, values, g)
    mean, rise, square = sums / np.maximum(n if zeros else count, 1)
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    some = spread[spread > 0]
    spread = np.maximum(spread, np.median(some) / 4 if len(some) else 1.0)
    parts = {"mean": mean, "rise": rise, "spread": spread}
    return {name: torch.tensor(part, dtype=torch.float32) for name, part in parts.items()}


def has_single_counts(x: csr_array) -> bool:
    """Whether many genes of a typical cell stand at its smallest value, as they do at a single count on a log scale."""
    ties = []
    for part in sparse_pieces(x):
        cells = np.diff(part.indptr)
        tied = part.data <= np.repeat(_least(part), cells) * (1 + 1e-5)
        ties.append(np.bincount(np.repeat(np.arange(len(cells)), cells), tied, len(cells)))
    return bool(np.median(np.concatenate(ties)) >= LEAST_TIES)


def _least(x: csr_array) -> Floats:
    """Smallest value of each row other than zero: (n,)."""
    least = np.zeros(x.shape[0], np.float32)
    some = np.diff(x.indptr) > 0
    if some.any():
        least[some] = np.minimum.reduceat(x.data, x.indptr[:-1][some])
    return least


@torch.no_grad()
def tell(net: MaskedNet, x: Floats, hidden: np.ndarray, *, depth: Tensor | None = None, code: int = -1) -> Floats:
    """What a network says of every gene of cells whose hidden genes it does not see: (n, g) -> (n, g).

    depth  (n, DEPTH) first facts of the cells; None: all facts are read off the visible genes
    """
    device, parts = net.mean.device, []
    for rows in _blocks(len(x)):
        mask = torch.tensor(hidden[rows], device=device)
        visible = torch.from_numpy(x[rows]).to(device).masked_fill(mask, 0.0)
        told = facts_of(visible, mask, net.mean)
        if depth is not None:
            told[:, :DEPTH] = depth[rows]
        codes = torch.full((len(visible),), code, device=device)
        parts.append(net(visible, mask, told, codes).cpu().numpy())
    return np.concatenate(parts)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(first, min(first + BLOCK, n)) for first in range(0, n, BLOCK))


def rows_of(x: csr_array, code: np.ndarray, hidden: csr_array | None = None) -> dict[str, SparseRows | Tensor]:
    """Dress cells as rows for training; with `hidden`, as rows that are always scored on the same genes."""
    rows: dict[str, SparseRows | Tensor] = {"x": SparseRows.of(x), "code": torch.from_numpy(code)}
    return rows if hidden is None else {**rows, "hidden": SparseRows.of(hidden)}
