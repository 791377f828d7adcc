"""`pertcast cells correct`, `adapt` and `pairs` on simulated cells."""

import json
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from cell_cases import make_cells
from cell_files import COLUMNS, table
from command_line import pertcast, refused
from pertcast.cells.batch_correction import correct_batches
from pertcast.io.single_cells import read_expression

QUICK = ("--set", "hidden=[16, 8]", "--set", "latent=4", "--set", "axes=4", "--set", "training.steps=10",
         "--set", "training.cells=8")  # fmt: skip


def write(cells, path):
    obs = table(cells).assign(plate=list(cells.batch))
    ad.AnnData(sparse.csr_matrix(cells.x), obs, pd.DataFrame(index=list(cells.genes))).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A cycle-GAN of two contexts, cells of these, and cells of all three."""
    folder, cells = tmp_path_factory.mktemp("steps"), make_cells(cells=240)
    write(cells, folder / "all.h5ad")
    write(cells.take(cells.context != "type2"), folder / "old.h5ad")
    done = pertcast("cells", "fit", "cycle-gan", folder / "old.h5ad", *COLUMNS, *QUICK, "--out", folder / "run")
    assert done.code == 0, done.err
    return folder


def test_a_new_context_is_learned(place, tmp_path):
    """S003-12: a new line joins, and every setting of the adaptation is reached by --set."""
    out = tmp_path / "adapted"
    quick = ("--set", "steps=6", "--set", "cells=8", "--set", "unfreeze_every=2")
    done = pertcast("cells", "adapt", place / "run", place / "all.h5ad", *quick, "--out", out, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["new_contexts"], told["contexts"]) == (["type2"], 3)
    assert "6/6 done after" in done.err
    inputs = json.loads((out / "inputs.json").read_text())
    assert (inputs["adaptation"]["unfreeze_every"], inputs["adaptation"]["steps"]) == (2, 6)
    predicted = pertcast("cells", "predict", out, place / "all.h5ad", "--condition", "up", "--context", "type2",
                         "--out", tmp_path / "pred.h5ad")  # fmt: skip
    assert predicted.code == 0, predicted.err
    again = pertcast("cells", "adapt", place / "run", place / "all.h5ad", *quick, "--out", out, "--json")
    assert json.loads(again.out)["fitted"] is False
    other = pertcast("cells", "adapt", place / "run", place / "all.h5ad", *quick, "--out", tmp_path / "b")
    assert other.code == 0
    assert (tmp_path / "b" / "DONE.json").read_bytes() == (out / "DONE.json").read_bytes()
    refused(pertcast("cells", "adapt", place / "run", place / "all.h5ad", "--out", out), "run of other content")


def test_what_cannot_be_adapted_is_refused(place, tmp_path):
    out = ("--out", tmp_path / "no")
    refused(pertcast("cells", "adapt", place / "run", place / "all.h5ad", "--set", "stps=3", *out), "'stps'")
    cells = make_cells(cells=240)
    labels = np.where(cells.condition == "up", "sideways", cells.condition).astype(object)
    write(replace(cells, condition=labels), tmp_path / "new.h5ad")
    refused(pertcast("cells", "adapt", place / "run", tmp_path / "new.h5ad", *out), "sideways")
    assert pertcast("cells", "fit", "default", place / "old.h5ad", *COLUMNS, "--out", tmp_path / "shift").code == 0
    refused(pertcast("cells", "adapt", tmp_path / "shift", place / "all.h5ad", *out),
            "'context-transfer' cannot be adapted; cycle-gan can")  # fmt: skip
    refused(pertcast("cells", "pairs", tmp_path / "shift", place / "all.h5ad", "--condition", "up", "--out",
                     tmp_path / "p.h5ad"), "knows no way back; cycle-gan makes pseudo-pairs")  # fmt: skip
    assert not (tmp_path / "no").exists()


def test_pseudo_pairs_are_written(place, tmp_path):
    """S003-06: each untreated cell once, its counterpart as `predict --mean` has it, and the error of the cycle."""
    out = tmp_path / "pairs.h5ad"
    arguments = ("--condition", "up", "--context", "type1", "--out")
    done = pertcast("cells", "pairs", place / "run", place / "all.h5ad", *arguments, out, "--json")
    assert done.code == 0, done.err
    got, data = ad.read_h5ad(out), ad.read_h5ad(place / "all.h5ad")
    rows = ((data.obs["condition"] == "control") & (data.obs["context"] == "type1")).to_numpy()
    assert list(got.obs["source_cell"]) == list(data.obs_names[rows])
    assert_array_equal(got.layers["source"].toarray(), data.X.toarray()[rows])
    predicted = tmp_path / "pred.h5ad"
    assert pertcast("cells", "predict", place / "run", place / "all.h5ad", "--mean", *arguments, predicted).code == 0
    assert_allclose(got.X.toarray(), ad.read_h5ad(predicted).X.toarray(), rtol=1e-5)
    total = got.layers["source"].toarray().sum(axis=1, keepdims=True)
    source, back = (np.log1p(got.layers[name].toarray() * 1e4 / total) for name in ("source", "back"))
    error = np.sqrt(np.square(back - source).mean(axis=1))
    assert_allclose(got.obs["cycle_error"], error, rtol=1e-3)
    assert_allclose(json.loads(done.out)["cycle_error"], error.mean(), rtol=1e-3)
    assert read_expression(out)[0].unit == "counts"  # expected counts are not whole; the file says what they are


def test_batches_are_corrected(tmp_path):
    """S003-13: per batch, means agree where biology does; labels of cells stay; as the function that does it."""
    rng = np.random.default_rng(0)
    cells = make_cells(cells=240)
    logs = np.log1p(cells.x.toarray()) + 2 + (cells.batch == "plate1")[:, None] * rng.uniform(0.5, 1, 12)
    cells = replace(cells, x=sparse.csr_array(logs.astype(np.float32)), unit="log1p")
    path, out = write(cells, tmp_path / "a.h5ad"), tmp_path / "b.h5ad"
    arguments = ("cells", "correct", path, *COLUMNS, "--batch-key")
    done = pertcast(*arguments, "plate", "--reference", "plate0", "--out", out, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["batches"] == ["plate0", "plate1"]
    got = ad.read_h5ad(out)
    oracle = correct_batches(cells, reference="plate0", clip=True)
    assert_array_equal(got.X.toarray(), oracle.x.toarray())
    assert_array_equal(got.obs.astype(str), ad.read_h5ad(path).obs.astype(str))
    for x, gap in ((logs, (0.5, 1.0)), (got.X.toarray(), (-0.05, 0.05))):  # plates hold the same mix of cells
        apart = x[cells.batch == "plate1"].mean() - x[cells.batch == "plate0"].mean()
        assert gap[0] < apart < gap[1]
    refused(pertcast(*arguments, "plat", "--out", out), "Did you mean 'plate'")
    refused(pertcast(*arguments, "plate", "--reference", "plate9", "--out", out), "Unknown batch 'plate9'")
    refused(pertcast(*arguments, "plate", "--out", tmp_path / "b.csv"), r"must end in \.h5ad")


def test_counts_become_logarithms_and_are_said_to(tmp_path):
    path = write(make_cells(cells=240), tmp_path / "a.h5ad")
    done = pertcast("cells", "correct", path, *COLUMNS, "--batch-key", "plate", "--out", tmp_path / "b.h5ad")
    assert done.code == 0, done.err
    assert "Counts became log1p" in done.err
    refused(pertcast("cells", "fit", "zinb-vae", tmp_path / "b.h5ad", *COLUMNS, "--out", tmp_path / "run"),
            "reads counts, got log1p")  # fmt: skip
    assert not (tmp_path / "run.unfinished").exists()
