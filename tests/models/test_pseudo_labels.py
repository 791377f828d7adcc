"""Pseudo-labels: which pairs are labelled, by whom, and what the second stage learns from them."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.errors import InputError
from pertcast.features.assemble import assemble
from pertcast.models.pseudo_labels import joined, unmeasured
from pertcast.models.registry import build

BLOCKS = ("cell_type", "compound", "morgan", "compound_mean")


def training_rows(question, train=None):
    train = np.arange(len(question)) if train is None else train
    features = FeatureConfig(blocks=BLOCKS, components=8)
    return assemble(question, features, train=train, valid=np.setdiff1d(np.arange(len(question)), train))


def pairs_of(rows):
    return set(zip(rows.cell_type, rows.compound, strict=True))


@pytest.fixture(scope="module")
def question():
    return make_question(types=4, compounds=12, asked=4)[0]


def test_unmeasured_pairs_by_hand(question):
    """Four of the 48 pairs are not in training: type 3 with drugs 0 to 3. All of them are drawn, and no other."""
    train = training_rows(question).train
    pairs = unmeasured(train, most=100, power=2.0, seed=0)
    assert pairs_of(pairs) == {("type 3", f"drug {c}") for c in range(4)}
    assert len(pairs) == 4
    assert pairs.y is None


def test_pairs_are_described_as_test_rows_are(question):
    """Oracle: the asked rows of the question are the same four pairs, described by `assemble`."""
    rows = training_rows(question)
    pairs = unmeasured(rows.train, most=100, power=2.0, seed=0)
    order = [list(rows.test.compound).index(compound) for compound in pairs.compound]
    assert set(pairs.blocks) == {"cell_type", "compound", "morgan"}  # a statistic has no place for such a pair
    for name, block in pairs.blocks.items():
        assert_array_equal(block.dense(), rows.test.take(np.array(order)).block(name).dense())


def test_sparse_cell_types_come_first():
    """Oracle: with odds 1 and 1/4 (rows 2 and 4, power 2), the first draw is of the sparse type 4 times in 5."""
    question, _ = make_question(types=2, compounds=12, asked=1)
    keep = [i for i in range(len(question)) if question.compound[i] not in ("drug 4", "drug 5")]
    first = [i for i in keep if question.cell_type[i] == "type 0"][:2]
    second = [i for i in keep if question.cell_type[i] == "type 1"][1:5]
    train = training_rows(question, np.array([*first, *second])).train
    assert len(pairs_of(unmeasured(train, most=100, power=2.0, seed=0))) == 6  # 4 of type 0, 2 of type 1
    drawn = [unmeasured(train, most=1, power=2.0, seed=seed).cell_type[0] for seed in range(600)]
    odds = 4 / 2**2, 2 / 4**2  # pairs times odds of each
    assert_allclose(drawn.count("type 0") / 600, odds[0] / sum(odds), atol=0.05)


def test_the_second_stage_learns_from_both(question):
    """By hand: the additive model fitted twice, on rows joined by the definition."""
    rows = training_rows(question)
    model = build("pseudo-labels", {"base": "additive", "share": 1.0, "copies": 2}).fit(rows.train, seed=0)
    pairs = unmeasured(rows.train, most=len(rows.train), power=2.0, seed=0)
    first = build("additive").fit(rows.train, seed=0)
    both = joined([rows.train, rows.train, replace(pairs, y=first.predict(pairs))])
    assert len(both) == 2 * len(rows.train) + 4
    assert_array_equal(both.y[-4:], first.predict(pairs))
    assert_array_equal(both.block("cell_type").dense()[-4:], pairs.block("cell_type").dense())
    expected = build("additive").fit(both, seed=0).predict(rows.test)
    assert_array_equal(model.predict(rows.test), expected)
    assert np.abs(expected - first.predict(rows.test)).max() > 1e-3


def test_held_out_rows_do_not_reach_the_labels(question):
    """S004-03, R03: a held-out pair is labelled, and its poisoned truth changes nothing."""
    valid = np.flatnonzero((question.cell_type == "type 1") & (question.compound != "drug 0"))
    train = np.setdiff1d(np.arange(len(question)), valid)
    poisoned = question.y.copy()
    poisoned[valid] = 1e6
    said = []
    for y in (question.y, poisoned):
        rows = training_rows(replace(question, y=y), train)
        assert pairs_of(rows.valid) <= pairs_of(unmeasured(rows.train, most=100, power=2.0, seed=0))
        model = build("pseudo-labels", {"base": "ridge", "share": 5.0}).fit(rows.train, seed=0)
        said.append(model.predict(rows.valid))
    assert_array_equal(*said)


def test_a_table_without_gaps_needs_no_labels():
    question, _ = make_question(asked=4)
    asked_nowhere = ~np.isin(question.compound, question.test_compound)
    train = training_rows(question, np.flatnonzero(asked_nowhere)).train
    assert len(unmeasured(train, most=100, power=2.0, seed=0)) == 0
    model = build("pseudo-labels", {"base": "ridge"}).fit(train, seed=0)
    assert_array_equal(model.predict(train), build("ridge").fit(train, seed=0).predict(train))


def test_a_base_that_reads_statistics_is_refused_before_fitting():
    message = r"Pseudo-labels need blocks that follow from .* but the base 'lightgbm' reads cell_type_mean, compound_"
    with pytest.raises(InputError, match=message):
        build("pseudo-labels", {"base": "lightgbm", "settings": {"blocks": ["cell_type_mean", "compound_mean"]}})
    with pytest.raises(InputError, match="Unknown model 'netwrk'. Did you mean 'network'"):
        build("pseudo-labels", {"base": "netwrk"})
    with pytest.raises(InputError, match="(?s)Settings of model 'ridge'.*'penalty'"):
        build("pseudo-labels", {"base": "ridge", "settings": {"penalty": 1}})


def test_the_device_reaches_the_base():
    model = build("pseudo-labels", {"training": {"device": "cpu"}, "settings": {"training": {"epochs": 3}}})
    training = model.config.stage().config.training
    assert (training.device, training.epochs) == ("cpu", 3)
