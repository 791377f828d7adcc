"""`pertcast cells` from a file of simulated cells to scores, and what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, stats

from cell_cases import make_cells
from command_line import partials, pertcast, refused
from pertcast.cell_tasks.runs import open_cell_run
from pertcast.cells.registry import build, entries
from pertcast.config import cell_recipe_names, load_cell_recipe
from pertcast.io.atomic import digest_file

COLUMNS = ("--condition-key", "drug", "--control", "dmso", "--context-key", "type", "--batch-key", "plate")
QUICK = ("--set", "training.epochs=3", "--set", "hidden=8", "--set", "latent=3")


def write(cells, path: Path) -> Path:
    names = {"control": "dmso"}
    obs = pd.DataFrame(
        {"drug": [names.get(name, name) for name in cells.condition], "type": list(cells.context),
         "plate": list(cells.batch)},
        index=list(cells.ids),
    )  # fmt: skip
    ad.AnnData(sparse.csr_matrix(cells.x), obs, pd.DataFrame(index=list(cells.genes))).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Training cells, further cells, and a fitted run of the default model."""
    folder = tmp_path_factory.mktemp("cells")
    write(make_cells(0, cells=360), folder / "train.h5ad")
    write(make_cells(1, cells=360), folder / "new.h5ad")
    done = pertcast(
        "cells", "fit", "zinb-vae", folder / "train.h5ad", *COLUMNS, *QUICK, "--out", folder / "run", "--json"
    )
    assert done.code == 0, done.err
    (folder / "fit.json").write_text(done.out)
    return folder


def predict(place, out, *more, run="run", data="new.h5ad", condition="up"):
    return pertcast("cells", "predict", place / run, place / data, "--condition", condition, "--out", out, *more)


def test_a_run_holds_what_it_should(place):
    run, told = place / "run", json.loads((place / "fit.json").read_text())
    assert {path.name for path in run.iterdir()} == {
        "config.json", "inputs.json", "metrics.jsonl", "checkpoint", "reference", "DONE.json"}  # fmt: skip
    assert (told["model"], told["cells"], told["conditions"], told["contexts"]) == ("zinb-vae", 360, 2, 3)
    assert told["unit"] == "counts"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    config = json.loads((run / "config.json").read_text())
    assert config["recipe"]["settings"] == {"hidden": 8, "latent": 3, "training": {"epochs": 3}}
    assert config["columns"]["control"] == "dmso"
    assert open_cell_run(run).digest == told["digest"]
    assert partials(place) == []


def test_a_finished_run_is_not_fitted_again_and_another_is_refused(place):
    before = (place / "run" / "DONE.json").stat().st_mtime_ns
    again = ("cells", "fit", "zinb-vae", place / "train.h5ad", *COLUMNS, *QUICK, "--out", place / "run")
    done = pertcast(*again, "--json")
    assert json.loads(done.out)["fitted"] is False
    assert "finished already" in done.err
    assert (place / "run" / "DONE.json").stat().st_mtime_ns == before
    refused(pertcast(*again, "--seed", 1), "holds a run of other content")


