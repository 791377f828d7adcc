"""`pertcast cells convert`, and every command that reads cells, on cells in forms other than h5ad."""

import gzip
import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from cell_cases import make_cells
from cell_files import COLUMNS, table, write
from command_line import partials, pertcast, refused
from pertcast.cell_tasks.runs import digest_data

FORMS = ("mtx", "csv", "folder", "npy")


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """What the commands say of the same cells as h5ad."""
    folder = tmp_path_factory.mktemp("h5ad")
    return folder, run_all(write(make_cells(cells=180), "h5ad", folder), folder)


def run_all(data, folder):
    """Fit, predict, evaluate and benchmark; by gene means, since forms order cells in their own way."""
    done = pertcast("cells", "fit", "default", data, *COLUMNS, "--out", folder / "run", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    out = folder / "pred.h5ad"
    done = pertcast("cells", "predict", folder / "run", data, "--condition", "up", "--mean", "--out", out)
    assert done.code == 0, done.err
    pred = ad.read_h5ad(out)
    where = ("--truth-where", "condition=up", "--control-where", "condition=control")
    done = pertcast("cells", "evaluate", out, data, "--control", data, *where, "--json")
    assert done.code == 0, done.err
    scores = json.loads(done.out)["scores"]
    done = pertcast(
        "cells", "benchmark", data, "--holdout-key", "context", "--models", "no-change", "--condition", "up",
        "--holdout", "type0", "--jobs", "1", "--out", folder / "bench", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    means = pd.Series(np.asarray(pred.X.mean(axis=0)).ravel(), index=pred.var_names).sort_index()
    return (
        {name: told[name] for name in ("cells", "genes", "untreated", "conditions", "contexts", "unit")},
        means,
        scores,
    )


@pytest.mark.parametrize("form", FORMS)
def test_every_command_takes_every_form(form, oracle, tmp_path):
    """S003-15: the same cells in another form give the same facts, predictions and scores."""
    facts, means, scores = run_all(write(make_cells(cells=180), form, tmp_path), tmp_path)
    assert facts == oracle[1][0]
    np.testing.assert_allclose(means, oracle[1][1], rtol=1e-5)
    for name in ("mae_of_means", "wasserstein"):
        for side in ("prediction", "no change"):
            np.testing.assert_allclose(scores[side][name], oracle[1][2][side][name], rtol=1e-4)


def test_differential_expression_takes_other_forms_too(tmp_path):
    cells, tables = make_cells(cells=240), []
    for form in ("h5ad", "mtx"):
        path = write(cells, form, tmp_path)
        beside = path / "obs.csv" if form == "mtx" else tmp_path / "cells.obs.csv"
        table(cells).assign(well=[f"w{i // 9 % 3}" for i in range(240)]).to_csv(beside)
        out = tmp_path / f"{form}.parquet"
        done = pertcast("de", path, "--group", "context", "--condition", "condition", "--control", "control",
                        "--replicate", "well", "--no-filter", "--skip", "--out", out)  # fmt: skip
        assert done.code == 0, done.err
        tables.append(pd.read_parquet(out))
    pd.testing.assert_frame_equal(*tables)
    assert tables[0].filter(like="GENE").abs().to_numpy().max() > 1


@pytest.mark.parametrize("form", FORMS)
def test_a_conversion_holds_the_same_cells(form, tmp_path):
    cells = make_cells(cells=90)
    out = tmp_path / "out.h5ad"
    done = pertcast("cells", "convert", write(cells, form, tmp_path), "--out", out, "--json")
    assert done.code == 0, done.err
    got = ad.read_h5ad(out)
    if form != "npy":  # rows of a bare matrix have no names
        got = got[list(cells.ids)]
    assert_array_equal(got[:, list(cells.genes)].X.toarray(), cells.x.toarray())
    assert_array_equal(got.obs[["condition", "context"]].astype(str).to_numpy(), table(cells).to_numpy())
    assert json.loads(done.out)["labels"]["condition"] == ["control", "down", "up"]
    before = out.read_bytes()
    assert pertcast("cells", "convert", write(cells, "h5ad", tmp_path), "--out", tmp_path / "b.h5ad").code == 0
    assert pertcast("cells", "convert", tmp_path / "b.h5ad", "--out", tmp_path / "c.h5ad").code == 0
    assert (tmp_path / "b.h5ad").read_bytes() == (tmp_path / "c.h5ad").read_bytes()
    assert out.read_bytes() == before


def test_a_text_matrix_of_biopsies(tmp_path):
    """S001-18: genes x cells on a log scale, states by the ends of barcodes, protein-coding genes that vary."""
    rng = np.random.default_rng(0)
    biopsies = ["A1", "A2", "A3", "B1", "B2", "B3", "C1", "C2", "C3"]
    ids = [f"{''.join(rng.choice(list('ACGT'), 8))}-{biopsies[i % 9]}" for i in range(45)]
    genes = [f"GENE{j}" for j in range(20)]
    x = np.log1p(rng.poisson(0.5, (20, 45))).round(4)
    x[3], x[11] = 0, 1.5  # of one value in all cells
    frame = pd.DataFrame(x, index=genes, columns=ids)
    source = tmp_path / "Expression_matrix.txt.gz"
    source.write_bytes(gzip.compress(frame.to_csv(sep="\t").encode()))
    coding = [gene for gene in genes if gene not in ("GENE5", "GENE6")]
    (tmp_path / "coding.tsv").write_text("".join(f"{gene}\tENSG\n" for gene in [*coding, "ELSEWHERE"]))
    arguments = ("cells", "convert", source, "--genes-in", "rows", "--suffix", "3=UC inflamed", "--suffix",
                 "2=UC non-inflamed", "--suffix", "=Healthy", "--genes", tmp_path / "coding.tsv",
                 "--drop-constant")  # fmt: skip
    done = pertcast(*arguments, "--out", tmp_path / "a.h5ad", "--json")
    assert done.code == 0, done.err
    assert "2 of 20 genes are not listed" in done.err
    assert "2 of 18 genes do not vary" in done.err
    got = ad.read_h5ad(tmp_path / "a.h5ad")
    kept = [gene for gene in coding if frame.loc[gene].nunique() > 1]
    assert list(got.var_names) == kept
    assert len(kept) == 16
    assert_array_equal(got.X.toarray(), frame.loc[kept].T.to_numpy(np.float32))
    state = {"1": "Healthy", "2": "UC non-inflamed", "3": "UC inflamed"}
    assert list(got.obs["condition"]) == [state[name[-1]] for name in ids]
    assert list(got.obs["sample"]) == [name[-2:] for name in ids]
    assert json.loads(done.out)["unit"] == "log1p"


def test_what_cannot_be_converted_is_said(tmp_path):
    cells = make_cells(cells=30)
    path = write(cells, "csv", tmp_path)
    out = ("--out", tmp_path / "out.h5ad")
    refused(pertcast("cells", "convert", path, "--out", tmp_path / "out.csv"), r"must end in \.h5ad")
    refused(pertcast("cells", "convert", path, "--genes-in", "row", *out), "Did you mean 'rows'")
    refused(pertcast("cells", "convert", path, "--gene-names", "ids", *out), "Did you mean 'id'")
    refused(pertcast("cells", "convert", path, "--suffix", "3", *out), "Expected ending=condition")
    refused(pertcast("cells", "convert", path, "--suffix", "0=a", *out), r"27 of 30 cells end in none of '0'")
    (tmp_path / "genes.txt").write_text("ENSG1\n")
    refused(pertcast("cells", "convert", path, "--genes", tmp_path / "genes.txt", *out), "lists none of the 12 genes")
    refused(pertcast("cells", "convert", tmp_path / "none.csv", *out), "does not exist. Give one of: h5ad")
    frame = pd.DataFrame(-cells.x.toarray()[:5], index=cells.ids[:5], columns=[*cells.genes[:11], cells.genes[0]])
    frame.to_csv(tmp_path / "cells.csv.gz")
    refused(pertcast("cells", "convert", path, *out), r"(?s)2 problems.*1 genes occur more than once.*below 0")
    assert not (tmp_path / "out.h5ad").exists()
    assert partials(tmp_path) == []


def test_a_table_beside_the_data_is_part_of_them(tmp_path):
    """Another label of one cell is another data set, and a finished run is not taken for it."""
    path = write(make_cells(cells=90), "csv", tmp_path)
    before = digest_data(path)
    told = table(make_cells(cells=90))
    told.iloc[0, 0] = "down"
    told.to_csv(tmp_path / "cells.obs.csv")
    assert digest_data(path) != before
    folder = write(make_cells(cells=90), "mtx", tmp_path)
    once = digest_data(folder)
    folder.rename(tmp_path / "renamed")
    assert digest_data(tmp_path / "renamed") == once
