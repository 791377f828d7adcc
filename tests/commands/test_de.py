"""`pertcast de` from a file of simulated cells to tables, and on measured cells."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from command_line import partials, pertcast, refused
from pertcast.cell_tasks.differential import differential_expression
from pertcast.de.presets import analysis
from pertcast.io.tables import read_competition

COLUMNS = ("--group", "type", "--condition", "drug", "--control", "dmso", "--replicate", "donor", "--replicate", "well")


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Write simulated cells: two types, three drugs, two donors x two wells, five cells each; gene 3 rises under x."""
    levels = [["T cells", "NK cells"], ["dmso", "x", "y"], ["d1", "d2"], ["w1", "w2"], range(5)]
    obs = pd.MultiIndex.from_product(levels, names=["type", "drug", "donor", "well", "cell"]).to_frame(index=False)
    rng = np.random.default_rng(0)
    mean = np.exp(rng.normal(1.5, 0.7, 60)) * rng.gamma(10, 0.1, (len(obs), 1))
    mean[obs["drug"] == "x", 3] *= 8
    obs["SMILES"] = obs["drug"].map({"dmso": "CS(C)=O", "x": "CCO", "y": "CCN"})
    obs["sm_lincs_id"] = "LSM-" + obs["drug"]
    obs["control"] = obs["drug"] == "x"
    obs.index = obs.index.astype(str)
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    var = pd.DataFrame(index=[f"G{j}" for j in range(60)])
    ad.AnnData(sparse.csr_matrix(rng.poisson(mean).astype(np.float32)), obs, var).write_h5ad(path)
    return path


