"""The forest kept as weights of rows, against scikit-learn; the spatial median, against a search."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from sklearn.ensemble import ExtraTreesRegressor

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.features.assemble import assemble
from pertcast.models.extra_trees import ExtraTreesConfig, _grow, leaf_of, row_weights, spatial_median
from pertcast.models.registry import build


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6)).astype(np.float32)
    return x, np.stack([x[:, 0] * x[:, 1], np.abs(x[:, 2]), x.sum(1)], axis=1), rng.uniform(0.2, 1, 80)


def test_weights_predict_as_scikit_learn_does(table):
    x, y, weight = table
    config = ExtraTreesConfig(trees=30, min_rows=2, feature_share=0.5)
    forest = {**_grow(x, y, weight, config=config, seed=3), "weight": weight}
    rng = np.random.default_rng(3)
    rng.permutation(80)  # the rows of the bag are drawn first
    state = int(rng.integers(2**31))
    oracle = ExtraTreesRegressor(30, min_samples_leaf=2, max_features=0.5, random_state=state)
    oracle.fit(x, y, sample_weight=weight)
    new = np.random.default_rng(1).normal(size=(25, 6)).astype(np.float32)
    assert_array_equal(leaf_of(forest, new) - forest["first"][:-1], oracle.apply(new))
    assert_allclose(row_weights(forest, new) @ y, oracle.predict(new), atol=1e-10)


def test_bags_leave_rows_out(table):
    """Every bag holds 80 % of the rows, and rows outside it count nothing in its trees."""
    x, y, weight = table
    forest = _grow(x, y, weight, config=ExtraTreesConfig(trees=7, bags=3, row_share=0.8), seed=0)
    assert forest["leaf"].shape == (80, 7)
    assert_array_equal((forest["leaf"] >= 0).sum(0), 64)
    out = forest["leaf"] < 0  # (n, trees)
    assert len({tuple(column) for column in out.T}) == 3
    forest["weight"] = np.where(np.arange(80) == 5, 1e9, 1.0)
    assert_allclose(row_weights(forest, x).sum(1), 1)
    assert (
        row_weights({**forest, "leaf": np.where(out.any(1)[:, None], -1, forest["leaf"])}, x)[:, out.any(1)].max() == 0
    )


def test_spatial_median_is_the_least_mean_distance():
    rng = np.random.default_rng(2)
    y, beyond, weights = rng.normal(size=(12, 3)) ** 3, rng.uniform(0, 1, 12), rng.dirichlet(np.ones(12), 4)

    def cost(center, weight):
        return weight @ np.sqrt(((y - center) ** 2).sum(1) + beyond)

    found = spatial_median(weights, y, beyond, steps=300)
    for center, weight in zip(found, weights, strict=True):
        oracle = minimize(cost, weight @ y, args=(weight,), method="BFGS", tol=1e-10)
        assert_allclose(cost(center, weight), oracle.fun, rtol=1e-6)
    few = [
        cost(center, weight)
        for center, weight in zip(spatial_median(weights, y, beyond, steps=1), weights, strict=True)
    ]
    mean = [cost(weight @ y, weight) for weight in weights]
    assert (np.array(few) <= mean).all()


def test_no_steps_take_the_mean():
    weights, y = np.array([[0.25, 0.75]]), np.array([[0.0, 4.0], [4.0, 0.0]])
    assert_array_equal(spatial_median(weights, y, np.zeros(2), steps=0), [[3.0, 1.0]])


def test_the_file_grows_with_rows_and_not_with_leaves_times_genes(tmp_path):
    """Ten times the trees may not cost ten times a table of leaf responses."""
    question, _ = make_question(types=6, compounds=12, genes=400)
    everything = np.arange(len(question))
    rows = assemble(question, FeatureConfig(), train=everything, valid=everything[:0])
    build("extra-trees", {"trees": 100}).fit(rows.train, seed=0).save(tmp_path)
    leaves_times_scores = 100 * (len(question) // 4) * min(120, len(question) - 1) * 4
    assert (tmp_path / "extra_trees.safetensors").stat().st_size < leaves_times_scores
