"""Tuning: honest on folds it never saw, the same after an interruption, pruned by fold."""

import json
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cases import make_question
from command_line import FLOORS, partials, pertcast, refused
from pertcast import tuning
from pertcast.config import load_recipe
from pertcast.errors import InputError
from pertcast.metrics.bootstrap import grouped_standard_error
from pertcast.metrics.rowwise import per_row_mrrmse
from pertcast.runs import read_predictions
from pertcast.search import make_space
from pertcast.tuning import Scorer, split_folds
from pertcast.validation import cross_validate as cv
from pertcast.validation.folds import make_folds

TRIALS = 12
SEARCH = ["settings.components=1:12:log", "settings.reweightings=0,1,3", "features.smooth=0.1:20.0:log"]


@pytest.fixture(scope="module")
def question():
    return make_question(types=6, compounds=12, asked=8, genes=20, noise=1.0)[0]


@pytest.fixture(scope="module")
def folds(question):
    return make_folds("task", question)


def scorer_of(question, out: Path, kind=Scorer):
    return kind(question, data_digest="d" * 64, folder=out / "errors", cache=None, device="cpu")


def tuned(question, folds, out, *, trials=TRIALS, seed=0, recipe="ridge", kind=Scorer):
    own = load_recipe(recipe)
    space = make_space(own, SEARCH)
    return tuning.tune(own, space, folds, scorer_of(question, out, kind), trials=trials, seed=seed, out=out)


@pytest.fixture(scope="module")
def done(question, folds, tmp_path_factory):
    return tuned(question, folds, tmp_path_factory.mktemp("tuning"))


def trials_of(folder: Path) -> list[tuple]:
    """What SQLite holds of each finished trial: state, values drawn, and running scores."""
    with sqlite3.connect(folder / "trials.db") as connection:
        ended = "SELECT trial_id, state FROM trials WHERE state != 'FAIL' ORDER BY trial_id"
        found = []
        for trial, state in connection.execute(ended).fetchall():
            drawn = connection.execute(
                "SELECT value_json FROM trial_user_attributes WHERE trial_id = ? AND key = 'values'", (trial,)
            ).fetchone()
            steps = connection.execute(
                "SELECT intermediate_value FROM trial_intermediate_values WHERE trial_id = ? ORDER BY step", (trial,)
            ).fetchall()
            found.append((state, json.loads(drawn[0]), [step for (step,) in steps]))
    connection.close()
    return found


def test_folds_are_set_aside_by_kind(folds):
    """One of three or four folds of each kind; its held-out rows train nothing while tuning."""
    on, aside = split_folds(folds)
    kinds = [fold.name.rpartition("-")[0] for fold in folds]
    assert [fold.name for fold in aside] == [f"rotate-{kinds.count('rotate') - 1}", f"known-{kinds.count('known') - 1}"]
    assert [fold.name for fold in on + aside] != [fold.name for fold in folds]
    assert sorted(fold.name for fold in on + aside) == sorted(fold.name for fold in folds)
    hidden = np.concatenate([fold.valid for fold in aside])
    for fold, before in zip(on, [f for f in folds if f.name in {g.name for g in on}], strict=True):
        assert_array_equal(fold.valid, before.valid)
        assert set(fold.train) == set(before.train) - set(hidden)
        assert not set(fold.valid) & set(hidden)
    with pytest.raises(InputError, match="Tuning needs two folds of a kind, one of them never seen; got rotate-0."):
        split_folds(folds[:1])


def test_rows_set_aside_change_nothing_that_is_chosen(question, folds, done, tmp_path):
    """S004-03: their targets become a million; trials, values and scores of the folds seen stay, bit for bit."""
    aside = np.concatenate([fold.valid for fold in split_folds(folds)[1]])
    y = question.y.copy()
    y[aside] = 1e6
    poisoned = tuned(replace(question, y=y), folds, tmp_path)
    assert poisoned.recipe.settings == done.recipe.settings
    assert trials_of(poisoned.folder) == trials_of(done.folder)
    assert_array_equal(poisoned.seen.tuned, done.seen.tuned)
    assert poisoned.unseen.own.mean() > 1e5  # the poison is where it was put


def test_scores_are_those_of_a_cross_validation(question, folds, done, tmp_path):
    """Oracle: own and tuned recipe, the latter read from its file, cross-validated as `pertcast cv` does it."""
    recipes = [load_recipe("ridge"), load_recipe(str(done.path))]
    assert recipes[1].name == "ridge-tuned"
    runs = cv.cross_validate(
        question, recipes, folds, strategy="task", seeds=1, out=tmp_path, data_digest="d" * 64
    )  # fmt: skip
    aside = [k for k, fold in enumerate(folds) if fold.name in done.unseen.folds]
    for run, errors in zip(runs, (done.unseen.own, done.unseen.tuned), strict=True):
        parts = [read_predictions(run.units(f"fold{k}")[0] / "oof.parquet") for k in aside]
        expected = [per_row_mrrmse(y_true=question.y[part.ids], y_pred=part.values) for part in parts]
        assert_allclose(errors, np.concatenate(expected), rtol=1e-6)
    assert done.unseen.difference == pytest.approx((done.unseen.tuned - done.unseen.own).mean())


