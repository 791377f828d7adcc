"""Units of work: resumable by content, whole or absent, the same bytes however often they were interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cases import make_question
from pertcast.config import FeatureConfig, Recipe
from pertcast.errors import InputError, LeakError
from pertcast.features.assemble import assemble
from pertcast.io.atomic import digest_file
from pertcast.models.registry import build
from pertcast.runs import mean_predictions, open_run, read_manifest, read_predictions, write_predictions
from pertcast.types import Predictions
from pertcast.validation import cross_validate as cv
from pertcast.validation.folds import make_folds

QUICK = {"rounds": 5, "min_rows": 3, "blocks": ["compound"]}
RECIPES = [
    Recipe(name="cell-type-mean", model="cell-type-mean", reason="test"),
    Recipe(name="trees", model="lightgbm", reason="test", settings=QUICK),
]


def run(question, folds, out, recipes=RECIPES, seeds=2, data_digest="d" * 64, jobs=1):
    return cv.cross_validate(
        question, recipes, folds, strategy="task", seeds=seeds, out=out, data_digest=data_digest, jobs=jobs
    )


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): digest_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def question():
    return make_question(genes=20)[0]


@pytest.fixture(scope="module")
def folds(question):
    return make_folds("task", question)


@pytest.fixture(scope="module")
def finished(question, folds, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return out, run(question, folds, out)


def test_inventory(finished, folds):
    """Every unit has its fixed files; models without a seed are fitted once."""
    out, runs = finished
    means, trees = (sorted(p.relative_to(r.folder).as_posix() for p in r.folder.glob("*/*/*")) for r in runs)
    parts = [*(f"fold{k}" for k in range(len(folds))), "refit"]
    assert means == sorted(f"cell-type-mean/{part}/seed0" for part in parts)
    assert trees == sorted(f"lightgbm/{part}/seed{s}" for part in parts for s in (0, 1))
    for run_ in runs:
        for unit in run_.units("fold*"):
            names = {p.name for p in unit.iterdir()}
            assert names == {"config.json", "inputs.json", "metrics.jsonl", "checkpoint", "oof.parquet", "DONE.json"}
        for unit in run_.units("refit"):
            assert {p.name for p in unit.iterdir()} == names - {"oof.parquet"} | {"test.parquet", "features"}


def test_out_of_fold_equals_a_plain_loop(finished, folds, question):
    """Oracle: fit and predict by hand, seeds averaged."""
    held_out = cv.collect(finished[1], question, folds)
    assert_array_equal(held_out.rows, np.concatenate([f.valid for f in folds]))
    for fold_number, fold in enumerate(folds):
        rows = assemble(question, FeatureConfig(), train=fold.train, valid=fold.valid)
        by_hand = np.mean(
            [build("lightgbm", RECIPES[1].settings).fit(rows.train, seed=s).predict(rows.valid) for s in (0, 1)], axis=0
        )
        assert_allclose(held_out.members["trees"][held_out.fold == fold_number], by_hand, atol=1e-6)


def test_refits_may_have_more_seeds_and_stray_ones_are_not_averaged(finished, question, folds, tmp_path):
    """What is averaged follows from what was asked for, not from what an earlier command left behind."""
    import shutil

    out = tmp_path / "runs"
    shutil.copytree(finished[0], out)
    (trees,) = cv.cross_validate(
        question, RECIPES[1:], folds, strategy="task", seeds=1, refit_seeds=3, out=out, data_digest="d" * 64
    )
    assert [path.name for path in trees.units("fold0")] == ["seed0"]
    assert [path.name for path in trees.units("refit")] == ["seed0", "seed1", "seed2"]
    assert len(open_run(trees.folder).units("fold0")) == 2  # both are there


def test_no_refit_where_held_out_rows_are_all_that_is_asked_for(finished, question, folds, tmp_path):
    """Models with and without a seed; what folds say does not change."""
    out, runs = finished
    alone = cv.cross_validate(
        question, RECIPES, folds, strategy="task", seeds=2, refit_seeds=0, out=tmp_path, data_digest="d" * 64
    )
    assert not list(tmp_path.rglob("refit"))
    assert [run.units("refit") for run in alone] == [[], []]
    whole, part = (cv.collect(found, question, folds).members for found in (runs, alone))
    assert_array_equal(part["trees"], whole["trees"])


def test_a_second_run_repeats_nothing(finished, question, folds, monkeypatch):
    out, _ = finished
    before = digests(out)
    monkeypatch.setattr(cv, "write_unit", lambda *a, **k: pytest.fail("a finished unit was fitted again"))
    run(question, folds, out)
    assert digests(out) == before


def test_side_by_side_gives_the_same_bytes(finished, question, folds, tmp_path):
    """Where a unit runs changes nothing: two processes write what one writes."""
    run(question, folds, tmp_path / "runs", jobs=2)
    assert digests(tmp_path / "runs") == digests(finished[0])


def test_harm_and_change_are_noticed(finished, question, folds, tmp_path):
    """A damaged unit is fitted again, to the same bytes; other data or settings go to another run."""
    import shutil

    out = tmp_path / "runs"
    shutil.copytree(finished[0], out)
    before = digests(out)
    (harmed,) = out.glob("trees-*/lightgbm/fold1/seed0/oof.parquet")
    harmed.write_bytes(harmed.read_bytes()[:100])
    run(question, folds, out)
    assert digests(out) == before
    other = run(question, folds, out, data_digest="e" * 64)
    assert {r.folder for r in other}.isdisjoint({r.folder for r in run(question, folds, out)})


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_cross_validate import run
from cases import make_question
from pertcast.validation.folds import make_folds
question = make_question(genes=20)[0]
run(question, make_folds("task", question), Path({out!r}))
"""


