"""What transfers: the numbers of `pertcast cv`, judged by what was held out, and a line for what cannot answer."""

import json
from pathlib import Path

import numpy as np
import pytest

from command_line import FLOORS, pertcast, refused
from pertcast import workflow
from pertcast.config import load_preset, load_recipe
from pertcast.leaderboard import read_boards
from pertcast.transfer import PRESET, SPLITS, transfer

MODELS = ("ridge", "kernel-ridge-context", "cells-context-transfer")  # the tiny demo has nothing for the last two


def places(folder: Path) -> dict[str, Path]:
    return {"out": folder / "runs", "cache": folder / "cache"}


@pytest.fixture(scope="module")
def measured(demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    return folder, transfer(MODELS, demo, **places(folder))


@pytest.fixture(scope="module", params=SPLITS)
def beside_cv(request, demo, measured):
    """One split, and what `pertcast cv` makes of the same folds; finished units are used again."""
    folder, done = measured
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("fold*/seed*/DONE.json")}
    cv = workflow.cross_validate(["ridge", "nearest"], demo, folds=request.param, **places(folder))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    return done.splits[request.param], cv


def test_scores_are_those_of_cross_validation(beside_cv):
    """Score and difference to the best floor of every model, as `cv` prints them."""
    split, cv = beside_cv
    assert split.table.best_floor == cv.table.best_floor
    assert {line.name for line in split.table.lines} == {"ridge", "nearest", "oracle", *FLOORS}
    for line in split.table.lines:
        other = cv.table.line(line.name)
        assert (line.mrrmse, line.v_floor) == (other.mrrmse, other.v_floor)


def test_intervals_draw_the_held_out_labels(beside_cv):
    """Paired, by a slow loop: every draw takes whole labels, compounds, scaffolds or cell types, again."""
    split, cv = beside_cv
    labels = np.concatenate([fold.groups[fold.valid] for fold in cv.folds]).astype(str)
    errors = {scored.name: scored.rmse for scored in cv.table.scored}
    difference = errors["ridge"] - errors[cv.table.best_floor]
    rows_of = [difference[labels == label] for label in sorted(set(labels))]
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(rows_of), size=(1000, len(rows_of)))
    means = [np.concatenate([rows_of[i] for i in draw]).mean() for draw in drawn]
    line = split.table.line("ridge")
    np.testing.assert_allclose((line.v_floor_low, line.v_floor_high), np.quantile(means, [0.025, 0.975]), rtol=1e-6)


def test_labels_are_held_out_whole(beside_cv):
    _, cv = beside_cv
    for fold in cv.folds:
        assert not set(fold.groups[fold.train]) & set(fold.groups[fold.valid])
    held_out = np.sort(np.concatenate([fold.valid for fold in cv.folds]))
    np.testing.assert_array_equal(held_out, np.arange(len(cv.question)))  # every row once


def test_what_cannot_answer_is_told_and_stops_nothing(measured):
    _, done = measured
    for split in done.splits.values():
        assert set(split.refused) == set(MODELS[1:])
        assert "needs a table of untreated cells" in split.refused["kernel-ridge-context"]
        assert "needs the single cells" in split.refused["cells-context-transfer"]


def test_every_split_is_a_board_of_its_own(demo, tmp_path):
    """The leaderboard's pages tell them apart."""
    transfer(["gene-mean"], demo, **places(tmp_path))
    boards = read_boards(tmp_path / "runs")
    assert [board.title.rpartition(", ")[2] for board in boards] == [
        "whole celltypes held out", "whole scaffolds held out", "whole compounds held out",
    ]  # fmt: skip


def test_nothing_is_fitted_on_all_rows(demo, tmp_path):
    """Held-out rows are all that is asked for; `cv` afterwards fits what an ensemble needs."""
    transfer(["gene-mean"], demo, splits=["celltype"], **places(tmp_path))
    assert list(tmp_path.rglob("fold0/seed0/DONE.json"))
    assert not list(tmp_path.rglob("refit"))
    workflow.cross_validate(["gene-mean"], demo, folds="celltype", **places(tmp_path))
    assert list((tmp_path / "runs").glob("gene-mean-*/gene-mean/refit/seed0/DONE.json"))


def test_the_command_prints_one_table(demo, measured):
    """With --json the same facts, whole; else a line per model with a pair of cells per split."""
    folder, done = measured
    arguments = ("transfer", *MODELS, "--data", demo, "--out", folder / "runs", "--cache", folder / "cache")
    told = pertcast(*arguments, "--jobs", "1", "--json")
    assert told.code == 0, told.err
    facts = json.loads(told.out)
    assert facts == json.loads(json.dumps(done.as_dict()))
    assert [split["name"] for split in facts["splits"]] == list(SPLITS)
    one = pertcast(*arguments, "--jobs", "1", "--folds", "celltype").out
    line = done.splits["celltype"].table.line("ridge")
    interval = f"({line.v_floor_low:+.3f} to {line.v_floor_high:+.3f})"
    assert f"{line.mrrmse:.3f}  {line.v_floor:+.3f} {interval}\n" in one
    assert "SIMULATED data. Held out whole: celltype\n" in one
    assert "kernel-ridge-context cannot answer celltype: " in " ".join(one.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rigde"], "Unknown recipe 'rigde'. Did you mean 'ridge'"),
        (["ridge", "ridge"], "2 recipes have the name 'ridge'"),
        (["ridge", "--folds", "scafold"], "Unknown fold strategy 'scafold'. Did you mean 'scaffold'"),
        (["ridge", "--folds", "random"], "no whole label: random. Use compound, scaffold, celltype"),
        (["ridge", "--set", "settings.widht=3"], "widht"),
        (["ridge", "--device", "gpu"], "Unknown device 'gpu'"),
    ],
)
def test_faults_are_refused_before_anything_is_fitted(arguments, message, demo, tmp_path):
    done = pertcast("transfer", *arguments, "--data", demo, "--out", tmp_path / "runs", "--cache", tmp_path / "c")
    refused(done, message)
    assert not list(tmp_path.iterdir())


def test_without_recipes_there_is_one_of_every_family():
    """All but two whose fits take minutes; floors and nearest neighbours are there whatever is named."""
    families = {load_recipe(name).model for name in load_preset(PRESET).recipes}
    slow = {"attention-translation", "complexnet", "pseudo-labels"}
    assert families | FLOORS | slow == {model["name"] for model in workflow.models()}