def test_same_seed_same_bytes(place, tmp_path):
    arguments = ("cells", "fit", "zinb-vae", place / "train.h5ad", *COLUMNS, *QUICK, "--out")
    assert pertcast(*arguments, tmp_path / "again").code == 0
    for name in ("DONE.json", "metrics.jsonl", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (place / "run" / name).read_bytes()
    files = [tmp_path / f"{name}.h5ad" for name in "abc"]
    for path, seed in zip(files, (3, 3, 4), strict=True):
        assert predict(place, path, "--seed", seed).code == 0
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_prediction_of_one_context(place, tmp_path):
    out = tmp_path / "pred.h5ad"
    done = predict(place, out, "--context", "type1", "--json")
    assert done.code == 0, done.err
    told, found, data = json.loads(done.out), ad.read_h5ad(out), ad.read_h5ad(place / "new.h5ad")
    source = data[(data.obs["drug"] == "dmso") & (data.obs["type"] == "type1")]
    assert list(found.obs["source_cell"]) == list(source.obs_names)
    assert list(found.var_names) == list(data.var_names)
    assert set(found.obs["condition"]) == {"up"}
    assert set(found.obs["context"]) == {"type1"}
    assert_array_equal(found.X.data, np.round(found.X.data))  # counts in, counts out
    note = json.loads(found.uns["pertcast"])
    assert note["run"] == told["run"] == json.loads((place / "fit.json").read_text())["digest"]
    assert (note["sample"], note["unit"], note["context"]) == (True, "counts", "type1")


def test_treated_cells_are_never_looked_at(place, tmp_path):
    """Poisoned with 1e4 and shuffled among each other, they change no byte of a prediction."""
    data = ad.read_h5ad(place / "new.h5ad")
    x = data.X.toarray()
    x[data.obs["drug"] != "dmso"] = 1e4
    data.X = sparse.csr_matrix(x)
    data.write_h5ad(place / "poisoned.h5ad")
    assert predict(place, tmp_path / "a.h5ad").code == 0
    assert predict(place, tmp_path / "b.h5ad", data="poisoned.h5ad").code == 0
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()


def test_expected_counts_are_not_whole_and_keep_their_unit(place, tmp_path):
    out = tmp_path / "mean.h5ad"
    assert predict(place, out, "--mean").code == 0
    found = ad.read_h5ad(out)
    assert (found.X.data != np.round(found.X.data)).any()
    done = pertcast("cells", "evaluate", out, place / "new.h5ad", "--control", place / "new.h5ad", "--json")
    assert done.code == 0, done.err


def test_genes_come_back_in_the_order_of_the_data(place, tmp_path):
    """Columns shuffled, and one gene that training did not have: named output is the same, the new gene is carried."""
    data = ad.read_h5ad(place / "new.h5ad")
    extra = ad.AnnData(sparse.csr_matrix(np.arange(360.0, dtype=np.float32)[:, None]), data.obs,
                       pd.DataFrame(index=["NEW"]))  # fmt: skip
    wide = ad.concat([data, extra], axis=1, merge="same")
    order = np.random.default_rng(0).permutation(13)
    wide[:, order].copy().write_h5ad(place / "wide.h5ad")
    assert predict(place, tmp_path / "a.h5ad", "--mean").code == 0
    done = predict(place, tmp_path / "b.h5ad", "--mean", data="wide.h5ad")
    assert "1 genes that training did not show stay as they are" in done.err
    one, other = ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_h5ad(tmp_path / "b.h5ad")
    assert list(other.var_names) == list(wide.var_names[order])
    assert_array_equal(other[:, one.var_names].X.toarray(), one.X.toarray())
    control = (data.obs["drug"] == "dmso").to_numpy()
    assert_array_equal(other[:, "NEW"].X.toarray()[:, 0], np.arange(360.0)[control])


def test_scores_stand_beside_references(place, tmp_path):
    """S002-11: per-gene Wasserstein by scipy; a perfect prediction scores 0; the mean shift is that of training."""
    train, new = make_cells(0, cells=360), make_cells(1, cells=3600)
    truth = write(new, tmp_path / "truth.h5ad")
    assert predict(place, tmp_path / "pred.h5ad", "--context", "type0").code == 0
    arguments = ("cells", "evaluate", tmp_path / "pred.h5ad", truth, "--control", truth,
                 "--truth-where", "drug=up", "--truth-where", "type=type0", "--control-where", "drug=dmso",
                 "--control-where", "type=type0")  # fmt: skip
    done = pertcast(*arguments, "--json")
    assert done.code == 0, done.err
    scores = json.loads(done.out)["scores"]
    assert list(scores) == sorted(["prediction", "no change", "mean shift", "half of the truth"])
    rows = {name: (new.condition == name) & (new.context == "type0") for name in ("up", "control")}
    true, control = (new.x.toarray()[rows[name]] for name in ("up", "control"))
    found = ad.read_h5ad(tmp_path / "pred.h5ad").X.toarray()
    for name, side in (("prediction", found), ("no change", control)):
        oracle = np.mean([stats.wasserstein_distance(true[:, j], side[:, j]) for j in range(12)])
        assert_allclose(scores[name]["wasserstein"], oracle, rtol=1e-6)
    assert scores["half of the truth"]["wasserstein"] < scores["no change"]["wasserstein"]
    assert scores["mean shift"]["mae_of_means"] < scores["no change"]["mae_of_means"]
    shift = build("mean-shift").fit(train, seed=0).of("up")
    assert_allclose(ad.read_h5ad(tmp_path / "pred.h5ad").var["mean_shift"], shift, rtol=1e-6)
    text = pertcast(*arguments)
    assert "wasserstein" in text.out
    assert "no change" in text.out
    perfect = pertcast(
        "cells", "evaluate", place / "new.h5ad", place / "new.h5ad", "--control", place / "train.h5ad", "--json"
    )
    found = json.loads(perfect.out)["scores"]
    assert found["prediction"]["wasserstein"] == 0
    assert "mean shift (true means)" in found  # the file does not note one


def test_a_prediction_below_a_floor_is_said_to_be(place, tmp_path):
    wrong = make_cells(1, cells=360)
    write(replace(wrong, x=sparse.csr_array(wrong.x * np.float32(9))), tmp_path / "wrong.h5ad")
    done = pertcast("cells", "evaluate", tmp_path / "wrong.h5ad", place / "new.h5ad", "--control", place / "train.h5ad")
    assert "worse than 'no change' in mae_of_means, wasserstein" in done.err


@pytest.mark.parametrize("name", [name for name in entries() if name in ("no-change", "mean-shift", "quantile-map")])
def test_references_run_from_file_to_file(name, place, tmp_path):
    assert pertcast("cells", "fit", name, place / "train.h5ad", *COLUMNS, "--out", tmp_path / "run").code == 0
    done = predict(tmp_path, tmp_path / "out.h5ad", data=place / "new.h5ad", condition="down")
    assert done.code == 0, done.err
    assert ad.read_h5ad(tmp_path / "out.h5ad").shape[1] == 12


def test_genes_are_set_by_name(place, tmp_path):
    """Gene regression needs no treated cells; its conditions are genes set to counts."""
    data = ad.read_h5ad(place / "train.h5ad")
    data[data.obs["drug"] == "dmso"].copy().write_h5ad(tmp_path / "control.h5ad")
    settings = ("--set", "training.epochs=2", "--set", "hidden=4")
    fit = ("cells", "fit", "gene-regression", tmp_path / "control.h5ad", *COLUMNS, *settings, "--out", tmp_path / "run")
    assert pertcast(*fit).code == 0
    done = predict(tmp_path, tmp_path / "out.h5ad", data=place / "new.h5ad", condition="GENE0000=7,GENE0003=0")
    assert done.code == 0, done.err
    found = ad.read_h5ad(tmp_path / "out.h5ad")
    assert set(found[:, "GENE0000"].X.toarray().ravel()) == {7.0}
    assert "mean_shift" not in found.var


@pytest.mark.parametrize("name", cell_recipe_names())
def test_presets_build_their_model(name):
    recipe = load_cell_recipe(name)
    assert recipe.reason
    model = build(recipe.model, recipe.settings)
    assert model.config is not None
    if name == "system-002":
        config = model.config
        assert (config.hidden, config.latent, config.library, config.training.epochs) == (40, 10, False, 1000)


def test_a_preset_can_be_used_and_changed(place, tmp_path):
    arguments = ("cells", "fit", "zinb-vae", place / "train.h5ad", *COLUMNS, "--out", tmp_path / "run")
    done = pertcast(*arguments, "--preset", "batch-corrected", "--set", "training.epochs=2", "--set", "hidden=8")
    assert done.code == 0, done.err
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]["settings"]
    assert settings["correct_batches"] is True
    assert (settings["hidden"], settings["training"]["epochs"]) == (8, 2)
    refused(pertcast(*arguments[:2], "mean-shift", *arguments[3:], "--preset", "fast"), "for model 'zinb-vae'")


