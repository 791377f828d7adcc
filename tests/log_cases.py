"""Simulated log values as cells, for tests of models that read them."""

import numpy as np
from scipy.sparse import csr_array

from pertcast.types import Cells


def log_cells(x: np.ndarray, condition, context=None) -> Cells:
    """Log values as cells; the context is told only if given."""
    n, g = x.shape
    return Cells(
        ids=names("cell", range(n)), genes=tuple(f"G{j:03d}" for j in range(g)), x=csr_array(x, dtype=np.float32),
        unit="log1p", condition=np.array(condition, dtype=object),
        context=names("all", np.zeros(n, int)) if context is None else np.array(context, dtype=object),
        batch=names("batch", np.zeros(n, int)), control="control",
    )  # fmt: skip


def dense(cells: Cells) -> np.ndarray:
    return cells.x.toarray().astype(float)


def three_types(seed: int, *, n: int = 900, g: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simulated log values of three types, control and treated (n, g), and types: the answer differs by type and cell.

    Ten genes form a module that a hidden activity of the cell drives; ten genes answer where that activity is high.
    """
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(99).gamma(2.0, 0.8, (3, g))
    shift = np.random.default_rng(98).normal(0.0, 0.15, (3, g))
    shift[:, :10] += 1.5
    kind, activity = rng.integers(0, 3, n), rng.normal(0, 1, n)
    treated = rng.permutation(n) % 2 == 1
    mean = base[kind]
    mean[:, 20:30] += 0.6 * activity[:, None]
    moved = mean + treated[:, None] * shift[kind]
    moved[:, 10:20] += (treated & (activity > 0))[:, None] * 2.0
    return np.maximum(moved + 0.3 * rng.standard_normal((n, g)), 0), treated, kind


def names(kind: str, numbers) -> np.ndarray:
    return np.array([f"{kind}{number}" for number in numbers], dtype=object)
