"""Principal axes of cells, log1p scale, without ever holding all cells densely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from pertcast.types import Floats

MOST = 50  # axes


@dataclass(frozen=True, slots=True)
class Axes:
    """Where cells are looked at from."""

    mean: Floats  # (g,)
    axes: Floats  # (k, g) orthonormal

    @classmethod
    def of(cls, y: csr_array) -> Axes:
        """Find the first principal axes of cells (n, g), MOST at most; the same whatever the order of genes."""
        from sklearn.decomposition import PCA

        sparse = MOST < min(y.shape)
        found = PCA(min(MOST, *y.shape), svd_solver="arpack" if sparse else "full", random_state=0)
        found.fit(csr_array(y, dtype=np.float64) if sparse else y.toarray().astype(np.float64))
        return cls(found.mean_, found.components_)

    def scores(self, y: csr_array | Floats) -> Floats:
        """Place cells on the axes: (n, g) -> (n, k)."""
        return y @ self.axes.T - self.mean @ self.axes.T