def test_wrong_input_is_refused_in_one_message(place, tmp_path):
    """Exit 2, nothing on stdout, no traceback, nothing left behind."""
    fit = ("cells", "fit", "zinb-vae", place / "train.h5ad")
    out = ("--out", tmp_path / "run")
    refused(pertcast("cells", "fit", "zinb", place / "train.h5ad", *COLUMNS, *out), "Did you mean 'zinb-vae'")
    refused(pertcast(*fit[:3], place / "none.h5ad", *COLUMNS, *out), "does not exist")
    refused(pertcast(*fit, "--condition-key", "drg", "--control", "dmso", *out), "Did you mean 'drug'")
    refused(pertcast(*fit, "--condition-key", "drug", "--control", "DMSO", *out), "Unknown label 'DMSO'")
    refused(pertcast(*fit, *COLUMNS, "--set", "hiden=3", *out), "'hiden'")
    refused(pertcast(*fit, *COLUMNS, "--preset", "fats", *out), "Unknown preset 'fats'. Did you mean 'fast'")
    pred = tmp_path / "pred.h5ad"
    refused(predict(place, pred, condition="upp"), "Unknown condition 'upp'. Did you mean 'up'")
    refused(predict(place, pred, "--context", "typ1"), "Unknown context 'typ1'. Did you mean 'type1'")
    refused(predict(place, tmp_path / "pred.csv"), r"must end in \.h5ad")
    refused(predict(tmp_path, pred, run="none", data=place / "new.h5ad"), "no finished run")
    write(make_cells(1).select(make_cells(1).genes[1:]), tmp_path / "few.h5ad")
    refused(predict(place, pred, data=tmp_path / "few.h5ad"), "Cells lack 1 of 12 genes")
    refused(pertcast("cells", "evaluate", tmp_path / "few.h5ad", place / "new.h5ad", "--control", place / "new.h5ad"),
            "few.h5ad' lacks 1 of the 12 genes of the truth: GENE0000")  # fmt: skip
    refused(pertcast("cells", "evaluate", place / "new.h5ad", place / "new.h5ad", "--control", place / "new.h5ad",
                     "--truth-where", "drug"), "Expected column=label")  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"few.h5ad"}


