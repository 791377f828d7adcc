"""Score tables kept beside runs, and joined into boards: numbers of the table that was printed, newest first."""

import json
import os

import pytest

from command_line import pertcast, places
from pertcast.errors import InputError
from pertcast.leaderboard import FOLDER, read_boards


def test_boards_are_what_cv_printed(demo, tmp_path):
    """Two commands on the same question make one board; other folds make another. Floors and ceiling stand on each."""
    place = ["--data", demo, "--out", tmp_path / "runs", "--cache", tmp_path / "cache", "--jobs", "1", "--json"]
    said = {name: json.loads(pertcast("cv", name, *place).out) for name in ("ridge", "ridge-onehot")}
    other = json.loads(pertcast("cv", "ridge", *place, "--folds", "random").out)
    (random, task) = sorted(read_boards(tmp_path / "runs"), key=lambda board: len(board.standings))
    assert task.simulated
    assert random.simulated
    scores = {one.name: one.mrrmse for one in task.standings}
    expected = {line["name"]: line["mrrmse"] for told in said.values() for line in told["lines"]}
    assert scores == expected
    assert {one.name: one.mrrmse for one in random.standings} == {x["name"]: x["mrrmse"] for x in other["lines"]}
    assert [one.kind for one in task.standings] == ["ceiling", "model", "model", *["floor"] * 5]
    runs = {one.name: one.run for one in task.standings}
    assert runs["oracle"] == ""
    assert (tmp_path / "runs" / runs["ridge-onehot"]).is_dir()
    assert task.best_floor == said["ridge"]["best_floor"]


def test_the_newest_table_of_a_run_counts(tmp_path):
    """A run with more seeds has another score under the same name; a table made by hand stands for it."""
    line = {"kind": "model", "mrrmse": 1.0, "low": 0.9, "high": 1.1, "pearson": None, "v_floor": -0.1, "name": "a"}
    table = {"question": "q", "simulated": False, "title": "t", "best_floor": "zeros", "runs": {"a": "a-1"}}
    (tmp_path / FOLDER).mkdir()
    for age, (name, score) in enumerate([("old", 1.0), ("new", 0.5)]):
        path = tmp_path / FOLDER / f"{name}.json"
        path.write_text(json.dumps({**table, "lines": [{**line, "mrrmse": score}]}))
        os.utime(path, (age, age))
    (board,) = read_boards(tmp_path)
    assert [one.mrrmse for one in board.standings] == [0.5]


def test_a_folder_without_tables_has_no_board(tmp_path):
    assert read_boards(tmp_path) == []


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json' cannot be read: .* Delete it"):
        read_boards(tmp_path)


def test_submission_keeps_its_table_too(demo, tmp_path):
    from command_line import write_preset

    preset = write_preset(tmp_path / "recipes")
    done = pertcast("submission", "--data", demo, "--out", tmp_path / "x.csv", "--preset", preset, *places(tmp_path))
    assert done.code == 0, done.err
    (board,) = read_boards(tmp_path / "runs")
    assert {"ridge", "small", "trees", "zeros", "oracle"} <= {one.name for one in board.standings}