def test_the_best_whole_trial_is_taken(done):
    """Its running score after the last fold is the least; pruned trials do not count, whatever they reached."""
    trials = trials_of(done.folder)
    assert len(trials) == done.trials == TRIALS
    whole = {i: steps[-1] for i, (state, _, steps) in enumerate(trials) if state == "COMPLETE"}
    assert min(whole, key=whole.get) == done.best
    assert len(trials) - len(whole) == done.pruned > 0
    assert done.seen.tuned.mean() == pytest.approx(whole[done.best])
    values = trials[done.best][1]
    assert {field: pair[1] for field, pair in done.changes().items()} == values
    assert done.seen.difference < 0  # the best of many on the folds that chose it


def test_trials_are_pruned_by_fold(done):
    """Oracle: by hand, against the median of what whole trials before it had at the same fold."""
    trials = trials_of(done.folder)
    folds = len(done.seen.folds)
    for i, (state, _, steps) in enumerate(trials):
        before = [s for st, _, s in trials[:i] if st == "COMPLETE"]
        stopped = [
            len(before) >= tuning.UNPRUNED and min(steps[: k + 1]) > np.median([s[k] for s in before])
            for k in range(min(len(steps), folds - 1))
        ]
        assert (state == "PRUNED") == any(stopped)
        assert len(steps) == (stopped.index(True) + 1 if any(stopped) else folds)


class Stopped(Scorer):
    """Ctrl-C while the folds of a trial are fitted; counts what was fitted."""

    at: int | None = None
    fitted = 0

    def errors(self, recipe, fold):
        before = len(list(self.kept.folder.glob("*"))) if self.kept.folder.is_dir() else 0
        if Stopped.fitted == Stopped.at:
            Stopped.at = None
            raise KeyboardInterrupt
        found = super().errors(recipe, fold)
        Stopped.fitted += len(list(self.kept.folder.glob("*"))) - before
        return found


@pytest.mark.parametrize("at", [2, 6, 17])
def test_an_interrupted_study_goes_on_as_if_it_had_not_been(question, folds, done, tmp_path, at, monkeypatch):
    """Own settings, a trial's second fold, a later trial: no fold is fitted twice, every number is the same."""
    monkeypatch.setattr(Stopped, "at", at)
    monkeypatch.setattr(Stopped, "fitted", 0)
    with pytest.raises(KeyboardInterrupt):
        tuned(question, folds, tmp_path, kind=Stopped)
    again = tuned(question, folds, tmp_path, kind=Stopped)
    assert trials_of(again.folder) == trials_of(done.folder)
    assert again.recipe == done.recipe
    assert Stopped.fitted == len(list((tmp_path / "errors").iterdir()))
    assert not partials(tmp_path)


def test_more_trials_continue_the_same_study(question, folds, done, tmp_path, monkeypatch):
    """N trials in all: a few first, the rest later; a third call has nothing left to fit."""
    tuned(question, folds, tmp_path, trials=5)
    more = tuned(question, folds, tmp_path)
    assert trials_of(more.folder) == trials_of(done.folder)
    monkeypatch.setattr(tuning, "Work", lambda *given: pytest.fail("it was fitted again"))
    assert tuned(question, folds, tmp_path).as_dict() == more.as_dict()
    assert json.loads((more.folder / "tuned.json").read_text())["trials"] == TRIALS


def test_the_seed_counts_and_studies_do_not_meet(question, folds, done, tmp_path):
    other = tuned(question, folds, tmp_path, seed=1)
    assert trials_of(other.folder) != trials_of(done.folder)
    assert other.folder.name != done.folder.name


def test_trials_that_cannot_be_fitted(question, folds, tmp_path, monkeypatch):
    """They are stopped and remembered; if all are, the first reason is told."""
    direct = Scorer.errors

    def diverging(self, recipe, fold):
        if recipe.settings.get("components", 120) < least:
            raise InputError("Model Ridge predicts values that are not finite.")
        return direct(self, recipe, fold)

    monkeypatch.setattr(Scorer, "errors", diverging)
    least = 4
    some = tuned(question, folds, tmp_path)
    failed = [steps for _, values, steps in trials_of(some.folder) if values["settings.components"] < 4]
    assert failed
    assert not any(failed)
    assert some.recipe.settings["components"] >= 4
    least = 100
    with pytest.raises(InputError, match="No trial could be fitted: Model Ridge predicts .*\nSearch smaller ranges"):
        tuned(question, folds, tmp_path / "none", trials=2)


