"""`pertcast cells masked`, `trajectory` and `knows`, from a file of simulated cells to tables and pictures."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from cell_cases import make_cells
from command_line import partials, pertcast, refused
from pertcast.cell_tasks.runs import open_cell_run
from pertcast.cells.log_scale import as_log1p

COLUMNS = ("--condition-key", "drug", "--control", "control", "--batch-key", "plate")
QUICK = ("--set", "training.epochs=3", "--set", "hidden=[8]")
VIRTUAL = (*QUICK, "--set", "hiding.zeros=true")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with cells and a run of a virtual cell."""
    folder = tmp_path_factory.mktemp("virtual")
    cells = make_cells(0, cells=360, genes=30)
    obs = pd.DataFrame(
        {"drug": list(cells.condition), "type": list(cells.context), "plate": list(cells.batch),
         "donor": [f"donor-{i % 5}" for i in range(360)]},
        index=list(cells.ids),
    )  # fmt: skip
    var = pd.DataFrame(index=list(cells.genes))
    ad.AnnData(sparse.csr_matrix(cells.x), obs, var).write_h5ad(folder / "cells.h5ad")
    fit = ("cells", "fit", "masked-autoencoder", folder / "cells.h5ad", *COLUMNS, "--context-key", "type")
    assert pertcast(*fit, *VIRTUAL, "--out", folder / "run").code == 0
    return folder


def trajectory(place, out, *more, run="run"):
    return pertcast("cells", "trajectory", place / run, place / "cells.h5ad", "--out", out, *more)


def test_a_trajectory_of_one_cell(place, tmp_path):
    """S001-11, R13: every state as CSV, the atlas as picture and page; the first state is the observed cell."""
    change = ("--gene", "GENE0001", "--target", "8", "--gene", "GENE0003", "--target", "0")
    done = trajectory(place, tmp_path, "--cell", "cell7", *change, "--steps", 10, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["cells"], told["states"], told["genes"]) == (1, 11, 30)
    assert told["run"] == open_cell_run(place / "run").digest
    assert {path.name for path in tmp_path.iterdir()} == {
        "trajectory.csv", "places.csv", "genes.csv", "top_genes.csv", "atlas.png", "atlas.html"}  # fmt: skip
    states = pd.read_csv(tmp_path / "trajectory.csv")
    moved, still = (states[states["path"] == path] for path in ("perturbed", "unperturbed"))
    cells = make_cells(0, cells=360, genes=30)
    observed = as_log1p(cells).toarray()[7]
    for part in (moved, still):
        assert_allclose(part.iloc[0][list(cells.genes)].astype(float), observed, rtol=1e-5)
    assert (moved.iloc[-1]["GENE0001"], moved.iloc[-1]["GENE0003"]) == (8, 0)
    assert_allclose(still[list(cells.genes)].astype(float), np.tile(observed, (11, 1)), rtol=1e-5)
    places = pd.read_csv(tmp_path / "places.csv")
    assert len(places) == 11
    assert places["share"].iloc[-1] == 1
    top = pd.read_csv(tmp_path / "top_genes.csv")
    assert not {"GENE0001", "GENE0003"} & set(top["gene"])
    assert len(pd.read_csv(tmp_path / "genes.csv")) == 30
    assert (tmp_path / "atlas.png").read_bytes()[:4] == b"\x89PNG"
    assert "rgb(78%,12%,12%)" in (tmp_path / "atlas.html").read_text()
    assert partials(tmp_path) == []


