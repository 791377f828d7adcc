"""`pertcast de` from the competition's long table of cells, against the same cells as h5ad; published designs."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from command_line import pertcast, refused
from pertcast.de.presets import ANALYSES
from pertcast.io.tables import read_competition

GENES = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write simulated cells of two types, two plates a donor, as long table and as h5ad; every 7th pair is excluded."""
    home = tmp_path_factory.mktemp("long")
    drugs = ["Dimethyl Sulfoxide", "x", "y", "z"]
    levels = [["NK cells", "T cells"], drugs, [0, 1, 2, 3], range(2), range(4)]
    obs = pd.MultiIndex.from_product(levels, names=["cell_type", "sm_name", "plate", "half", "cell"])
    obs = obs.to_frame(index=False)
    rng = np.random.default_rng(0)
    row = np.array(list("ABCD"))[(obs["sm_name"].map(drugs.index) + obs["plate"]) % 4]
    obs["well"] = row + obs["half"].astype(str)
    obs["row"] = row
    obs["plate_name"] = "plate_" + obs["plate"].astype(str)
    obs["donor_id"] = "donor_" + (obs["plate"] // 2).astype(str)
    obs["sm_lincs_id"] = "LSM-" + obs["sm_name"].map(drugs.index).astype(str)
    obs["SMILES"] = obs["sm_name"].map(dict(zip(drugs, ["CS(C)=O", "CCO", "CCN", "CCC"], strict=True)))
    obs["control"] = obs["sm_name"] == "x"
    obs["obs_id"] = [f"{k:016x}" for k in rng.permutation(len(obs))]
    obs = obs.drop(columns=["plate", "half", "cell"])
    mean = np.exp(rng.normal(1.2, 0.8, GENES)) * rng.gamma(10, 0.1, (len(obs), 1))
    mean[obs["sm_name"] == "x", 3] *= 6
    counts = rng.poisson(mean)
    counts[:, -1] = 0
    cell, gene = np.nonzero(counts)
    names = np.array([f"G{j:02d}" for j in range(GENES)])
    long = pd.DataFrame({"obs_id": obs["obs_id"].to_numpy()[cell], "gene": names[gene], "count": counts[cell, gene]})
    long.to_parquet(home / "adata_train.parquet")
    obs.to_csv(home / "adata_obs_meta.csv", index=False)
    left_out = np.arange(len(long)) % 7 == 0
    long.loc[left_out, ["obs_id", "gene"]].to_csv(home / "adata_excluded_ids.csv", index=False)
    counts[cell[left_out], gene[left_out]] = 0
    x = sparse.csr_matrix(counts.astype(np.float32))
    ad.AnnData(x, obs.set_index("obs_id"), pd.DataFrame(index=names)).write_h5ad(home / "cells.h5ad")
    return home


def table(folder, cells, tmp_path, *options):
    out = tmp_path / "de_train.parquet"
    done = pertcast("de", folder / cells, *options, "--out", out, "--json")
    assert done.code == 0, done.err
    return pd.read_parquet(out), json.loads(done.out)


@pytest.mark.parametrize("design", sorted(set(ANALYSES) - {"demo"}))  # it tests genes without counts, too
def test_the_long_table_gives_the_numbers_of_the_cells(folder, tmp_path, design):
    """COMPETITION 1.3: excluded pairs are left out, wells of two plates are two samples; the h5ad is the oracle."""
    long, told = table(folder, ".", tmp_path, "--design", design)
    wide, same = table(folder, "cells.h5ad", tmp_path, "--design", design)
    assert told["samples"] == same["samples"] == 64
    assert (
        list(long.columns[:5]) == list(wide.columns[:5]) == ["cell_type", "sm_name", "sm_lincs_id", "SMILES", "control"]
    )
    pd.testing.assert_frame_equal(long.iloc[:, :5], wide.iloc[:, :5])
    assert_allclose(long.iloc[:, 5:].to_numpy(), wide[long.columns[5:]].to_numpy(), rtol=1e-9)
    assert set(wide.columns) - set(long.columns) == {f"G{GENES - 1}"}  # a gene without a count is in no long table
    assert (long.loc[long["sm_name"] == "x", "G03"] > 3).all()


def test_the_designs_are_the_published_ones(folder, tmp_path):
    """~0+Rpert+donor_id+plate_name+row without a filter in each type; ~0+sm_cell_type+plate_name over both."""
    _, told = table(folder, "adata_train.parquet", tmp_path, "--design", "kaggle")
    spelt = ("--group", "cell_type", "--condition", "sm_name", "--control", "Dimethyl Sulfoxide", "--no-filter",
             "--replicate", "plate_name", "--replicate", "well", "--covariate", "donor_id", "--covariate", "plate_name",
             "--covariate", "row")  # fmt: skip
    assert table(folder, ".", tmp_path, *spelt)[1]["groups"] == told["groups"]
    one = told["groups"][0]
    assert one["columns"] == 4 + 1 + 2 + 3  # drugs; a donor; plates but one of each donor; rows but one
    assert len(one["left_out"]) == 1  # of the plates, those of a donor determine
    _, told = table(folder, ".", tmp_path, "--design", "openproblems")
    assert [group["columns"] for group in told["groups"]] == [8 + 3, 8 + 3]


def test_rows_tell_what_they_were_computed_from(folder, tmp_path):
    """COMPETITION 1.4: cells, samples and silent genes on both sides, in a file beside the table."""
    wide, told = table(folder, ".", tmp_path, "--design", "kaggle")
    rows = pd.read_csv(told["rows_file"])
    assert told["rows_file"].endswith("de_train.rows.csv")
    pd.testing.assert_frame_equal(rows[["cell_type", "sm_name"]], wide[["cell_type", "sm_name"]])
    assert (rows[["cells", "control_cells", "samples", "control_samples"]] == [32, 32, 8, 8]).all(axis=None)
    assert_allclose(rows["reliability"], 0.5)
    obs, long = pd.read_csv(folder / "adata_obs_meta.csv"), pd.read_parquet(folder / "adata_train.parquet")
    excluded = pd.read_csv(folder / "adata_excluded_ids.csv").assign(out=True)
    left = long.merge(excluded, how="left", on=["obs_id", "gene"]).merge(obs, on="obs_id")
    left = left[left["out"].isna() & (left["cell_type"] == "T cells")]
    seen = left[left["sm_name"].isin(["y", "Dimethyl Sulfoxide"])]["gene"].nunique()
    silent = rows.set_index(["cell_type", "sm_name"]).loc[("T cells", "y"), "silent_genes"]
    assert silent == long["gene"].nunique() - seen


def test_h5ad_with_the_benchmarks_layers_reads_as_training(folder, tmp_path):
    """COMPETITION 1.6: the layers by name; what is read back is clipped at 4, the unclipped layer the Parquet's."""
    wide, _ = table(folder, ".", tmp_path, "--design", "openproblems")
    out = tmp_path / "open" / "de_train.h5ad"
    out.parent.mkdir()
    assert pertcast("de", folder, "--design", "openproblems", "--out", out).code == 0
    (out.parent / "id_map.csv").write_text("id,sm_name,cell_type\n0,new,T cells\n")
    adata = ad.read_h5ad(out)
    assert set(adata.layers) == {
        "logFC", "AveExpr", "t", "P.Value", "adj.P.Value", "B", "is_de", "is_de_adj", "sign_log10_pval",
        "sign_log10_adj_pval", "clipped_sign_log10_pval",
    }  # fmt: skip
    values = wide.iloc[:, 5:].to_numpy()
    assert np.abs(values).max() > 4
    assert_array_equal(read_competition(out.parent).y, np.clip(values, -4, 4).astype(np.float32))
    assert_array_equal(read_competition(out.parent, layer="sign_log10_pval").y, values.astype(np.float32))
    tested = np.isfinite(adata.layers["t"])
    response = -np.log10(adata.layers["P.Value"]) * np.sign(adata.layers["logFC"])
    assert_allclose(adata.layers["sign_log10_pval"][tested], response[tested], rtol=1e-9)
    assert_array_equal(adata.layers["is_de"], adata.layers["P.Value"] < 0.05)


def test_faults(folder, tmp_path):
    out = ("--out", tmp_path / "de.parquet")
    refused(pertcast("de", folder, "--design", "kagle", *out), "Unknown design 'kagle'. Did you mean 'kaggle'")
    done = pertcast("de", folder, "--group", "cell_type", *out)
    refused(done, "--condition is missing")
    assert "--control is missing" in done.err
    assert "--design kaggle or openproblems" in done.err
    refused(pertcast("de", folder, "--design", "kaggle", "--layer", "counts", *out), "has no layers")
    refused(pertcast("de", folder, "--design", "openproblems", "--skip", *out), "One model of all groups cannot leave")
    wrong = ("--design", "kaggle", "--control", "DMSO")
    refused(pertcast("de", folder, *wrong, *out), "Unknown label of 'sm_name' 'DMSO'")
    bad = tmp_path / "bad"
    bad.mkdir()
    for path in folder.iterdir():
        (bad / path.name).write_bytes(path.read_bytes())
    meta = pd.read_csv(bad / "adata_obs_meta.csv")
    meta.loc[:3, "donor_id"] = None
    meta.to_csv(bad / "adata_obs_meta.csv", index=False)
    refused(pertcast("de", bad, "--design", "kaggle", *out), "have no label: 'donor_id' in 1 of")
    (bad / "adata_obs_meta.csv").unlink()
    refused(pertcast("de", bad, "--design", "kaggle", *out), "adata_obs_meta.csv' cannot be read")
    assert not (tmp_path / "de.parquet").exists()