def test_tables_and_answer(cells, tmp_path):
    out, long = tmp_path / "de_train.parquet", tmp_path / "long.parquet"
    done = pertcast("de", cells, *COLUMNS, "--covariate", "donor", "--out", out, "--long", long, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert (facts["rows"], facts["samples"], facts["samples_dropped"]) == (4, 24, 0)
    assert [group["group"] for group in facts["groups"]] == ["NK cells", "T cells"]
    assert facts["groups"][0]["columns"] == 4
    wide = pd.read_parquet(out)
    assert list(wide.columns[:5]) == ["cell_type", "sm_name", "sm_lincs_id", "SMILES", "control"]
    assert (wide.dtypes.iloc[5:] == np.float64).all()
    assert wide.shape == (4, 65)
    assert list(wide.loc[wide["sm_name"] == "x", "G3"] > 3) == [True, True]
    table = pd.read_parquet(long)
    assert len(table) == sum(group["genes_tested"] * 2 for group in facts["groups"])
    one = table[(table["cell_type"] == "T cells") & (table["sm_name"] == "x")].set_index("gene")
    row = wide[(wide["cell_type"] == "T cells") & (wide["sm_name"] == "x")].iloc[0]
    assert_allclose(np.sign(one["t"]) * -np.log10(one["p"]), row[one.index].astype(float))
    assert (one["adjusted_p"] >= one["p"]).all()


def test_the_table_serves_as_a_competitions_training_table(cells, tmp_path):
    assert pertcast("de", cells, *COLUMNS, "--out", tmp_path / "de_train.parquet").code == 0
    (tmp_path / "id_map.csv").write_text("id,cell_type,sm_name\n0,T cells,z\n")
    competition = read_competition(tmp_path)
    assert competition is not None
    assert pertcast("check", tmp_path).code == 0


def test_same_bytes_twice(cells, tmp_path):
    for name in ("a", "b"):
        files = ("--out", tmp_path / f"{name}.parquet", "--long", tmp_path / f"{name}-long.parquet")
        assert pertcast("de", cells, *COLUMNS, *files).code == 0
    for kind in ("", "-long"):
        assert (tmp_path / f"a{kind}.parquet").read_bytes() == (tmp_path / f"b{kind}.parquet").read_bytes()


def test_options_count(cells, tmp_path):
    """Each option changes what it says: weights, filter, exact contrasts, least number of cells."""

    def response(*options):
        out = tmp_path / "out.parquet"
        done = pertcast("de", cells, *COLUMNS, "--covariate", "donor", "--out", out, *options)
        assert done.code == 0, done.err
        return pd.read_parquet(out).iloc[:, 5:].to_numpy(), done

    plain, done = response()
    assert "NK cells: 12 samples, 2 conditions" in done.out
    for option in ("--no-voom", "--exact", "--no-filter"):
        other, _ = response(option)
        assert np.abs(other - plain).max() > 0, option
        assert np.corrcoef(other.ravel(), plain.ravel())[0, 1] > 0.9
    refused(pertcast("de", cells, *COLUMNS, "--out", tmp_path / "o.parquet", "--min-cells", 6), "the largest has 5")


def test_dropped_samples_and_columns_are_said(cells, tmp_path):
    cells_ = ad.read_h5ad(cells)
    some = (cells_.obs["drug"] != "y") | (cells_.obs["donor"] != "d2") | (cells_.obs["cell"] < 2)
    cells_[some.to_numpy()].copy().write_h5ad(tmp_path / "some.h5ad")
    out = tmp_path / "out.parquet"
    done = pertcast("de", tmp_path / "some.h5ad", *COLUMNS, "--min-cells", 3, "--out", out)
    assert done.code == 0
    assert "4 samples of too few cells were dropped: NK cells / d2 / w1 / y / 2, " in done.err


def test_a_group_that_cannot_be_tested_can_be_skipped(cells, tmp_path):
    cells_ = ad.read_h5ad(cells)
    keep = (cells_.obs["type"] != "NK cells") | (cells_.obs["drug"] != "dmso")
    cells_[keep.to_numpy()].copy().write_h5ad(tmp_path / "some.h5ad")
    arguments = ("de", tmp_path / "some.h5ad", *COLUMNS, "--out", tmp_path / "out.parquet")
    refused(pertcast(*arguments), "type 'NK cells': no sample of the control 'dmso'.*\n.*skip such groups")
    assert not (tmp_path / "out.parquet").exists()
    done = pertcast(*arguments, "--skip")
    assert done.code == 0
    assert "Skipped: type 'NK cells'" in done.err
    assert set(pd.read_parquet(tmp_path / "out.parquet")["cell_type"]) == {"T cells"}


def test_faults_of_the_call(cells, tmp_path):
    out = ("--out", tmp_path / "out.parquet")
    wrong = ("--group", "kind", "--condition", "drug", "--control", "dmso", "--replicate", "plate")
    refused(pertcast("de", cells, *wrong, *out), "lacks the columns kind, plate; it has type, drug")
    refused(pertcast("de", cells, *COLUMNS, "--out", tmp_path / "out.csv"), "must end in .parquet")
    refused(pertcast("de", cells, *COLUMNS, *out, "--long", out[1]), "named twice")
    refused(pertcast("de", cells, *COLUMNS, *out, "--layer", "counts"), "Unknown layer 'counts'. Known: none")
    refused(pertcast("de", tmp_path / "no.h5ad", *COLUMNS, *out), r"no.h5ad' does not exist. Give one of: h5ad")
    (tmp_path / "text.h5ad").write_text("no")
    refused(pertcast("de", tmp_path / "text.h5ad", *COLUMNS, *out), "not a whole h5ad file")
    alone = [*COLUMNS[:6], "--replicate", "type"]
    refused(pertcast("de", cells, *alone, *out), "3 samples leave no residual degrees of freedom.*one replicate only")
    scaled = ad.read_h5ad(cells)
    scaled.X = scaled.X / 3
    scaled.write_h5ad(tmp_path / "scaled.h5ad")
    refused(pertcast("de", tmp_path / "scaled.h5ad", *COLUMNS, *out), "counts are not whole.*\nGive raw counts")
    assert partials(tmp_path) == []
    assert not out[1].exists()


@pytest.mark.real_data
def test_measured_cells(real_data, tmp_path):
    """The command writes what the functions return; those are held to R in tests/de."""
    path = real_data / "kang" / "kang_donors_1556.h5ad"
    columns = {"group": "cell_type", "condition": "condition", "control": "control"}
    arguments = [part for name, value in columns.items() for part in (f"--{name}", value)]
    out = tmp_path / "out.parquet"
    done = pertcast("de", path, *arguments, "--replicate", "sample", "--out", out, "--json")
    assert done.code == 0
    wide = pd.read_parquet(out)
    table = differential_expression(path, analysis(**columns, replicate=["sample"])).table
    assert_array_equal(wide.iloc[:, 2:].to_numpy(), table.signed_log10_p)
    assert json.loads(done.out)["rows"] == 5