def test_a_trajectory_twice_gives_the_same_bytes(place, tmp_path):
    for name in ("one", "two"):
        change = ("--gene", "GENE0001", "--target", 2, "--mode", "fold", "--steps", 3)
        assert trajectory(place, tmp_path / name, "--cell", "cell7", *change).code == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_trajectory_of_a_context(place, tmp_path):
    """S001-16: all untreated cells of a type, with a summary over them."""
    done = trajectory(
        place, tmp_path, "--context", "type1", "--gene", "GENE0002", "--target", "1", "--mode", "add", "--steps", 2,
        "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    cells = make_cells(0, cells=360, genes=30)
    assert json.loads(done.out)["cells"] == (cells.untreated & (cells.context == "type1")).sum()
    table = pd.read_csv(tmp_path / "genes.csv").set_index("gene")
    assert_allclose(table.loc["GENE0002", ["effect", "sd"]].astype(float), [1, 0], atol=1e-6)


def test_a_trajectory_from_an_imputed_cell(place, tmp_path):
    """S001-09: genes at 0 start where the model expects them, the others as observed; a model of expressed genes
    alone is refused.
    """
    change = ("--cell", "cell7", "--gene", "GENE0001", "--target", 8, "--steps", 2, "--impute")
    assert trajectory(place, tmp_path, *change).code == 0
    states = pd.read_csv(tmp_path / "trajectory.csv")
    cells = make_cells(0, cells=360, genes=30)
    observed, first = as_log1p(cells).toarray()[7], states.iloc[0][list(cells.genes)].to_numpy(float)
    model = open_cell_run(place / "run").model()
    said = model.expected(observed[None], model.describe(observed[None], np.array([], int)))[0]
    assert (observed == 0).any()
    assert_allclose(first, np.where(observed == 0, np.maximum(said, 0), observed), rtol=1e-5)
    fit = (
        "cells",
        "fit",
        "masked-autoencoder",
        place / "cells.h5ad",
        *COLUMNS,
        *QUICK,
        "--out",
        tmp_path / "expressed",
    )
    assert pertcast(*fit).code == 0
    refused(trajectory(place, tmp_path / "no", *change, run=tmp_path / "expressed"), "nothing of genes observed at 0")
    assert not (tmp_path / "no").exists()


def test_questions_that_cannot_be_answered_are_refused(place, tmp_path):
    """One message each, exit 2, nothing written."""
    out = tmp_path / "out"
    one = ("--cell", "cell7")
    wrong = trajectory(place, out, *one, "--gene", "GENE00", "--target", -1)
    refused(
        wrong, r"2 problems:\n  - Unknown gene 'GENE00'. Did you mean 'GENE00\d\d'\?[^\n]*\n  - target .* at least 0"
    )
    change = ("--gene", "GENE0001", "--target", 3)
    refused(trajectory(place, out, "--cell", "cell-7", *change), r"Unknown cell 'cell-7'. Did you mean 'cell\d*7'\?")
    refused(trajectory(place, out, *change), "name either one cell or a context")
    refused(trajectory(place, out, "--context", "typ1", *change), r"Unknown context 'typ1'. Did you mean 'type1'\?")
    refused(trajectory(place, out, *one, *change, "--target", 4), "1 genes, 2 targets and 1 modes")
    refused(trajectory(place, out, *one, *change, "--mode", "double"), "'double' of gene 'GENE0001' is none of set")
    refused(trajectory(place, out, *one, *change, "--steps", 0), "at least 1 step, got 0")
    refused(trajectory(place, out, *one, *change, "--atlas", "tsne"), "by pca or umap, not by 'tsne'")
    other = ("cells", "fit", "mean-shift", place / "cells.h5ad", *COLUMNS, "--out", tmp_path / "other")
    assert pertcast(*other).code == 0
    refused(trajectory(place, out, *one, *change, run=tmp_path / "other"), "'mean-shift', which tells no gene from")
    assert not out.exists()


def test_masked_errors_of_held_out_cells(place, tmp_path):
    """S001-04: train, valid and test beside both floors, as JSON and as a table; the fitted model is kept."""
    masked = ("cells", "masked", place / "cells.h5ad", *COLUMNS, *QUICK)
    done = pertcast(*masked, "--out", tmp_path / "one", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["parted_by"] == "cell"
    assert set(told["scores"]["test"]) == {"gene mean", "gene mean + cell effect", "masked-autoencoder"}
    kept = json.loads((tmp_path / "one" / "masked.json").read_text())
    assert kept["scores"] == told["scores"]
    assert (tmp_path / "one" / "checkpoint" / "masked-autoencoder.safetensors").exists()
    again = pertcast(*masked, "--out", tmp_path / "two", "--json")
    assert json.loads(again.out)["scores"] == told["scores"]
    text = pertcast(*masked, "--out", tmp_path / "three").out
    assert "share of gene mean" in text
    assert "gene mean (floor)" in text


def test_donors_are_held_out_whole(place, tmp_path):
    """S001-15: by default where a donor column is named."""
    keys = (*COLUMNS[:4], "--batch-key", "donor")
    done = pertcast("cells", "masked", place / "cells.h5ad", *keys, *QUICK, "--out", tmp_path / "one", "--json")
    assert json.loads(done.out)["parted_by"] == "batch"
    by_cell = ("cells", "masked", place / "cells.h5ad", *keys, *QUICK, "--split", "cell", "--out", tmp_path / "two")
    assert json.loads(pertcast(*by_cell, "--json").out)["parted_by"] == "cell"
    two = ("cells", "masked", place / "cells.h5ad", *COLUMNS, "--split", "batch", "--out", tmp_path / "three")
    refused(pertcast(*two), "2 batches fill no 3 parts. Part by cell")
    zeros = ("cells", "masked", place / "cells.h5ad", *COLUMNS, *VIRTUAL, "--out", tmp_path / "four")
    refused(pertcast(*zeros), "hiding.zeros is set. Leave it unset")
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_a_virtual_cell_is_asked_what_a_drug_does(place, tmp_path):
    """R14: effects beside co-expression and genes of like expression; unknown names all at once."""
    asked = ("cells", "knows", place / "cells.h5ad", *COLUMNS, "--context-key", "type", *QUICK, "--out", tmp_path / "a")
    done = pertcast(*asked, "--condition", "up", "--gene", "GENE0001", "--gene", "GENE0002", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert set(told["scores"]) == {"GENE0001", "GENE0002", "all together"}
    for found in told["scores"].values():
        assert set(found) == {"masked-autoencoder", "co-expression", "masked-autoencoder, other genes raised"}
    assert told["treated"] == 0
    assert json.loads((tmp_path / "a" / "knows.json").read_text())["scores"] == told["scores"]
    refused(pertcast(*asked, "--condition", "upp", "--gene", "GENE00"), r"2 problems:[^$]*Did you mean 'up'\?")
