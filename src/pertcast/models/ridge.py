"""Ridge regression of the principal scores of the response on any feature blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pertcast.config import Config
from pertcast.errors import NotFittedError
from pertcast.features.target_svd import TargetSVD
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.models.registry import register
from pertcast.types import Examples, Floats


class RidgeConfig(Config):
    blocks: tuple[str, ...] = ("cell_type", "compound")  # feature blocks, side by side
    components: int = 120  # principal scores of the response; more than a hundred hold what can be predicted
    reweightings: int = 3  # rounds in which each row counts by the inverse of its error: the score is a mean of roots
    penalties: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # tried by leave-one-out


@register("ridge", config=RidgeConfig, weighted=True)
class Ridge:
    """Ridge on feature blocks, target reduced by SVD, penalty by leave-one-out."""

    def __init__(self, config: RidgeConfig):
        self.config = config
        self.arrays: dict[str, Floats] = {}

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int = 0) -> Ridge:
        from sklearn.linear_model import RidgeCV

        svd = TargetSVD.fit(train.y, self.config.components)
        x = train.dense(self.config.blocks).astype(np.float64)  # (n, d)
        center, spread = x.mean(0), _block_spread(train, self.config.blocks)
        z, scores = (x - center) / spread, svd.encode(train.y)
        rest = svd.residual_norm2(train.y)  # (n,)
        trust = np.ones(len(z)) if train.weight is None else train.weight
        weight = trust
        for _ in range(self.config.reweightings + 1):
            fitted = RidgeCV(alphas=self.config.penalties).fit(z, scores, sample_weight=weight)
            error = np.sqrt(((fitted.predict(z).reshape(scores.shape) - scores) ** 2).sum(1) + rest)  # (n,)
            weight = trust * error.mean() / np.maximum(error, 1e-3 * error.mean())
        self.arrays = {
            **svd.arrays(),
            "center": center,
            "spread": spread,
            "coefficients": np.atleast_2d(fitted.coef_).T,  # (d, k)
            "intercept": np.atleast_1d(fitted.intercept_),  # (k,)
            "penalty": np.array([fitted.alpha_]),
        }
        return self

    def predict(self, rows: Examples) -> Floats:
        if not self.arrays:
            raise NotFittedError("Ridge was asked to predict before `fit`. Call `fit` or `load` first.")
        x = (rows.dense(self.config.blocks) - self.arrays["center"]) / self.arrays["spread"]
        scores = np.einsum("nd,dk->nk", x, self.arrays["coefficients"]) + self.arrays["intercept"]
        return TargetSVD.from_arrays(self.arrays).decode(scores)

    def save(self, folder: Path) -> None:
        save_arrays(folder, "ridge", self.arrays, {})

    def load(self, folder: Path) -> Ridge:
        self.arrays = load_arrays(folder, "ridge")[0]
        return self


def _block_spread(train: Examples, names: tuple[str, ...]) -> Floats:
    """One scale for all columns of a block (d,): columns keep their relative weight, blocks become comparable.

    One-hot columns keep 1, so that a rare compound is shrunk as its few rows ask for.
    """
    spreads = []
    for name in names:
        values = train.block(name).dense()
        one_hot = np.isin(values[: min(len(values), 100)], (0, 1)).all()
        root = 1.0 if one_hot else max(float(np.sqrt(values.var(0).mean() * values.shape[1])), 1e-6)
        spreads.append(np.full(values.shape[1], root))
    return np.concatenate(spreads) if spreads else np.ones(0)
