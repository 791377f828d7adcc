"""From a folder of files to a scored submission, through the command line: whole, repeatable, killed, resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from command_line import FLOORS, partials, pertcast, places, refused, submit, write_preset
from pertcast.metrics.rowwise import mrrmse
from pertcast.runs import mean_predictions
from pertcast.submission import read_submission, weighted_sum


@pytest.fixture(scope="module")
def submitted(demo, tmp_path_factory):
    """Return a folder with runs and a submission of the tiny demo, and what the command said."""
    folder = tmp_path_factory.mktemp("submitted")
    done = submit(demo, folder / "out.csv", folder, "--json")
    assert done.code == 0, done.err
    return folder, json.loads(done.out)


def test_a_submission_is_valid_and_has_the_header_of_the_sample(demo, submitted):
    """S004-01."""
    path = submitted[0] / "out.csv"
    assert pertcast("validate", path, "--data", demo).code == 0
    with open(path) as own, open(demo / "sample_submission.csv") as sample:
        assert own.readline() == sample.readline()
    table = pd.read_csv(path)
    assert table.shape == (9, 61)
    assert table["id"].tolist() == pd.read_csv(demo / "id_map.csv")["id"].tolist()
    assert np.isfinite(table.to_numpy()).all()
    assert not partials(submitted[0])


@pytest.fixture(scope="module")
def other_runs(demo, tmp_path_factory) -> Path:
    """Return a folder with runs of `ridge` with another setting, in the task folds and in random ones."""
    folder = tmp_path_factory.mktemp("other")
    arguments = ("cv", "ridge", "--data", demo, "--cache", folder / "c", "--jobs", "1")
    changed = ("--set", "features.components=3")
    assert pertcast(*arguments, *changed, "--out", folder / "task" / "runs").code == 0
    assert pertcast(*arguments, *changed, "--out", folder / "random" / "runs", "--folds", "random").code == 0
    return folder


def test_scores_stand_beside_every_floor_and_the_oracle(demo, submitted):
    """S004-14: each line's difference to the best floor is the difference of the two scores."""
    for table in (submitted[1]["cv"], submitted[1]["score"]):
        lines = {line["name"]: line for line in table["lines"]}
        assert {name for name, line in lines.items() if line["kind"] == "floor"} == FLOORS
        assert lines["oracle"]["kind"] == "ceiling"
        best = min(lines[name]["mrrmse"] for name in FLOORS)
        assert lines[table["best_floor"]]["mrrmse"] == best
        for line in lines.values():
            np.testing.assert_allclose(line["v_floor"], line["mrrmse"] - best, atol=1e-6)
    worse = [line["name"] for line in submitted[1]["cv"]["lines"] if line["kind"] == "model" and line["v_floor"] > 0]
    assert worse
    said = submitted[1]["cv"]["verdicts"]
    assert [text.split()[0] for text in said] == worse


def test_the_score_is_the_metric_on_the_solution(demo, submitted):
    """The table's number is MRRMSE of the file that was written, rows and genes matched by name."""
    given = pd.read_csv(submitted[0] / "out.csv").set_index("id")
    truth = pd.read_parquet(demo / "solution.parquet").set_index("id")
    genes = list(given.columns)
    expected = mrrmse(y_true=truth.loc[given.index, genes].to_numpy(), y_pred=given.to_numpy())
    line = next(line for line in submitted[1]["score"]["lines"] if line["name"] == "blend")
    np.testing.assert_allclose(line["mrrmse"], expected, atol=1e-5)
    done = pertcast("score", submitted[0] / "out.csv", "--solution", demo / "solution.parquet", "--json")
    again = next(line for line in json.loads(done.out)["lines"] if line["name"] == "out.csv")
    np.testing.assert_allclose(again["mrrmse"], expected, atol=1e-5)


def test_simulated_data_are_called_simulated(submitted):
    assert any("simulated" in remark for remark in submitted[1]["remarks"])
    assert "SIMULATED" in submitted[1]["cv"]["title"]


