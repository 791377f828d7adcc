"""Training rows that count by their reliability: read from the table that `de` writes, used by models that can."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from cases import make_question
from command_line import pertcast, refused
from pertcast.config import FeatureConfig, load_recipe
from pertcast.features.assemble import assemble
from pertcast.features.target_space import learned_question
from pertcast.io.tables import check_competition, question_of, read_competition
from pertcast.models.registry import build, entries
from pertcast.runs import Unit
from pertcast.validation.cross_validate import Work

BLOCKS = ("cell_type", "compound", "compound_residual_mean", "cell_type_mean", "morgan")
TINY = {"members": 1, "width": 8, "heads": 2, "feedforward": 8, "head": 8}
SMALL = {
    "ridge": {},
    "kernel-ridge": {"steps": 0, "reweightings": 0},
    "transformer": {**TINY, "training": {"epochs": 20}},
    "complexnet": {**TINY, "autoencoder_training": {"epochs": 20}, "training": {"epochs": 20}},
}


@pytest.fixture
def trusted(tables, tmp_path):
    """Write a competition whose rows have the reliabilities 1/13 .. 13/13, listed backwards."""
    folder = tables.write(tmp_path / "data")
    rows = tables.train[["cell_type", "sm_name"]].copy()
    for name in ("cells", "control_cells", "samples", "control_samples", "silent_genes"):
        rows[name] = 9
    rows["reliability"] = np.arange(1, 14) / 13
    rows[::-1].to_csv(folder / "de_train.rows.csv", index=False)
    return folder, rows


def rows_of(question):
    everything = np.arange(len(question))
    config = FeatureConfig(blocks=BLOCKS, components=4, smooth=1.0)
    return assemble(question, config, train=everything, valid=everything[:0])


def test_matched_by_pair(trusted, tables, tmp_path):
    """Rows are found by cell type and compound; weights of the training part average 1; the data's digest moves."""
    competition = read_competition(trusted[0])
    assert_allclose(competition.reliability, np.arange(1, 14) / 13)
    question = question_of(competition)
    train = np.array([0, 3, 12])
    rows = assemble(question, FeatureConfig(), train=train, valid=np.array([1]))
    assert_allclose(rows.train.weight, np.array([1, 4, 13]) / 6)
    assert rows.valid.weight is None
    assert rows.test.weight is None
    assert_allclose(rows.train.take(np.array([2, 0])).weight, np.array([13, 1]) / 6)
    without = read_competition(tables.write(tmp_path / "without"))
    assert without.reliability is None
    assert without.digest != competition.digest


def test_only_recipes_that_ask_weight_rows(trusted):
    """Runs of recipes that do not keep their names and numbers."""
    question = question_of(read_competition(trusted[0]))
    plain, weighted = load_recipe("ridge"), load_recipe("ridge", ["row_weights=reliability"])
    train = np.arange(len(question))
    assert learned_question(question, plain, train=train).reliability is None
    assert learned_question(question, weighted, train=train).reliability is question.reliability
    assert plain.digest() != weighted.digest()
    assert "row_weights" not in plain.model_dump(exclude_defaults=True)


@pytest.mark.parametrize("name", [name for name, entry in entries().items() if entry.weighted])
def test_the_rows_that_count_are_believed(name):
    """Every row twice, once with the opposite response: which half weighs more decides the sign of predictions."""
    rows = rows_of(make_question(types=4, compounds=8)[0])
    number = len(rows.train)
    twice = rows.train.take(np.tile(np.arange(number), 2))
    y = np.concatenate([rows.train.y, -rows.train.y])
    said = []
    for first in (1.98, 0.02):
        weight = np.repeat([first, 2 - first], number)
        model = build(name, SMALL[name]).fit(replace(twice, y=y, weight=weight), seed=0)
        said.append(model.predict(rows.train.without_y()))
    for values, sign in zip(said, (1, -1), strict=True):
        assert sign * np.corrcoef(values.ravel(), rows.train.y.ravel())[0, 1] > 0.3


def test_equal_weights_change_nothing():
    """The weighted fit of ridge with weights of 1 is the plain one, to the last digits."""
    rows = rows_of(make_question()[0])
    plain = build("ridge").fit(rows.train).predict(rows.test)
    ones = build("ridge").fit(replace(rows.train, weight=np.ones(len(rows.train)))).predict(rows.test)
    assert_allclose(ones, plain, rtol=1e-6)


def test_by_the_command(trusted, tmp_path):
    """`--set row_weights=reliability` changes the numbers; what cannot be is refused before anything is fitted."""
    folder, rows = trusted
    out = ("--data", folder, "--out", tmp_path / "runs", "--cache", tmp_path / "cache", "--folds", "random")
    done = pertcast("cv", "lightgbm", *out, "--set", "row_weights=reliability")
    refused(done, "model 'lightgbm' does not weight rows. Those that do: complexnet, kernel-ridge, ridge, transformer")
    refused(pertcast("cv", "ridge", *out, "--set", "row_weights=cells"), "'row_weights': .*'equal' or 'reliability'")
    rows.iloc[1:].to_csv(folder / "de_train.rows.csv", index=False)
    (text,) = check_competition(folder)
    assert "1 row of de_train are missing: row 0" in text
    rows.assign(reliability=2).to_csv(folder / "de_train.rows.csv", index=False)
    assert "'reliability' must be between 0 and 1" in check_competition(folder)[0]
    (folder / "de_train.rows.csv").unlink()
    refused(pertcast("cv", "ridge", *out, "--set", "row_weights=reliability"), "has no de_train.rows.csv")
    assert not list((tmp_path / "runs").rglob("DONE.json"))


def test_the_recipe_reaches_the_model(trusted):
    """A unit of work hands the weights on, and not to a recipe without them."""
    question = question_of(read_competition(trusted[0]))
    work = Work(question, {}, "digest", None)
    weights = [
        work.rows(Unit(load_recipe("ridge", changes), None, 0, 0)).train.weight
        for changes in ((), ["row_weights=reliability"])
    ]
    assert weights[0] is None
    assert pd.Series(weights[1]).is_monotonic_increasing
