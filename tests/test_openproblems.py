"""The benchmark's files both ways: from the simulated demo to h5ad, through the main job, and back."""

import json

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from command_line import pertcast, places, refused, write_preset
from pertcast.facts import write_checked
from pertcast.io.cells import read_openproblems_prediction, write_openproblems_prediction
from pertcast.io.tables import read_competition, read_template
from pertcast.simulate.demo import write_demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Write the tiny demo, and the same training rows in the benchmark's form and clipped at 4: two folders."""
    home = tmp_path_factory.mktemp("demo")
    write_demo(home / "kaggle", size="tiny")
    table = pd.read_parquet(home / "kaggle" / "de_train.parquet")
    genes = table.columns[5:]
    y = table[genes].to_numpy()
    adata = anndata.AnnData(
        obs=table.iloc[:, :5].assign(split="train").set_axis(table.index.astype(str)),
        var=pd.DataFrame(index=genes),
        layers={"clipped_sign_log10_pval": np.clip(y, -4, 4), "sign_log10_pval": y},
        uns={"dataset_id": "neurips-2023-data"},
    )
    (home / "open").mkdir()
    adata.write_h5ad(home / "open" / "de_train.h5ad")
    id_map = pd.read_csv(home / "kaggle" / "id_map.csv")
    id_map[["id", "sm_name", "cell_type"]].to_csv(home / "open" / "id_map.csv", index=False)
    return home


@pytest.fixture(scope="module")
def predicted(demo):
    """Run the main job on the benchmark's form: the folder, what the command said, and the file that it wrote."""
    write_preset(demo / "recipes")
    preset = demo / "recipes" / "plain.toml"
    preset.write_text('reason = "tests"\nrecipes = ["ridge"]\nfolds = "random"\n')
    out = demo / "prediction.h5ad"
    done = pertcast(
        "submission", "--data", demo / "open", "--out", out, "--preset", preset, "--format", "openproblems",
        *places(demo), "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    return json.loads(done.out), out


def test_read_from_the_demo(demo):
    """Both layers hold the demo's own numbers, the default one clipped at 4."""
    y = pd.read_parquet(demo / "kaggle" / "de_train.parquet").iloc[:, 5:].to_numpy()
    assert np.abs(y).max() > 4
    assert_array_equal(read_competition(demo / "open").y, np.clip(y, -4, 4).astype(np.float32))
    assert_array_equal(read_competition(demo / "open", layer="sign_log10_pval").y, y.astype(np.float32))


def test_written_by_the_schema_and_read_back(demo, predicted):
    """The schema, as anndata reads it: layer, rows named by id, genes, both ids of `uns`; the training file's own."""
    told, out = predicted
    adata = anndata.read_h5ad(out)
    id_map = pd.read_csv(demo / "open" / "id_map.csv")
    competition = read_competition(demo / "open")
    assert list(adata.layers) == ["prediction"]
    assert adata.obs_names.tolist() == id_map["id"].astype(str).tolist()
    assert tuple(adata.var_names) == competition.genes
    assert dict(adata.uns) == {"dataset_id": "neurips-2023-data", "method_id": "pertcast_plain"}
    template = read_template(demo / "open")
    again = read_openproblems_prediction(out, ids=template.ids, genes=template.genes)
    assert_array_equal(again, adata.layers["prediction"])
    back = read_openproblems_prediction(out, ids=template.ids[::-1], genes=template.genes[::-1])
    assert_array_equal(back, again[::-1, ::-1])
    done = pertcast("validate", out, "--data", demo / "open", "--json")
    assert json.loads(done.out) == {"file": str(out), "valid": True, "rows": len(id_map), "genes": len(template.genes)}
    assert told["file"] == str(out)


def test_clipped_to_the_range_of_the_responses(tmp_path, demo, monkeypatch):
    """A prediction that overshoots is cut at the largest training response, of either sign; the Kaggle form is not."""
    competition = read_competition(demo / "open")
    values = np.linspace(-9, 9, len(competition.test) * len(competition.genes), dtype=np.float32)
    values = values.reshape(len(competition.test), -1)
    said = {"name": "x", "cv_score": 1.0, "told": {}}
    path = write_checked(competition, values, tmp_path / "p.h5ad", style="openproblems", **said)
    assert_array_equal(anndata.read_h5ad(path).layers["prediction"], np.clip(values, -4, 4))
    path = write_checked(competition, values, tmp_path / "p.csv", style="kaggle", **said)
    assert_array_equal(pd.read_csv(path).iloc[:, 1:].to_numpy(np.float32), values)


def test_a_data_set_without_a_name_is_called_by_its_folder(tmp_path, tables):
    competition = read_competition(tables.write(tmp_path / "mine"))
    values = np.zeros((4, 37), np.float32)
    path = write_checked(
        competition, values, tmp_path / "p.h5ad", name="x", style="openproblems", cv_score=1.0, told={}
    )
    assert anndata.read_h5ad(path).uns["dataset_id"] == "mine"


def test_all_faults_of_a_prediction_at_once(demo, tmp_path):
    template = read_template(demo / "open")
    genes = ("unheard", *template.genes[1:])
    values = np.zeros((len(template.ids), len(genes)))
    values[1, 2] = np.nan
    path = tmp_path / "bad.h5ad"
    write_openproblems_prediction(path, ids=template.ids, genes=genes, values=values, dataset_id="d", method_id="m")
    with h5py.File(path, "r+") as file:
        del file["uns/method_id"]
        file["obs/_index"][0] = "1"
    done = pertcast("validate", path, "--data", demo / "open")
    refused(done, r"uns\['method_id'\] is missing")
    for said in ("1 rows (id) are missing: 0", "1 rows (id) are repeated: 1", "1 genes are unknown: unheard",
                 f"1 genes are missing: {template.genes[0]}", "1 values are not finite, first at id 1"):  # fmt: skip
        assert said in done.err