def test_the_same_command_twice_gives_the_same_bytes(demo, submitted, tmp_path):
    """R38: fresh folders, same submission, same facts, same metrics, same out-of-fold files."""
    first = submitted[0]
    done = submit(demo, tmp_path / "out.csv", tmp_path, "--json")
    said = json.loads(done.out)
    assert said["cv"] == submitted[1]["cv"]
    assert said["score"] == submitted[1]["score"]
    assert (tmp_path / "out.csv").read_bytes() == (first / "out.csv").read_bytes()
    assert (tmp_path / "out.json").read_bytes() == (first / "out.json").read_bytes()
    assert (tmp_path / "out.png").read_bytes() == (first / "out.png").read_bytes()
    for name in ("oof.parquet", "test.parquet", "metrics.jsonl"):
        files = sorted(path.relative_to(first) for path in (first / "runs").rglob(name))
        assert files == sorted(path.relative_to(tmp_path) for path in (tmp_path / "runs").rglob(name))
        assert files
        for path in files:
            assert (first / path).read_bytes() == (tmp_path / path).read_bytes(), path


def test_nothing_is_fitted_twice(demo, submitted, monkeypatch):
    monkeypatch.setattr("pertcast.validation.cross_validate.Work.__call__", lambda self, unit: pytest.fail(unit.label))
    done = submit(demo, submitted[0] / "again.csv", submitted[0], "--json")
    assert done.code == 0, done.err
    assert (submitted[0] / "again.csv").read_bytes() == (submitted[0] / "out.csv").read_bytes()


def test_killed_in_the_middle_it_ends_with_the_same_bytes(demo, submitted, tmp_path):
    """SIGKILL leaves no half unit that counts, and the same command goes on from what was done. R40: without a GPU."""
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    preset = write_preset(submitted[0] / "recipes")  # where it lies is in no file: recipes count by content
    command = [sys.executable, "-m", "pertcast", "submission", "--data", str(demo), "--out", str(tmp_path / "out.csv")]
    command += ["--preset", str(preset), *places(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=env)
    try:
        until = time.monotonic() + 120
        while len(finished(tmp_path)) < 3 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in finished(tmp_path)}
    assert len(before) >= 3
    assert not (tmp_path / "out.csv").exists()
    done = submit(demo, tmp_path / "out.csv", tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "out.csv").read_bytes() == (submitted[0] / "out.csv").read_bytes()
    assert (tmp_path / "out.json").read_bytes() == (submitted[0] / "out.json").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not partials(tmp_path)


def finished(folder: Path) -> list[Path]:
    return list((folder / "runs").glob("*/*/*/seed*/DONE.json"))


def test_fewer_seeds_than_before_are_fewer_seeds(demo, submitted, tmp_path):
    """R38: what an earlier command left in the folder changes no number of a later one."""
    preset = write_preset(tmp_path / "recipes")
    recipe = preset.with_name("small.toml")
    shutil.copytree(submitted[0] / "runs", tmp_path / "runs")
    arguments = ("cv", recipe, "--data", demo, "--out", tmp_path / "runs", "--cache", submitted[0] / "cache")
    one, two, again = (pertcast(*arguments, "--jobs", "1", "--json", "--seeds", n).out for n in (1, 2, 1))
    assert json.loads(two) != json.loads(one)
    assert json.loads(again) == json.loads(one)


def test_out_may_be_a_folder(demo, submitted, tmp_path):
    """A folder gets the dated file, its facts, its picture, and the newest under a fixed name."""
    done = submit(demo, tmp_path / "submissions", submitted[0], "--json")
    path = Path(json.loads(done.out)["file"])
    assert path.parent == tmp_path / "submissions"
    date, preset, score, rest = path.name.split("_")
    assert preset == "tiny"
    blend = next(line for line in submitted[1]["cv"]["lines"] if line["name"] == "blend")
    assert float(score) == round(blend["mrrmse"], 4)
    assert path.read_bytes() == (submitted[0] / "out.csv").read_bytes()
    assert (path.parent / "submission.csv").read_bytes() == path.read_bytes()
    assert path.with_suffix(".json").is_file()
    assert path.with_suffix(".png").is_file()


def run_folders(folder: Path, *names: str) -> list[Path]:
    found = sorted(path for path in (folder / "runs").iterdir() if path.is_dir())
    return [path for path in found if path.name.rpartition("-")[0] in names]


