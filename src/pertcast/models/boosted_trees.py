"""LightGBM: one booster per principal score of what kriging leaves of the response, trained side by side."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pertcast.config import Config
from pertcast.errors import NotFittedError
from pertcast.features.kriging import KrigingRows, inputs
from pertcast.features.target_svd import TargetSVD
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.io.atomic import write_json
from pertcast.models.registry import register
from pertcast.types import Examples, Floats, Ints

if TYPE_CHECKING:
    from lightgbm import Booster

WORKERS = 2  # boosters trained at a time, one thread each: small data do not feed more threads


class BoostedTreesConfig(Config):
    kriged: bool = True  # learn what is left of kriging, and split on it; else on feature blocks alone
    blocks: tuple[str, ...] = ()  # feature blocks, beside what kriging says
    components: int = Field(120, ge=1)  # principal scores of the response
    boosted: int = Field(40, ge=1)  # of them the leading ones get a booster each; the others stay as kriging has them
    width: int = Field(40, ge=1)  # leading scores that trees may split on
    rounds: int = Field(100, ge=1)  # of boosting; fixed, because the rows to predict are unlike the training rows
    learning_rate: float = 0.05
    leaves: int = 8  # small trees: a few thousand rows at most
    min_rows: int = 20  # in a leaf
    row_share: float = 0.8  # of rows drawn for each tree
    feature_share: float = 0.3  # of features drawn for each tree
    weight_power: float = 0.5  # rows longer than the median count less, by this power: few strong ones else decide all
    l2: float = 10.0  # penalty of leaf values
    bags: int = Field(1, ge=1)  # boosters of each score, with seeds and row subsets of their own
    bag_share: float = Field(0.9, gt=0, le=1)  # of rows in each bag, drawn without replacement; 1 bag holds all
    average: Literal["mean", "median"] = "mean"  # of the bags


@register("lightgbm", config=BoostedTreesConfig, seeded=True)
class BoostedTrees:
    """LightGBM on what a compound did in other cell types, one booster per SVD component of the target."""

    def __init__(self, config: BoostedTreesConfig):
        self.config = config
        self.svd: TargetSVD | None = None
        self.kriging: KrigingRows | None = None
        self.boosters: list[Booster] = []  # bag by bag, in each the leading scores

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int = 0) -> BoostedTrees:
        import lightgbm

        c = self.config
        self.svd = TargetSVD.fit(train.y, c.components)
        scores = self.svd.encode(train.y)  # (n, k)
        self.kriging = KrigingRows.fit(train, scores) if c.kriged else None
        x, start = inputs(self.kriging.inside() if self.kriging else None, train, c.blocks, width=c.width)
        rest = scores - start  # (n, k)  what the boosters are for
        length = np.linalg.norm(train.y, axis=1)  # (n,)
        weight = (np.median(length) / np.maximum(length, np.median(length))) ** c.weight_power
        bags = _bags(len(x), c, seed)

        def boost(member: tuple[int, int]) -> Booster:
            bag, k = member
            rows = bags[bag]
            label = np.ascontiguousarray(rest[rows, k])
            data = lightgbm.Dataset(x[rows], label, weight=weight[rows], params={"verbosity": -1})
            return lightgbm.train(self._parameters(seed + 1000 * k + 10**6 * bag), data, c.rounds)

        members = [(bag, k) for bag in range(c.bags) for k in range(min(c.boosted, self.svd.k))]
        with ThreadPoolExecutor(WORKERS) as pool:
            self.boosters = list(pool.map(boost, members))
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
        described = self.kriging.outside(rows) if self.kriging else None
        x, start = inputs(described, rows, self.config.blocks, width=self.config.width)
        each = np.stack([booster.predict(x, num_threads=1) for booster in self.boosters], axis=1)
        each = each.reshape(len(x), self.config.bags, -1)  # (r, bags, boosted)
        boosted = np.median(each, axis=1) if self.config.average == "median" else each.mean(axis=1)
        scores = start + np.zeros((len(x), self.svd.k))  # (r, k)
        scores[:, : boosted.shape[1]] += boosted
        return self.svd.decode(scores)

    def save(self, folder: Path) -> None:
        if self.svd is None:
            raise NotFittedError("BoostedTrees was asked to save before `fit`. Call `fit` first.")
        kriging = self.kriging.arrays() if self.kriging else {}
        facts = self.kriging.facts() if self.kriging else {}
        save_arrays(folder, "start", {**self.svd.arrays(), **kriging}, facts)
        write_json(folder / "boosters.json", [booster.model_to_string() for booster in self.boosters])

    def load(self, folder: Path) -> BoostedTrees:
        import lightgbm

        arrays, facts = load_arrays(folder, "start")
        self.svd = TargetSVD.from_arrays(arrays)
        self.kriging = KrigingRows.from_saved(arrays, facts) if facts else None
        texts = json.loads((folder / "boosters.json").read_text())
        self.boosters = [lightgbm.Booster(model_str=text) for text in texts]
        return self


def _bags(n: int, config: BoostedTreesConfig, seed: int) -> list[Ints]:
    """Rows of each bag, in order: all of them where there is but one."""
    if config.bags == 1:
        return [np.arange(n)]
    rng = np.random.default_rng(seed)
    size = max(1, round(config.bag_share * n))
    return [np.sort(rng.permutation(n)[:size]) for _ in range(config.bags)]