def test_a_damaged_study_is_begun_anew_without_fitting(question, folds, done, tmp_path, monkeypatch):
    first = tuned(question, folds, tmp_path)
    (first.folder / "trials.db").write_bytes(b"not a database, whatever it was " * 100)
    with pytest.raises(InputError, match="trials.db' cannot be read: file is not a database. Remove it and run the"):
        tuned(question, folds, tmp_path)
    (first.folder / "trials.db").unlink()
    monkeypatch.setattr(tuning, "Work", lambda *given: pytest.fail("it was fitted again"))
    assert trials_of(tuned(question, folds, tmp_path).folder) == trials_of(done.folder)


def test_standard_error_of_groups_by_hand():
    """One row a group: the textbook's. Every row twice in its group: nothing new is learned. One group: unknown."""
    values = np.random.default_rng(0).normal(size=30)
    groups = np.array([f"c{i}" for i in range(30)], dtype=object)
    expected = values.std(ddof=1) / np.sqrt(30)
    assert grouped_standard_error(values, groups) == pytest.approx(expected)
    assert grouped_standard_error(np.repeat(values, 2), np.repeat(groups, 2)) == pytest.approx(expected)
    assert grouped_standard_error(values, np.full(30, "one", object)) == 0.0


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "tiny"
    assert pertcast("demo", "--size", "tiny", "--out", folder).code == 0
    return folder


def test_tune_on_the_command_line(demo, tmp_path):
    """R37: one object; a table with floors and ceiling; the recipe it writes goes into `pertcast cv`."""
    places = ("--data", demo, "--cache", tmp_path / "cache", "--out", tmp_path / "tuning")
    asked = ("tune", "additive", "--search", "settings.components=2:20", "--trials", "3", *places)
    text = pertcast(*asked)
    assert text.code == 0, text.err
    assert f"Recipe, for `pertcast cv`: {tmp_path / 'tuning' / 'additive-tuned.toml'}" in text.err
    assert len(re.findall("^folds that tuning (saw|never saw) ", text.out, flags=re.MULTILINE)) == 2
    assert "On folds that tuning never saw" in text.out
    assert max(map(len, text.out.splitlines())) <= 110
    said = pertcast(*asked, "--json")
    assert (said.code, said.out.count("\n")) == (0, 1)
    found = json.loads(said.out)
    assert {line["name"] for line in found["table"]["lines"]} == FLOORS | {"additive-tuned", "oracle"}
    assert found["trials"] == 3
    assert not set(found["seen"]["folds"]) & set(found["unseen"]["folds"])
    runs = ("--data", demo, "--out", tmp_path / "runs", "--cache", tmp_path / "cache", "--jobs", "1", "--json")
    lines = json.loads(pertcast("cv", found["recipe"], *runs).out)["lines"]
    line = next(line for line in lines if line["name"] == "additive-tuned")
    tuned_line = next(line for line in found["table"]["lines"] if line["name"] == "additive-tuned")
    for fold in found["unseen"]["folds"]:
        assert line["parts"][fold] == pytest.approx(tuned_line["parts"][fold], rel=1e-6)


FAULTS = {
    ("ridg",): "Unknown recipe 'ridg'. Did you mean 'ridge'\\?",
    ("additive",): "No fields to tune are declared for model 'additive'. Name fields with --search, such as --search ",
    ("ridge", "--search", "settings.widht=1:2"): "Settings of model 'ridge': 'widht'",
    ("ridge", "--search", "settings.components"): "Cannot read what to search from 'settings.components'. Expected 'fi",
    ("ridge", "--folds", "tsk"): "Unknown fold strategy 'tsk'. Did you mean 'task'\\?",
    ("ridge", "--set", "name=zeros"): "the name 'zeros' stands for something else in the score table",
    ("ridge", "--device", "gpu"): "Unknown device 'gpu'.",
}


@pytest.mark.parametrize("arguments", FAULTS)
def test_faults_of_tune(demo, tmp_path, arguments):
    done = pertcast("tune", *arguments, "--data", demo, "--trials", "2", "--out", tmp_path / "tuning")
    refused(done, FAULTS[arguments])
    assert not list(tmp_path.glob("tuning/*"))


def test_tune_without_data(tmp_path):
    refused(pertcast("tune", "ridge", "--data", tmp_path / "no", "--trials", "2", "--out", tmp_path), "no' cannot be")
    assert pertcast("tune", "ridge", "--data", tmp_path, "--trials", "0").code == 2