def test_ensemble_of_runs_by_hand(demo, submitted, tmp_path):
    """S004-12: the blend is the weighted sum of the named runs' files, clipped; the scale is printed, id untouched."""
    runs = run_folders(submitted[0], "ridge", "small")
    done = pertcast("ensemble", *runs, "--data", demo, "--out", tmp_path / "blend.csv", "--no-correct", "--json")
    assert done.code == 0, done.err
    facts = json.loads((tmp_path / "blend.json").read_text())["facts"]
    blend = facts["blends"]["seen"]
    assert set(blend["weights"]) == {"ridge", "small"}
    np.testing.assert_allclose(sum(blend["weights"].values()), blend["scale"])
    note = next(line["note"] for line in json.loads(done.out)["cv"]["lines"] if line["name"] == "blend")
    assert f"sum {blend['scale']:.2f}" in note
    given = read_submission(tmp_path / "blend.csv")
    members = {run.name.rpartition("-")[0]: mean_predictions([*run.glob("*/refit/seed0/test.parquet")]) for run in runs}
    _, genes, total, scale = weighted_sum(members, blend["weights"])
    np.testing.assert_allclose(scale, blend["scale"])
    train = pd.read_parquet(demo / "de_train.parquet")[list(genes)].to_numpy(np.float32)
    order = [list(genes).index(gene) for gene in given.genes]
    expected = np.clip(total, train.min(0), train.max(0))[:, order]
    np.testing.assert_allclose(given.values, expected, atol=1e-5)
    assert given.ids.tolist() == list(range(9))


def test_runs_of_one_recipe_with_other_settings_are_told_apart(demo, submitted, other_runs, tmp_path):
    """Two runs called `ridge` are two members, by the names of their folders."""
    runs = [*run_folders(other_runs / "task", "ridge"), *run_folders(submitted[0], "ridge")]
    assert pertcast("ensemble", *runs, "--data", demo, "--out", tmp_path / "blend.csv").code == 0
    facts = json.loads((tmp_path / "blend.json").read_text())["facts"]
    assert set(facts["blends"]["seen"]["weights"]) == {run.name for run in runs}


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (lambda a, b: [a[0], a[0]], "Runs are given more than once: .*ridge-\\w+. Name each once."),
        (lambda a, b: a + b, "Runs '.*ridge-.*' and '.*ridge-.*' have other folds; blend runs of one `cv`."),
        (lambda a, b: [a[0].parent], "is a folder of runs, not a run. Name one of them: additive-"),
        (lambda a, b: [a[0].parent.parent / "out.csv"], "no finished unit in it"),
    ],
)
def test_ensemble_refuses_runs_that_do_not_belong_together(demo, submitted, other_runs, tmp_path, which, message):
    runs = which(run_folders(submitted[0], "ridge"), run_folders(other_runs / "random", "ridge"))
    done = pertcast("ensemble", *runs, "--data", demo, "--out", tmp_path / "blend.csv")
    refused(done, message)
    assert not (tmp_path / "blend.csv").exists()


def test_ensemble_refuses_runs_of_other_data_and_of_zeros_alone(demo, submitted, tables, tmp_path):
    other = tables.write(tmp_path / "data")
    done = pertcast("ensemble", *run_folders(submitted[0], "ridge"), "--data", other, "--out", tmp_path / "b.csv")
    refused(done, "Run '.*ridge-.*' was fitted on other data than '.*data'. Run `pertcast cv` on these.")
    done = pertcast("ensemble", *run_folders(submitted[0], "zeros"), "--data", demo, "--out", tmp_path / "b.csv")
    refused(done, "nothing to blend but zeros: zeros. Name a run of another model.")


def test_ensemble_refuses_a_run_that_is_not_finished(demo, submitted, tmp_path):
    (ridge,) = run_folders(submitted[0], "ridge")
    copy = shutil.copytree(ridge, tmp_path / ridge.name)
    shutil.rmtree(copy / "ridge" / "fold2")
    done = pertcast("ensemble", copy, "--data", demo, "--out", tmp_path / "b.csv")
    refused(done, "Run '.*' has no finished unit 'fold2'. Run `pertcast cv` again to finish it.")


def test_no_gpu_is_needed(demo, tmp_path, monkeypatch):
    """R40: a GPU asked for in vain is refused before anything is fitted, by a model that would not use it as well."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = pertcast("cv", "ridge", "--data", demo, "--out", tmp_path / "runs", "--device", "cuda")
    refused(done, "^Device 'cuda' was asked for, but PyTorch finds no GPU. Use device 'auto' or 'cpu'.$")
    assert not (tmp_path / "runs").exists()
