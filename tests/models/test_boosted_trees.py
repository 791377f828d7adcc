"""Boosters trained side by side, against LightGBM called one by one; bags, against numpy."""

import lightgbm
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.errors import InputError
from pertcast.features.assemble import assemble
from pertcast.features.target_svd import TargetSVD
from pertcast.models import boosted_trees
from pertcast.models.registry import build

BLOCKS = ("cell_type", "compound_mean")
PLAIN = {"kriged": False, "blocks": BLOCKS, "components": 6, "boosted": 6, "rounds": 15, "min_rows": 3}


@pytest.fixture(scope="module")
def rows():
    question, _ = make_question(types=5)
    everything = np.arange(len(question))
    features = FeatureConfig(blocks=BLOCKS, components=8)
    return assemble(question, features, train=everything, valid=everything[:0])


def test_each_score_is_the_booster_trained_alone(rows):
    """S004: one booster per principal score, called directly and in order, gives the same predictions."""
    model = build("lightgbm", {**PLAIN, "weight_power": 0.0}).fit(rows.train, seed=4)
    svd = TargetSVD.fit(rows.train.y, 6)
    x, scores = rows.train.dense(BLOCKS), svd.encode(rows.train.y)
    columns = []
    for k in range(6):
        settings = {
            "learning_rate": 0.05, "num_leaves": 8, "min_data_in_leaf": 3, "bagging_fraction": 0.8, "bagging_freq": 1,
            "feature_fraction": 0.3, "lambda_l2": 10.0, "seed": 4 + 1000 * k, "deterministic": True,
            "force_row_wise": True, "num_threads": 1, "verbosity": -1,
        }  # fmt: skip
        data = lightgbm.Dataset(x, np.ascontiguousarray(scores[:, k]), weight=np.ones(len(x)))
        columns.append(lightgbm.train(settings, data, 15).predict(rows.test.dense(BLOCKS)))
    assert_allclose(model.predict(rows.test), svd.decode(np.stack(columns, axis=1)), atol=1e-6)


def test_workers_change_nothing(rows, monkeypatch):
    """R38: one booster at a time or four, same bytes."""
    predicted = []
    for workers in (1, 4):
        monkeypatch.setattr(boosted_trees, "WORKERS", workers)
        predicted.append(build("lightgbm", PLAIN).fit(rows.train, seed=0).predict(rows.test))
    assert_array_equal(*predicted)


def test_scores_without_a_booster_stay_as_kriging_has_them(rows):
    """Of eight scores three are boosted: along the other directions the prediction is what kriging expects."""
    model = build("lightgbm", {"components": 8, "boosted": 3, "min_rows": 3}).fit(rows.train, seed=0)
    expected = model.kriging.outside(rows.test).expected  # (r, 8)
    got = model.svd.encode(model.predict(rows.test))
    assert_allclose(got[:, 3:], expected[:, 3:], atol=1e-4)
    assert np.abs(got[:, :3] - expected[:, :3]).max() > 0.05
    assert len(model.boosters) == 3


@pytest.mark.parametrize("average", ["mean", "median"])
def test_bags_are_averaged(rows, average):
    model = build("lightgbm", {**PLAIN, "bags": 3, "bag_share": 0.8, "average": average}).fit(rows.train, seed=0)
    x = rows.test.dense(BLOCKS)
    each = np.array([[model.boosters[6 * bag + k].predict(x) for k in range(6)] for bag in range(3)])  # (3, 6, r)
    oracle = getattr(np, average)(each, axis=0).T
    assert_allclose(model.predict(rows.test), model.svd.decode(oracle), atol=1e-6)
    assert np.ptp(each, axis=0).max() > 0


def test_bags_hold_their_share_of_rows():
    bags = boosted_trees._bags(50, boosted_trees.BoostedTreesConfig(bags=4, bag_share=0.9), seed=0)
    assert [len(np.unique(rows)) for rows in bags] == [45] * 4
    assert len({tuple(rows) for rows in bags}) == 4


@pytest.mark.parametrize("name", ["lightgbm", "extra-trees"])
def test_nothing_to_learn_from_is_refused(rows, name):
    with pytest.raises(InputError, match=r"without kriging needs feature blocks, got none"):
        build(name, {"kriged": False}).fit(rows.train, seed=0)


@pytest.mark.parametrize("name", ["lightgbm", "extra-trees"])
def test_without_kriging_saved_and_loaded(rows, name, tmp_path):
    settings = {"kriged": False, "blocks": BLOCKS}
    model = build(name, settings).fit(rows.train, seed=0)
    model.save(tmp_path)
    assert_array_equal(build(name, settings).load(tmp_path).predict(rows.test), model.predict(rows.test))
