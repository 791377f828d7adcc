"""How different the members of a blend are: members whose errors differ gain from being averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pertcast.types import Floats
from pertcast.weights import Grams

SMALL = 1e-12


@dataclass(frozen=True, slots=True)
class Diversity:
    """What members share, pair by pair, averaged over out-of-fold rows."""

    names: tuple[str, ...]
    errors: Floats  # (m, m)  cosine of two members' errors of a row: 1 where they err alike
    predictions: Floats  # (m, m)  cosine of their predictions
    alone: Floats  # (m,)    mean row-wise RMSE

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            "names": list(self.names),
            "error_cosine": self.errors.round(4).tolist(),
            "prediction_cosine": self.predictions.round(4).tolist(),
            "mrrmse": dict(zip(self.names, map(float, self.alone), strict=True)),
        }

    def text(self) -> str:
        """One line per member, best first: how its errors go with those of each better one."""
        order = np.argsort(self.alone, kind="stable")
        width = max(map(len, self.names))
        lines = ["Cosine of the errors of two members (1: they err alike), best member first:"]
        for place, i in enumerate(order):
            shared = " ".join(f"{self.errors[i, j]:5.2f}" for j in order[:place])
            lines.append(f"  {self.names[i]:{width}s} {self.alone[i]:.4f} {shared}".rstrip())
        return "\n".join(lines)


def diversity(names: tuple[str, ...], grams: Grams) -> Diversity:
    """Compare members two by two on the rows of their inner products."""
    shared = grams.cross - grams.truth[:, :, None] - grams.truth[:, None, :] + grams.norm[:, None, None]
    alone = np.sqrt(np.maximum(np.einsum("nii->ni", shared), 0) / grams.n_genes).mean(0)
    return Diversity(names, _cosine(shared), _cosine(grams.cross), alone)


def _cosine(inner: Floats) -> Floats:
    """Mean over rows of inner products (n, m, m) divided by both lengths: (m, m)."""
    length = np.sqrt(np.maximum(np.einsum("nii->ni", inner), SMALL))
    return (inner / (length[:, :, None] * length[:, None, :])).mean(0)
