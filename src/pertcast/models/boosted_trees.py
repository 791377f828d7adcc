"""LightGBM: one booster per principal score of the response."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pertcast.config import Config
from pertcast.errors import NotFittedError
from pertcast.features.target_svd import TargetSVD
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.io.atomic import write_json
from pertcast.models.registry import register
from pertcast.types import Examples, Floats

if TYPE_CHECKING:
    from lightgbm import Booster

WORKERS = 2  # boosters trained at a time, one thread each: small data do not feed more threads


class BoostedTreesConfig(Config):
    blocks: tuple[str, ...] = ("cell_type_mean", "compound_residual_mean", "compound_count")  # feature blocks
    components: int = 40  # principal scores of the response, one booster each
    rounds: int = 100  # boosting rounds; fixed, because the rows to predict are unlike the training rows
    learning_rate: float = 0.05
    leaves: int = 8  # small trees: a few thousand rows at most
    min_rows: int = 20  # in a leaf
    row_share: float = 0.8  # of rows drawn for each tree
    feature_share: float = 0.3  # of features drawn for each tree
    weight_power: float = 0.5  # rows longer than the median count less, by this power: few strong ones else decide all
    l2: float = 10.0  # penalty of leaf values


@register("lightgbm", config=BoostedTreesConfig, seeded=True)
class BoostedTrees:
    """LightGBM on target statistics, one booster per SVD component of the target."""

    def __init__(self, config: BoostedTreesConfig):
        self.config = config
        self.svd: TargetSVD | None = None
        self.boosters: list[Booster] = []

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int = 0) -> BoostedTrees:
        import lightgbm

        self.svd = TargetSVD.fit(train.y, self.config.components)
        scores = self.svd.encode(train.y)  # (n, k)
        x = train.dense(self.config.blocks)  # (n, d)
        length = np.linalg.norm(train.y, axis=1)  # (n,)
        weight = (np.median(length) / np.maximum(length, np.median(length))) ** self.config.weight_power

        def boost(k: int) -> Booster:
            label = np.ascontiguousarray(scores[:, k])
            data = lightgbm.Dataset(x, label, weight=weight, params={"verbosity": -1})
            return lightgbm.train(self._parameters(seed + 1000 * k), data, self.config.rounds)

        with ThreadPoolExecutor(WORKERS) as pool:
            self.boosters = list(pool.map(boost, range(self.svd.k)))
        return self

    def _parameters(self, seed: int) -> dict[str, object]:
        c = self.config
        return {
            "objective": "regression",
            "learning_rate": c.learning_rate,
            "num_leaves": c.leaves,
            "min_data_in_leaf": c.min_rows,
            "bagging_fraction": c.row_share,
            "bagging_freq": 1,
            "feature_fraction": c.feature_share,
            "lambda_l2": c.l2,
            "num_threads": 1,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }

    def predict(self, rows: Examples) -> Floats:
        if self.svd is None:
            raise NotFittedError("BoostedTrees was asked to predict before `fit`. Call `fit` or `load` first.")
        x = rows.dense(self.config.blocks)
        scores = np.stack([booster.predict(x, num_threads=1) for booster in self.boosters], axis=1)  # (n, k)
        return self.svd.decode(scores)

    def save(self, folder: Path) -> None:
        if self.svd is None:
            raise NotFittedError("BoostedTrees was asked to save before `fit`. Call `fit` first.")
        save_arrays(folder, "svd", self.svd.arrays(), {})
        write_json(folder / "boosters.json", [booster.model_to_string() for booster in self.boosters])

    def load(self, folder: Path) -> BoostedTrees:
        import lightgbm

        self.svd = TargetSVD.from_arrays(load_arrays(folder, "svd")[0])
        texts = json.loads((folder / "boosters.json").read_text())
        self.boosters = [lightgbm.Booster(model_str=text) for text in texts]
        return self
