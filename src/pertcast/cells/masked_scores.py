"""How well hidden genes are told: errors on one fixed set of hidden genes, beside what needs no network (S001-04)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from pertcast.types import Cells, Floats


@dataclass(frozen=True, slots=True)
class MaskedScores:
    """Mean squared errors on the log1p scale."""

    masked: float  # over hidden genes, each entry of each cell alike
    masked_by_cell: float  # mean over cells of each cell's error over its hidden genes
    nonzero: float  # over all expressed genes, hidden or seen
    zero: float | None  # over genes observed at 0, which are neither hidden nor trained on; None where there are none


def masked_scores(*, x: Floats, hidden: NDArray[np.bool_], said: Floats) -> MaskedScores:
    """Score what was said of cells: x, hidden and said are (n, g). Cells without hidden genes count in no mean."""
    error = np.square(said.astype(np.float64) - x)
    count = hidden.sum(axis=1)
    by_cell = (error * hidden).sum(axis=1)[count > 0] / count[count > 0]
    zero = float(error[x == 0].mean()) if (x == 0).any() else None
    return MaskedScores(float(error[hidden].mean()), float(by_cell.mean()), float(error[x != 0].mean()), zero)


@dataclass(frozen=True, slots=True)
class GeneMeans:
    """The mean of each gene over the training entries other than zero: the baseline of system 001."""

    mean: Floats  # (g,)

    @classmethod
    def of(cls, x: csr_array) -> GeneMeans:
        """Measure them in training cells (n, g) on the log1p scale; a gene that none expresses has 0."""
        count = np.bincount(x.indices, x.data != 0, minlength=x.shape[1])
        return cls(np.bincount(x.indices, x.data, minlength=x.shape[1]) / np.maximum(count, 1))

    def tell(self, visible: Floats) -> Floats:
        """The same for every cell: (n, g)."""
        return np.broadcast_to(self.mean, visible.shape)

    def tell_with_cell(self, visible: Floats) -> Floats:
        """Gene mean plus how far the cell's visible genes other than zero lie above theirs, on average: (n, g)."""
        seen = visible != 0
        above = ((visible - self.mean) * seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        return self.mean + above[:, None]


def seen_genes(train: Cells, least: int) -> tuple[str, ...]:
    """Genes that at least so many training cells express, in their order."""
    cells = np.bincount(train.x.indices, train.x.data != 0, minlength=len(train.genes))
    return tuple(gene for gene, n in zip(train.genes, cells, strict=True) if n >= least)