def test_units_are_not_mixed(place, tmp_path):
    logs = make_cells(1)
    write(replace(logs, x=sparse.csr_array(np.log1p(logs.x.toarray()))), tmp_path / "logs.h5ad")
    refused(predict(place, tmp_path / "pred.h5ad", data=tmp_path / "logs.h5ad"), "reads counts, got log1p")
    refused(pertcast("cells", "evaluate", tmp_path / "logs.h5ad", place / "new.h5ad", "--control", place / "new.h5ad"),
            "The prediction holds log1p values, the truth counts")  # fmt: skip
    refused(pertcast("cells", "evaluate", place / "new.h5ad", tmp_path / "logs.h5ad", "--control", place / "new.h5ad"),
            "The prediction holds counts values, the truth log1p")  # fmt: skip
    assert pertcast("cells", "fit", "default", tmp_path / "logs.h5ad", *COLUMNS, "--out", tmp_path / "run").code == 0
    refused(predict(tmp_path, tmp_path / "pred.h5ad", data=place / "new.h5ad"), "fitted to log1p values, got counts")


def test_a_changed_run_is_refused(place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    with open(tmp_path / "run" / "checkpoint" / "zinb-vae.json", "a") as file:
        file.write(" ")
    done = predict(tmp_path, tmp_path / "pred.h5ad", data=place / "new.h5ad")
    refused(done, "was changed after it was written: checkpoint/zinb-vae.json")


def test_a_run_of_another_version_is_refused(place, tmp_path):
    """Its checkpoint lacks what this version reads; the message says which version wrote it."""
    run = shutil.copytree(place / "run", tmp_path / "run")
    about, inputs, done = (run / name for name in ("checkpoint/zinb-vae.json", "inputs.json", "DONE.json"))
    saved = json.loads(about.read_text())
    saved["facts"] = {"old": True}
    about.write_text(json.dumps(saved))
    inputs.write_text(json.dumps({**json.loads(inputs.read_text()), "pertcast": "0.0.9", "code": "other"}))
    digests = json.loads(done.read_text())["digests"]
    digests |= {str(path.relative_to(run)): digest_file(path) for path in (about, inputs)}
    done.write_text(json.dumps({"digests": digests}))
    wrong = predict(tmp_path, tmp_path / "pred.h5ad", data=place / "new.h5ad")
    refused(wrong, r"its checkpoint cannot be read: KeyError.*written by pertcast 0\.0\.9 with other code")
    assert not (tmp_path / "pred.h5ad").exists()


def test_genes_that_do_not_overlap_are_counted(place, tmp_path):
    """Eleven of twelve are others; and none at all."""
    cells = make_cells(1, cells=60)
    for kept in (1, 0):
        names = (*cells.genes[:kept], *(f"OTHER{j}" for j in range(12 - kept)))
        write(replace(cells, genes=names), tmp_path / "other.h5ad")
        refused(predict(place, tmp_path / "pred.h5ad", data=tmp_path / "other.h5ad"), f"Cells lack {12 - kept} of 12")
        wrong = pertcast(
            "cells", "evaluate", tmp_path / "other.h5ad", place / "new.h5ad", "--control", place / "new.h5ad"
        )
        refused(wrong, f"other.h5ad' lacks {12 - kept} of the 12 genes of the truth")


def test_models_are_listed():
    told = json.loads(pertcast("cells", "models", "--json").out)
    assert {one["name"] for one in told["models"]} == set(entries())
    assert told["default"] in entries()
    assert "zinb-vae" in pertcast("cells", "models").out