def test_killed_and_started_again_it_ends_with_the_same_bytes(finished, tmp_path):
    """SIGKILL at several moments; then a run to the end: every byte as in an uninterrupted run."""
    out = tmp_path / "runs"
    here = Path(__file__).parent
    code = f"import sys; sys.path.insert(0, {str(here)!r})\n" + SCRIPT.format(tests=str(here.parent), out=str(out))
    kept: set[str] = set()
    for units in (1, 4):
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob("*/*/*/seed*/DONE.json"))) < units:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done = {str(p): p.stat().st_mtime_ns for p in out.glob("*/*/*/seed*/DONE.json")}
        assert kept <= set(done.items())  # nothing that was done is done again
        kept = set(done.items())
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
    assert kept <= {(str(p), p.stat().st_mtime_ns) for p in out.glob("*/*/*/seed*/DONE.json")}
    assert digests(out) == digests(finished[0])


def test_manifest_says_what_is_held_out(finished, folds, question):
    """R06: the grouping variable is in the manifest, and reading it checks for leaks again."""
    again, digest = read_manifest(finished[1][0])
    assert digest == "d" * 64
    for fold, read in zip(folds, again, strict=True):
        assert (fold.name, fold.holds_out) == (read.name, read.holds_out)
        assert_array_equal(fold.valid, read.valid)
        assert not set(read.groups[read.train]) & set(read.groups[read.valid])
    path = finished[1][0].folder / "folds.json"
    text = path.read_text()
    try:
        manifest = json.loads(text)
        manifest["folds"][0]["train"].append(manifest["folds"][0]["valid"][0])
        path.write_text(json.dumps(manifest))
        with pytest.raises(LeakError):
            read_manifest(finished[1][0])
    finally:
        path.write_text(text)


def test_scoring_fitted_rows_is_refused_unless_said(question):
    """R10."""
    rows = assemble(question, FeatureConfig(), train=np.arange(len(question)), valid=np.arange(3))
    model = build("gene-mean").fit(rows.train, seed=0)
    with pytest.raises(LeakError, match=r"3 of 3 rows to be scored were fitted on.*in_sample=True"):
        cv.predict_held_out(model, rows.valid, fitted_on=rows.train)
    assert cv.predict_held_out(model, rows.valid, fitted_on=rows.train, in_sample=True).shape == (3, 20)


def test_bad_predictions_are_refused(question):
    class Broken:
        def __init__(self, values):
            self.values = values

        def predict(self, rows):
            return self.values

    rows = assemble(question, FeatureConfig(), train=np.arange(4, len(question)), valid=np.arange(4))
    with pytest.raises(InputError, match="values that are not finite"):
        cv.predict_held_out(Broken(np.full((4, 20), np.nan)), rows.valid, fitted_on=rows.train)
    with pytest.raises(InputError, match=r"shape \(4, 19\) instead of \(4, 20\)"):
        cv.predict_held_out(Broken(np.zeros((4, 19))), rows.valid, fitted_on=rows.train)


def test_a_faulty_recipe_stops_before_anything_is_fitted(question, folds, tmp_path):
    bad = Recipe(name="bad", model="lightgbm", reason="test", settings={"rouns": 3})
    with pytest.raises(InputError, match="'rouns'"):
        run(question, folds, tmp_path / "runs", recipes=[RECIPES[0], bad])
    assert not (tmp_path / "runs").exists()


def test_predictions_survive_the_disk(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    for i, scale in enumerate((1, 3)):
        write_predictions(tmp_path / f"{i}.parquet", Predictions(np.array([5, 1, 9]), tuple("abcd"), values * scale))
    read = read_predictions(tmp_path / "0.parquet")
    assert_array_equal(read.values, values)
    assert (read.genes, read.ids.tolist()) == (tuple("abcd"), [5, 1, 9])
    assert_allclose(mean_predictions([tmp_path / "0.parquet", tmp_path / "1.parquet"]).values, values * 2, rtol=1e-6)
    (tmp_path / "0.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path / "0.parquet")


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(InputError, match="no finished unit in it"):
        open_run(tmp_path)


def test_training_is_logged(question, folds, tmp_path):
    """metrics.jsonl has a line per epoch, TensorBoard the same numbers."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = {"members": 1, "plain_members": 0, "training": {"epochs": 3, "device": "cpu"}, "blocks": []}
    net = Recipe(name="net", model="transformer", reason="test", settings=settings)
    (done,) = run(question, folds[:1], tmp_path, recipes=[net], seeds=1)
    (unit,) = done.units("fold*")
    losses = [json.loads(line)["loss"] for line in (unit / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 3
    events = EventAccumulator(str(done.folder / "tensorboard" / unit.relative_to(done.folder)))
    events.Reload()
    assert_allclose([event.value for event in events.Scalars("loss")], losses, rtol=1e-6)
