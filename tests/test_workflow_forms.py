"""Competitions of other sizes and forms through the whole workflow: what changes nothing, and what must change."""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from command_line import FLOORS, pertcast, places, submit, write_preset
from pertcast import workflow
from pertcast.facts import remarks as remarks_of
from pertcast.io.cells import read_openproblems


def test_a_competition_of_another_size(tables, tmp_path):
    """R39: 37 genes, 5 compounds, 3 cell types, 4 rows to predict, through every model of `fast`; no solution."""
    data = tables.write(tmp_path / "data")
    done = submit(data, tmp_path / "out.csv", tmp_path, "--json")
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table.columns) == ["id", *tables.y.columns]
    assert len(table) == 4
    said = json.loads(done.out)
    assert said["score"] is None
    assert {line["name"] for line in said["cv"]["lines"]} == FLOORS | {"blend", "small", "trees", "ridge"}
    remarks = "\n".join(said["remarks"])
    assert "2 of 4 rows ask for 2 compounds that training never saw: NA, new." in remarks
    assert "predicted from the cell type alone: 2, id 2, 3." in remarks
    facts = json.loads((tmp_path / "out.json").read_text())["facts"]
    assert facts["from_cell_type_alone"] == [2, 3]


def test_a_structure_in_id_map_is_used(tables, tmp_path):
    """A compound that training never saw is described by its own SMILES; only the row without one is listed."""
    preset = write_preset(tmp_path / "recipes")
    recipe = preset.with_name("small.toml")
    predictions, remarks = [], []
    for number, smiles in enumerate(("c1ccncc1", "CC(=O)O")):
        tables.id_map["SMILES"] = [None, None, smiles, None]
        data = tables.write(tmp_path / f"data{number}")
        result = workflow.cross_validate(
            [str(recipe)], data, out=tmp_path / "runs", cache=tmp_path / "cache", folds="random"
        )
        predictions.append(workflow.cv.test_predictions(result.runs)["small"].values)
        remarks.append(remarks_of(result.competition, result.question))
    np.testing.assert_array_equal(predictions[0][[0, 1, 3]], predictions[1][[0, 1, 3]])
    assert np.abs(predictions[0][2] - predictions[1][2]).max() > 1e-4
    assert remarks[0][-1].endswith("predicted from the cell type alone: 1, id 3.")


def test_the_shuffled_files_give_the_same_answers(tables, tmp_path):
    """S004-02, R05: genes and ids are names. Columns of the training table and of the sample in other orders."""
    plain = tables.write(tmp_path / "plain")
    genes = list(tables.y.columns)
    tables.y = tables.y[sorted(genes)]
    other = tables.write(tmp_path / "other")
    zeros = pd.DataFrame(0.0, index=range(4), columns=genes[::-1])
    zeros.insert(0, "id", tables.id_map["id"])
    zeros.to_csv(other / "sample_submission.csv", index=False)
    frames = []
    for data in (plain, other):
        fitted = workflow.cross_validate(["ridge"], data, out=tmp_path / data.name / "runs", cache=tmp_path / "cache")
        done = workflow.ensemble([run.folder for run in fitted.runs], data, tmp_path / f"{data.name}.csv")
        frames.append(pd.read_csv(done.path).set_index("id"))
    assert list(frames[1].columns) == genes[::-1]
    np.testing.assert_allclose(frames[1][genes].to_numpy(), frames[0][genes].to_numpy(), atol=1e-5)


@pytest.fixture
def openproblems(tables, tmp_path) -> Path:
    """Write the tables in the OpenProblems form, with two layers of which one is twice the other."""
    folder = tmp_path / "data"
    folder.mkdir()
    y = tables.y.to_numpy(np.float32)
    adata = anndata.AnnData(
        obs=tables.train.set_index(pd.Index([f"row{i}" for i in range(13)])),
        var=pd.DataFrame(index=tables.y.columns),
        layers={"clipped_sign_log10_pval": y, "logFC": 2 * y[::-1]},
    )
    adata.write_h5ad(folder / "de_train.h5ad")
    tables.id_map.to_csv(folder / "id_map.csv", index=False)
    return folder


def test_openproblems_in_and_out(openproblems, tables, tmp_path):
    """The h5ad form: layers["prediction"] with one row per id and the training genes by name, from the layer asked."""
    write_preset(tmp_path / "recipes")
    preset = tmp_path / "recipes" / "plain.toml"
    preset.write_text('reason = "tests"\nrecipes = ["ridge"]\nfolds = "random"\n')
    values = {}
    for layer in (None, "clipped_sign_log10_pval", "logFC"):
        out = tmp_path / f"{layer}.h5ad"
        done = pertcast(
            "submission", "--data", openproblems, "--out", out, "--preset", preset, "--format", "openproblems",
            *places(tmp_path), *(["--layer", layer] if layer else []),
        )  # fmt: skip
        assert done.code == 0, done.err
        obs, values[layer], genes = read_openproblems(out, "prediction")
        assert genes == tuple(tables.y.columns)
        adata = anndata.read_h5ad(out)
        assert adata.obs_names.tolist() == ["0", "1", "2", "3"]
        assert adata.uns["method_id"] == "pertcast_plain"
        assert np.isfinite(values[layer]).all()
    np.testing.assert_array_equal(values[None], values["clipped_sign_log10_pval"])
    done = pertcast("check", openproblems, "--layer", "logfc")
    assert done.code == 2
    assert "Unknown layer 'logfc'. Did you mean 'logFC'? Known: clipped_sign_log10_pval, logFC." in done.err
    competition = workflow.read(openproblems, layer="logFC")
    np.testing.assert_array_equal(competition.y, 2 * tables.y.to_numpy(np.float32)[::-1])


def test_kaggle_form_and_openproblems_form_say_the_same(openproblems, tables, tmp_path):
    """The form of the files changes no number."""
    tables.y = tables.y.astype(np.float32)
    kaggle = tables.write(tmp_path / "kaggle")
    scores = []
    for data in (kaggle, openproblems):
        result = workflow.cross_validate(["ridge"], data, out=tmp_path / "runs", cache=tmp_path / "cache")
        scores.append(result.table.line("ridge").mrrmse)
    assert scores[0] == scores[1]


def test_recipes_for_unseen_compounds_are_tried_only_where_some_are_asked_for(tables, tmp_path):
    """Unseen compounds are a question of their own; a competition without them does not pay for its recipes."""
    named = {"out": tmp_path / "runs", "cache": tmp_path / "cache", "folds": "random", "unseen": ["ridge-chemistry"]}
    asked = workflow.cross_validate(["ridge-onehot"], tables.write(tmp_path / "data"), **named)
    tables.id_map = tables.id_map.iloc[:2]
    known = workflow.cross_validate(["ridge-onehot"], tables.write(tmp_path / "known"), **named)
    names = [{run.recipe.name for run in result.runs} for result in (asked, known)]
    assert names[0] - names[1] == {"ridge-chemistry"}
    assert names[1] - FLOORS == {"ridge-onehot"}
