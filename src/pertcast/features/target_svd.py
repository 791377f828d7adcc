"""Truncated SVD of the responses with an exact way back, so that models work on k scores instead of g genes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pertcast.errors import InputError
from pertcast.types import Floats

BLOCK = 1024  # genes (or rows) held in double precision at a time


@dataclass(frozen=True, slots=True, eq=False)
class TargetSVD:
    """k principal directions of a response table. Fitted on training rows only: it saw their `y`."""

    mean: Floats  # (g,)    float64; zeros if not centred
    scale: Floats | None  # (g,)    float64, standard deviation of each gene; None if not scaled
    components: Floats  # (k, g)  float32, orthonormal rows
    singular_values: Floats  # (k,)    float64, descending

    @classmethod
    def fit(cls, y: Floats, k: int, *, center: bool = True, scale: bool = False) -> TargetSVD:
        """Decompose y (n, g) exactly, through the Gram matrix of its smaller side, in double precision.

        k is capped at the rank of the (centred) table. Signs are fixed: the largest loading of each component is
        positive. No randomness, so no seed. Memory: y, the Gram matrix and a block of genes.
        Raises InputError if k < 1 or the table does not vary.
        """
        if k < 1:
            raise InputError(f"The number of target components is {k}; it must be 1 or more.")
        n, g = y.shape
        mean = y.mean(axis=0, dtype=np.float64) if center else np.zeros(g)
        spread = _spread(y) if scale else None
        gram = _row_gram(y, mean, spread) if n <= g else _gene_gram(y, mean, spread)
        values, vectors = _leading(gram, k, table=(n, g))
        singular = np.sqrt(values)
        if n > g:
            components = vectors.T.astype(np.float32)  # (k, g)
        else:
            components = np.empty((len(values), g), np.float32)
            for genes in _blocks(g):
                components[:, genes] = (vectors.T @ _prepared(y, mean, spread, genes)) / singular[:, None]
        largest = np.abs(components).argmax(axis=1)
        signs = np.sign(components[np.arange(len(components)), largest])
        return cls(mean, spread, components * signs[:, None], singular)

    @property
    def k(self) -> int:
        return len(self.components)

    def encode(self, y: Floats) -> Floats:
        """Project responses on the components: (n, g) -> scores (n, k) float32."""
        scores = np.zeros((len(y), self.k))
        for genes in _blocks(y.shape[1]):
            scores += _prepared(y, self.mean, self.scale, genes) @ self.components[:, genes].T.astype(np.float64)
        return scores.astype(np.float32)

    def decode(self, scores: Floats) -> Floats:
        """Return to genes: (n, k) -> (n, g) float32, in the unit of `y`."""
        y = np.empty((len(scores), len(self.mean)), np.float32)
        for genes in _blocks(y.shape[1]):
            y[:, genes] = self._decoded(scores, genes)
        return y

    def residual_norm2(self, y: Floats) -> Floats:
        """Squared norm over genes of what the components cannot express of each row: (n, g) -> (n,).

        Unscaled, the squared error of any predicted scores is exactly the error of the scores plus this:
        `rmse_i ** 2 == (sum_k (s_ik - p_ik) ** 2 + residual_norm2_i) / g`.
        """
        scores, total = self.encode(y), np.zeros(len(y))
        for genes in _blocks(y.shape[1]):
            total += ((y[:, genes] - self._decoded(scores, genes)) ** 2).sum(axis=1)
        return total

    def _decoded(self, scores: Floats, genes: slice) -> Floats:
        z = scores.astype(np.float64) @ self.components[:, genes].astype(np.float64)  # (n, block)
        return (z if self.scale is None else z * self.scale[genes]) + self.mean[genes]

    def arrays(self) -> dict[str, Floats]:
        """Everything needed to rebuild it, by name, for saving."""
        arrays = {"mean": self.mean, "components": self.components, "singular_values": self.singular_values}
        return arrays if self.scale is None else {**arrays, "scale": self.scale}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> TargetSVD:
        return cls(arrays["mean"], arrays.get("scale"), arrays["components"], arrays["singular_values"])


def _blocks(width: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, width)) for start in range(0, width, BLOCK))


def _spread(y: Floats) -> Floats:
    """Standard deviation of each gene (g,); 1 for a gene that does not vary."""
    spread = np.concatenate([y[:, genes].std(axis=0, dtype=np.float64) for genes in _blocks(y.shape[1])])
    return np.where(spread > 0, spread, 1.0)


def _prepared(y: Floats, mean: Floats, scale: Floats | None, genes: slice) -> Floats:
    z = y[:, genes] - mean[genes]  # (n, block) float64
    return z if scale is None else z / scale[genes]


def _row_gram(y: Floats, mean: Floats, scale: Floats | None) -> Floats:
    gram = np.zeros((len(y), len(y)))
    for genes in _blocks(y.shape[1]):
        z = _prepared(y, mean, scale, genes)
        gram += z @ z.T
    return gram


def _gene_gram(y: Floats, mean: Floats, scale: Floats | None) -> Floats:
    gram = np.zeros((y.shape[1], y.shape[1]))
    for rows in _blocks(len(y)):
        z = _prepared(y[rows], mean, scale, slice(None))
        gram += z.T @ z
    return gram


def _leading(gram: Floats, k: int, *, table: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return the k largest eigenvalues (k,) above rounding error and their vectors (m, k), descending."""
    values, vectors = np.linalg.eigh(gram)  # ascending
    noise = max(table) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    keep = min(k, int((values > noise).sum()))
    if not keep:
        raise InputError(f"The responses ({table[0]} rows x {table[1]} genes) do not vary; nothing to decompose.")
    return values[::-1][:keep], vectors[:, ::-1][:, :keep]
