"""Extremely randomised trees over what kriging expects of a row, kept as weights of training rows.

A forest's prediction is a weighted mean of its training rows: those that share leaves with the asked row. So the file
holds the trees and each training row's leaf, not a response per leaf, and any centre of the weighted rows may be taken.
The score is a mean of row-wise root mean squares, so the best single answer is their spatial median, not their mean.
Source: Geurts et al. 2006, doi:10.1007/s10994-006-6226-1; weights of rows: Meinshausen 2006 (quantile forests);
spatial median: Weiszfeld 1937, doi:10.1007/s10479-008-0352-z.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field
from scipy.sparse import csr_matrix

from pertcast.config import Config
from pertcast.errors import NotFittedError
from pertcast.features.kriging import KrigingRows, inputs
from pertcast.features.target_svd import TargetSVD
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.models.registry import register
from pertcast.types import Examples, Floats, Ints

ROWS = 512  # rows predicted at a time
NOT_IN_BAG = -1  # leaf of a training row that its tree did not see
NO_CHILD = -1
CLOSEST = 1e-6  # share of the mean distance below which a row is not drawn nearer


class ExtraTreesConfig(Config):
    kriged: bool = True  # learn what is left of kriging, and split on it; else on feature blocks alone
    blocks: tuple[str, ...] = ()  # feature blocks, beside what kriging says
    components: int = Field(120, ge=1)  # principal scores of the response: the trees fit all of them together
    width: int = Field(40, ge=1)  # leading scores that trees may split on
    trees: int = Field(200, ge=1)
    min_rows: int = Field(2, ge=1)  # in a leaf
    feature_share: float = Field(0.3, gt=0, le=1)  # of features tried at each split
    weight_power: float = Field(0.5, ge=0)  # rows longer than the median count less, by this power
    median_steps: int = Field(5, ge=0)  # towards the spatial median of the weighted rows; 0 takes their mean
    bags: int = Field(1, ge=1)  # forests of trees / bags each, on row subsets of their own
    row_share: float = Field(1.0, gt=0, le=1)  # of rows in each bag, drawn without replacement


@register("extra-trees", config=ExtraTreesConfig, seeded=True)
class ExtraTrees:
    """Randomised trees on what a compound did in other cell types, kriged to the one asked for."""

    def __init__(self, config: ExtraTreesConfig):
        self.config = config
        self.svd: TargetSVD | None = None
        self.kriging: KrigingRows | None = None
        self.forest: dict[str, Floats] = {}

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int = 0) -> ExtraTrees:
        self.svd = TargetSVD.fit(train.y, self.config.components)
        scores = self.svd.encode(train.y)  # (n, k)
        self.kriging = KrigingRows.fit(train, scores) if self.config.kriged else None
        described = self.kriging.inside() if self.kriging else None
        x, start = inputs(described, train, self.config.blocks, width=self.config.width)  # (n, d), (n, k)
        length = np.linalg.norm(train.y, axis=1)  # (n,)
        weight = (np.median(length) / np.maximum(length, max(np.median(length), 1e-12))) ** self.config.weight_power
        rest = scores - start  # (n, k)  what the trees are for
        self.forest = {
            **_grow(x, rest, weight, config=self.config, seed=seed),
            "rest": rest.astype(np.float32),
            "beyond": self.svd.residual_norm2(train.y),  # (n,)  squared distance that no score can mend
            "weight": weight,
        }
        return self

    def predict(self, rows: Examples) -> Floats:
        if self.svd is None:
            raise NotFittedError("ExtraTrees was asked to predict before `fit`. Call `fit` or `load` first.")
        described = self.kriging.outside(rows) if self.kriging else None
        x, start = inputs(described, rows, self.config.blocks, width=self.config.width)
        scores = start + np.zeros((len(x), self.svd.k))  # (r, k) float64
        for start in range(0, len(x), ROWS):
            part = slice(start, start + ROWS)
            weights = row_weights(self.forest, x[part])  # (part, n)
            scores[part] += spatial_median(
                weights, self.forest["rest"], self.forest["beyond"], steps=self.config.median_steps
            )
        return self.svd.decode(scores)

    def save(self, folder: Path) -> None:
        if self.svd is None:
            raise NotFittedError("ExtraTrees was asked to save before `fit`. Call `fit` first.")
        kriging = self.kriging.arrays() if self.kriging else {}
        facts = self.kriging.facts() if self.kriging else {}
        save_arrays(folder, "extra_trees", {**self.svd.arrays(), **kriging, **self.forest}, facts)

    def load(self, folder: Path) -> ExtraTrees:
        arrays, facts = load_arrays(folder, "extra_trees")
        self.svd = TargetSVD.from_arrays(arrays)
        self.kriging = KrigingRows.from_saved(arrays, facts) if facts else None
        own = {*self.svd.arrays(), *(self.kriging.arrays() if self.kriging else ())}
        self.forest = {name: array for name, array in arrays.items() if name not in own}
        return self


def _grow(x: Floats, y: Floats, weight: Floats, *, config: ExtraTreesConfig, seed: int) -> dict[str, Floats]:
    """Fit the trees; return them as flat arrays, and the leaf of every training row (n, trees)."""
    from sklearn.ensemble import ExtraTreesRegressor

    rng = np.random.default_rng(seed)
    trees, leaves = [], []
    for bag in range(min(config.bags, config.trees)):
        rows = np.sort(rng.permutation(len(x))[: max(1, round(config.row_share * len(x)))])
        forest = ExtraTreesRegressor(
            len(range(bag, config.trees, config.bags)),
            min_samples_leaf=config.min_rows,
            max_features=config.feature_share,
            random_state=int(rng.integers(2**31)),
        ).fit(x[rows], y[rows], sample_weight=weight[rows])
        leaf = np.full((len(x), len(forest.estimators_)), NOT_IN_BAG, np.int32)
        leaf[rows] = forest.apply(x[rows])
        trees += [estimator.tree_ for estimator in forest.estimators_]
        leaves.append(leaf)
    first = np.concatenate([[0], np.cumsum([tree.node_count for tree in trees])])  # (trees + 1,)
    in_bag = np.concatenate(leaves, axis=1)
    return {
        "first": first,
        "left": np.concatenate([tree.children_left for tree in trees]).astype(np.int32),
        "right": np.concatenate([tree.children_right for tree in trees]).astype(np.int32),
        "feature": np.concatenate([tree.feature for tree in trees]).astype(np.int32),
        "threshold": np.concatenate([tree.threshold for tree in trees]),
        "leaf": np.where(in_bag == NOT_IN_BAG, NOT_IN_BAG, in_bag + first[:-1]).astype(np.int32),
    }


def leaf_of(forest: dict[str, Floats], x: Floats) -> Ints:
    """Walk every row down every tree: (r, d) float32 -> (r, trees), node numbers over all trees."""
    start = forest["first"][:-1]
    node = np.tile(start, (len(x), 1))  # (r, trees)
    while True:
        below = forest["left"][node]
        inner = below != NO_CHILD
        if not inner.any():
            return node
        value = np.take_along_axis(x, np.maximum(forest["feature"][node], 0), axis=1)
        side = np.where(value <= forest["threshold"][node], below, forest["right"][node])
        node = np.where(inner, start + side, node)


def row_weights(forest: dict[str, Floats], x: Floats) -> Floats:
    """How much each training row counts for each asked row: (r, d) -> (r, n), rows sum to 1."""
    leaf = forest["leaf"]  # (n, trees)
    nodes, trees = int(forest["first"][-1]), leaf.shape[1]
    row, tree = np.nonzero(leaf != NOT_IN_BAG)
    at, weight = leaf[row, tree], forest["weight"][row]
    share = weight / np.bincount(at, weight, minlength=nodes)[at]
    members = csr_matrix((share, (at, row)), shape=(nodes, len(leaf)))
    asked = leaf_of(forest, x)
    reached = csr_matrix((np.ones(asked.size), asked.ravel(), np.arange(len(x) + 1) * trees), shape=(len(x), nodes))
    return (reached @ members).toarray() / trees


def spatial_median(weights: Floats, y: Floats, beyond: Floats, *, steps: int) -> Floats:
    """Centre of weighted rows that makes the weighted mean *distance* least: weights (r, n), y (n, k) -> (r, k).

    beyond  (n,)  squared distance of each row from all that its k columns can say
    steps         of Weiszfeld's iteration from the weighted mean; each lowers the mean distance
    """
    y = y.astype(np.float64)
    center = weights @ y
    for _ in range(steps):
        square = (center**2).sum(1)[:, None] + (y**2).sum(1) - 2 * center @ y.T + beyond  # (r, n)
        distance = np.sqrt(np.maximum(square, 0))
        near = CLOSEST * distance.mean(1, keepdims=True)
        pull = weights / np.maximum(distance, np.maximum(near, 1e-12))
        center = (pull @ y) / pull.sum(1, keepdims=True)
    return center
