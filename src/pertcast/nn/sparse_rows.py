"""Rows of a sparse matrix on a device: a batch is cut from them without ever holding the whole matrix densely."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from scipy.sparse import csr_array
from torch import Tensor

from pertcast.io.arrays import row_pieces

MOST_ON_DEVICE = 4_000_000_000  # bytes of rows; of more, only batches go to a GPU


@dataclass(frozen=True, slots=True)
class SparseBatch:
    """A few rows: their values other than zero, and where they stand."""

    values: Tensor  # (k,) float
    place: Tensor  # (k,) int64: row * g + column
    shape: tuple[int, int]  # (b, g)

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def column(self) -> Tensor:
        """Which column each value stands in: (k,)."""
        return self.place % self.shape[1]

    def dense(self) -> Tensor:
        """(b, g), zeros filled in."""
        flat = torch.zeros(self.shape[0] * self.shape[1], dtype=self.values.dtype, device=self.device)
        flat[self.place] = self.values
        return flat.view(self.shape)


@dataclass(frozen=True, slots=True)
class SparseRows:
    """A compressed sparse row matrix that is indexed like a tensor of n rows."""

    start: Tensor  # (n + 1,) int64: where each row begins in `values`
    column: Tensor  # (k,) int64
    values: Tensor  # (k,) float
    width: int  # g
    target: torch.device | None = None  # where batches go, if not where the rows are

    @classmethod
    def of(cls, matrix: csr_array, *, dtype: torch.dtype = torch.float32) -> SparseRows:
        """Take over a scipy matrix; explicit zeros are dropped."""
        matrix = csr_array(matrix)
        if matrix.nnz and not matrix.data.all():
            matrix = matrix.copy()
            matrix.eliminate_zeros()
        parts = (torch.as_tensor(part.astype("int64", copy=False)) for part in (matrix.indptr, matrix.indices))
        return cls(*parts, torch.as_tensor(matrix.data).to(dtype), matrix.shape[1])

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self.values.device if self.target is None else self.target

    def to(self, device: torch.device) -> SparseRows:
        """Move them; rows that would fill a GPU stay in main memory, or on disk, and their batches move one by one."""
        if device.type != "cpu" and self.values.nbytes + self.column.nbytes > MOST_ON_DEVICE:
            return replace(self, target=device)
        return SparseRows(self.start.to(device), self.column.to(device), self.values.to(device), self.width)

    def __getitem__(self, rows: Tensor) -> SparseBatch:
        """Cut rows out as a batch, in the given order: (b,) int64."""
        row, source = self._entries(rows)
        values, place = self.values[source], row * self.width + self.column[source]
        return SparseBatch(values.to(self.device), place.to(self.device), (len(rows), self.width))

    def rows(self, rows: Tensor) -> SparseRows:
        """Cut rows out as such a matrix, in the given order: (b,) int64."""
        row, source = self._entries(rows)
        start = torch.zeros(len(rows) + 1, dtype=torch.int64, device=row.device)
        start[1:] = torch.cumsum(torch.bincount(row, minlength=len(rows)), 0)
        return SparseRows(start, self.column[source], self.values[source], self.width).to(self.device)

    def _entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the rows an entry belongs to, and where it lies in `values`: (k,) each."""
        rows = rows.to(self.start.device)
        first = self.start[rows]  # (b,)
        length = self.start[rows + 1] - first
        row = torch.repeat_interleave(length)
        before = torch.cumsum(length, 0) - length
        return row, torch.arange(len(row), device=row.device) - before[row] + first[row]


def sparse_pieces(x: csr_array) -> Iterator[csr_array]:
    """Cut a matrix that may lie on disk into rows that are looked at together: (b, g) each, in order."""
    for rows in row_pieces(x.indptr):
        first, last = x.indptr[rows.start], x.indptr[rows.stop]
        ends = x.indptr[rows.start : rows.stop + 1] - first
        yield csr_array((x.data[first:last], x.indices[first:last], ends), shape=(len(ends) - 1, x.shape[1]))
