"""The command line as a contract: exit codes, one JSON object, words on stderr, options that count."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from command_line import FLOORS, pertcast, refused, write_preset
from pertcast import workflow
from pertcast.config import load_preset

COMMANDS = (
    "demo", "download", "download kaggle", "download openproblems", "check", "models", "cv", "ensemble", "submission",
    "validate", "score", "predict", "tune", "app", "de", "baseline", "simulate", "simulate base", "simulate mechanism",
    "simulate timecourse", "simulate composition", "cells", "cells models", "cells fit", "cells predict",
    "cells evaluate", "cells benchmark", "story", "transfer",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command):
    """R37."""
    done = pertcast(*command.split(), "--help")
    assert done.code == 0
    assert f"Usage: pertcast {command}" in done.out
    assert done.err == ""


def test_every_command_is_held_to_the_contract():
    """A command that is added is added to the tests here."""
    listed = re.findall(r"^  (\w+)  ", pertcast("--help").out, flags=re.MULTILINE)
    assert sorted(listed) == sorted({command.split()[0] for command in COMMANDS})


def test_installed_as_a_command_and_as_a_module():
    """R37: both ways of calling it, in processes of their own."""
    script = Path(sys.executable).with_name("pertcast")
    for command in ([str(script)], [sys.executable, "-m", "pertcast"]):
        done = subprocess.run([*command, "models", "--json"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert FLOORS < {model["name"] for model in json.loads(done.stdout)["models"]}


@pytest.mark.parametrize(
    "arguments",
    [[], ["smubit"], ["models", "--nothing"], ["cv", "ridge"], ["cv", "ridge", "--data", "x", "--seeds", "0"],
     ["cv", "ridge", "--data", "x", "--jobs", "-1"], ["demo", "--out", "x", "--seed", "-1"]],
)  # fmt: skip
def test_wrong_usage(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = pertcast(*arguments)
    assert done.code == 2
    assert "Usage: pertcast" in done.err
    assert done.out == ""
    assert not list(tmp_path.iterdir())


def test_a_defect_of_ours_has_a_traceback_and_code_1(monkeypatch):
    """In-process it is raised; the interpreter's own exit code for that is 1."""
    code = (
        "import sys\nfrom pertcast import workflow\nfrom pertcast.__main__ import main\n"
        "workflow.models = lambda: 1 / 0\nsys.argv = ['pertcast', 'models']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "ZeroDivisionError" in done.stderr


def test_ctrl_c_is_answered(monkeypatch):
    monkeypatch.setattr(workflow, "models", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    done = pertcast("models")
    assert (done.code, done.err.strip()) == (
        130, "Stopped. What was finished stays; the same command goes on from there.",
    )  # fmt: skip


def test_a_reader_that_goes_away_is_no_defect(monkeypatch):
    monkeypatch.setattr(workflow, "models", lambda: (_ for _ in ()).throw(BrokenPipeError(errno.EPIPE, "broken")))
    assert pertcast("models").code == 141


def device_of(recipes) -> str:
    return next(r.settings["training"]["device"] for r in recipes if r.name == "network")


def only_object(done) -> dict:
    """Hold that stdout is one JSON object and nothing else."""
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    assert "NaN" not in done.out
    return json.loads(done.out)


def test_json_is_one_object_and_nothing_else(demo, fitted, blended, tmp_path, monkeypatch):
    """Every command with --json; words for people go to stderr."""
    assert only_object(pertcast("demo", "--size", "tiny", "--out", tmp_path / "d", "--json"))["size"] == "tiny"
    assert only_object(pertcast("check", demo, "--json"))["faults"] == []
    assert len(only_object(pertcast("models", "--json"))["models"]) >= 8
    cv = json.loads(fitted[2])
    assert fitted[1] in [Path(run) for run in cv["runs"]]
    assert FLOORS < {line["name"] for line in cv["lines"]}
    blend = pertcast("ensemble", fitted[1], "--data", demo, "--out", tmp_path / "b.csv", "--json")
    assert only_object(blend)["file"] == str(tmp_path / "b.csv")
    assert "simulated" in blend.err
    valid = only_object(pertcast("validate", blended, "--data", demo, "--json"))
    assert (valid["valid"], valid["rows"], valid["genes"]) == (True, 9, 60)
    assert only_object(pertcast("score", blended, "--solution", demo / "solution.parquet", "--json"))["lines"]
    monkeypatch.setattr("pertcast.io.download.download_kaggle", lambda out: [out / "id_map.csv"])
    monkeypatch.setattr("pertcast.io.download.download_openproblems", lambda out: [out / "id_map.csv"])
    for source in ("kaggle", "openproblems"):
        files = only_object(pertcast("download", source, "--out", tmp_path, "--json"))["files"]
        assert files == [str(tmp_path / "id_map.csv")]
        assert pertcast("download", source, "--out", tmp_path).out == f"{tmp_path / 'id_map.csv'}\n"


def test_json_of_faults(tmp_path):
    (tmp_path / "id_map.csv").write_text("id\n0\n")
    done = pertcast("check", tmp_path, "--json")
    assert done.code == 2
    assert len(json.loads(done.out)["faults"]) == 2
    assert "id_map" in done.err
    assert pertcast("check", tmp_path).out == ""


def test_results_on_stdout_and_messages_on_stderr(demo, fitted):
    """Without --json the table alone is on stdout; where runs and picture lie is told on stderr."""
    arguments = ("--data", demo, "--out", fitted[0] / "runs", "--cache", fitted[0] / "cache", "--jobs", "1")
    done = pertcast("cv", "ridge", *arguments)
    assert done.out.startswith("MRRMSE of 30 held-out training rows in 6 folds, SIMULATED data")
    assert max(map(len, done.out.splitlines())) <= 100
    assert str(fitted[1]) in done.err
    assert f"Picture: {fitted[0] / 'runs' / 'cv.png'}" in done.err
    assert (fitted[0] / "runs" / "cv.png").stat().st_size > 10_000


def test_options_of_demo(demo, tmp_path):
    """R30: size and seed."""
    for name, changed in (("seed", ["--size", "tiny", "--seed", "1"]), ("same", ["--size", "tiny", "--seed", "0"])):
        assert pertcast("demo", "--out", tmp_path / name, *changed).code == 0
    tables = [(folder / "de_train.parquet").read_bytes() for folder in (demo, tmp_path / "same", tmp_path / "seed")]
    assert tables[0] == tables[1] != tables[2]
    refused(pertcast("demo", "--out", tmp_path / "x", "--size", "huge"), "Unknown demo size 'huge'. Known: full, ")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("option", "read", "default", "changed"),
    [
        (["--folds", "celltype"], lambda given: given["strategy"], "task", "celltype"),
        (["--seeds", "3"], lambda given: given["seeds"], 1, 3),
        (["--set", "settings.components=5"], lambda given: given["recipes"][0].settings.get("components"), None, 5),
        (["--set", "features.smooth=7"], lambda given: given["recipes"][0].features.smooth, 1.0, 7.0),
        (["--jobs", "3"], lambda given: given["jobs"], 2, 3),
        (["--cache", "elsewhere"], lambda given: str(given["cache"].folder), "data/interim/features", "elsewhere"),
        (["--out", "elsewhere"], lambda given: str(given["out"]), "data/interim/runs", "elsewhere"),
    ],
)
def test_options_of_cv(demo, tmp_path, monkeypatch, option, read, default, changed):
    """R30: what reaches the cross-validation."""
    seen = []

    def spy(question, recipes, folds, **given):
        seen.append({**given, "recipes": recipes})
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pertcast.workflow.available_jobs", lambda: 2)
    monkeypatch.setattr("pertcast.workflow.cv.cross_validate", spy)
    for more in ([], option):
        assert pertcast("cv", "ridge", "--data", demo, *more).code == 130
    assert [read(given) for given in seen] == [default, changed]


@pytest.mark.parametrize(
    ("option", "read", "default", "changed"),
    [
        (["--preset", "other.toml"], lambda given: given["seeds"], load_preset("default").seeds, 9),
        (["--preset", "other.toml"], lambda given: given["recipes"][0].name, "attention-translation", "ridge"),
        (["--device", "cpu"], lambda given: device_of(given["recipes"]), "auto", "cpu"),
        (["--jobs", "3"], lambda given: given["jobs"], 2, 3),
        (["--cache", "elsewhere"], lambda given: str(given["cache"].folder), "data/interim/features", "elsewhere"),
        (["--runs", "elsewhere"], lambda given: str(given["out"]), "data/interim/runs", "elsewhere"),
    ],
)
def test_options_of_submission(demo, tmp_path, monkeypatch, option, read, default, changed):
    """R30: what reaches the cross-validation; --format, --layer and --out are held by their files elsewhere."""
    (tmp_path / "other.toml").write_text('reason = "tests"\nrecipes = ["ridge", "transformer"]\nseeds = 9\n')
    seen = []

    def spy(question, recipes, folds, **given):
        seen.append({**given, "recipes": recipes})
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pertcast.workflow.available_jobs", lambda: 2)
    monkeypatch.setattr("pertcast.workflow.cv.cross_validate", spy)
    for more in ([], option):
        assert pertcast("submission", "--data", demo, "--out", tmp_path / "out.csv", *more).code == 130
    assert [read(given) for given in seen] == [default, changed]


def test_settings_change_the_numbers(demo, tmp_path):
    """R30: another setting is another score of the model that it is set of, and of no floor."""
    recipe = write_preset(tmp_path / "recipes").with_name("small.toml")
    scores = []
    for number, more in enumerate(([], ["--set", "settings.width=4"])):
        arguments = ("--data", demo, "--out", tmp_path / f"runs{number}", "--cache", tmp_path / "c", "--jobs", "1")
        lines = only_object(pertcast("cv", recipe, *arguments, *more, "--json"))["lines"]
        scores.append({line["name"]: line["mrrmse"] for line in lines})
    assert len({score["small"] for score in scores}) == 2
    assert len({score["additive"] for score in scores}) == 1


def test_options_of_score(demo, blended, tmp_path):
    """R30: --data names where floors come from, --picture draws; both say so where they cannot."""
    alone = tmp_path / "solution.parquet"
    alone.write_bytes((demo / "solution.parquet").read_bytes())
    picture = tmp_path / "picture.png"
    bare = pertcast("score", blended, "--solution", alone, "--json", "--picture", picture)
    assert {line["name"] for line in only_object(bare)["lines"]} == {"blend.csv", "zeros"}
    assert "is no competition: no floors but zeros, no picture. Name one with --data." in bare.err
    assert not picture.exists()
    full = pertcast("score", blended, "--solution", alone, "--json", "--data", demo, "--picture", picture)
    assert {line["name"] for line in only_object(full)["lines"]} == {"blend.csv", "oracle"} | FLOORS
    assert picture.read_bytes().startswith(b"\x89PNG")
    truth = pd.read_parquet(alone)
    truth.iloc[:, 2:] += 1.0
    truth.to_parquet(tmp_path / "other.parquet")
    other = pertcast("score", blended, "--solution", tmp_path / "other.parquet", "--json", "--data", demo)
    assert other.out != full.out
