"""`pertcast simulate`: files, facts on stdout, and one message for each way to ask for what cannot be."""

import json

import anndata
import numpy as np
import pytest
from numpy.testing import assert_allclose

from command_line import partials, pertcast, refused
from pertcast.simulate.truth import oracle_nll, read_about, read_cells

SMALL = ("--cells", 400, "--genes", 12)


def simulate(*arguments):
    done = pertcast("simulate", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_the_published_benchmark_from_the_command_line(tmp_path):
    """S002-01, S002-02, S002-03: zero share, likelihoods of the truth and of the best fit without parents."""
    base = simulate("base", "--fixture", "--out", tmp_path / "base.h5ad")
    assert round(base["zero_share"], 4) == 0.7997
    assert_allclose(base["nll_truth"], 1.0275, atol=1e-4)
    assert base["simulated"] is True
    mechanism = simulate("mechanism", "--fixture", "--out", tmp_path / "mechanism.h5ad")
    own = mechanism["mechanistic"]["mechanistic"]
    assert_allclose([own["nll_truth"], own["nll_independent"], own["zeros"]], [0.5494, 0.7051, 0.8691], atol=6e-5)
    assert_allclose(oracle_nll(tmp_path / "mechanism.h5ad"), mechanism["nll_truth"], rtol=1e-12)


@pytest.mark.parametrize("kind", ["base", "mechanism", "timecourse", "composition"])
def test_every_kind_writes_a_file_with_its_truth(kind, tmp_path):
    """Same seed, same bytes; the printed likelihood is that of the file; people are told that it is simulated."""
    paths = [tmp_path / f"{name}.h5ad" for name in "abc"]
    seeds = (1, 1, 2)
    told = [simulate(kind, *SMALL, "--seed", seed, "--out", path) for seed, path in zip(seeds, paths, strict=True)]
    one, two, other = (path.read_bytes() for path in paths)
    assert one == two
    assert one != other
    assert_allclose(oracle_nll(paths[0]), told[0]["nll_truth"], rtol=1e-12)
    assert read_about(paths[0])["kind"] == kind
    done = pertcast("simulate", kind, *SMALL, "--out", paths[2])
    assert done.out.startswith("SIMULATED cells")
    assert not partials(tmp_path)


def test_populations_and_batches_are_labelled(tmp_path):
    """S002-12, S002-16: labels in obs, one row of means for each population in the truth."""
    path = tmp_path / "cells.h5ad"
    facts = simulate("base", *SMALL, "--populations", 3, "--batches", 2, "--library-sd", 0.4, "--out", path)
    data = anndata.read_h5ad(path)
    assert sorted(set(data.obs["population"])) == ["P0", "P1", "P2"]
    assert (data.obs["batch"] == "B1").sum() == 200
    assert data.X[(data.obs["batch"] == "B1").to_numpy()].toarray().min() == 10
    assert read_cells(path).model.base.means.shape == (3, 12)
    assert (facts["populations"], facts["batches"]) == (3, 2)


def test_all_kinds_of_mechanisms_at_once(tmp_path):
    """S002-13: one gene of every kind; each truth beats the best fit that ignores other genes."""
    facts = simulate("mechanism", "--kind", "all", "--cells", 4000, "--out", tmp_path / "a.h5ad")
    assert len(facts["mechanistic"]) == 6
    assert all(one["nll_truth"] < one["nll_independent"] for one in facts["mechanistic"].values())


def test_time_course_and_composition_print_floors_and_ceiling(tmp_path):
    """S002-14, S002-15: error per class and at unseen times; the parts are marked in the file."""
    path = tmp_path / "a.h5ad"
    errors = simulate("timecourse", "--cells", 3000, "--genes", 10, "--out", path)["errors"]
    assert errors["oracle"]["extrapolation"]["mse"] == 0
    assert errors["smooth-ridge"]["extrapolation"]["mse"] < errors["no-change"]["extrapolation"]["mse"] / 10
    assert errors["no-change"]["interpolation"]["correlation"] is None
    assert set(anndata.read_h5ad(path).obs["part"]) == {"train", "interpolation", "extrapolation"}
    facts = simulate("composition", "--cells", 3000, "--genes", 20, "--out", path)
    assert facts["classes"] == {"independent": 10, "dependent": 4, "seen": 4, "unseen": 2}
    assert facts["errors"]["oracle"]["unseen"]["mse"] == 0
    obs = anndata.read_h5ad(path).obs
    assert (obs["part"] == "test").sum() == 1500
    assert np.isin("control", obs["condition"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("base", "--zero-share", 0.3), r"Zero share 0.3 cannot be had: in \d+ of 20 cases"),
        (("base", "--zero-share", 1.0), "at least 0 and below 1"),
        (("base", "--cells", 0), "Number of cells must be at least 1, got 0"),
        (("base", "--genes", 0), "Number of genes must be at least 1, got 0"),
        (("base", "--populations", 0), "populations must be at least 1, got 0"),
        (("base", "--seed", -1), "Seed must be at least 0, got -1"),
        (("base", "--batches", 2, "--batch-kind", "odd"), "batch kind 'odd' is neither additive nor multiplicative"),
        (("base", "--fixture", "--populations", 2), "fixture has fixed settings"),
        (("mechanism", "--kind", "linaer"), "Unknown kind of mechanism 'linaer'. Did you mean 'linear'?"),
        (("mechanism", "--kind", "hill", "--parents", 21), "wants 21 parents, there are 20 genes"),
        (("mechanism", "--kind", "hill", "--fixture"), "fixture's mechanism is linear"),
        (("timecourse", "--time", 1, "--time", 2), "at least 5 distinct ones, got 2"),
        (("timecourse", "--genes", 2), "at least 3"),
        (("composition", "--genes", 5), "at least 10 genes, got 5"),
    ],
)
def test_what_cannot_be_is_refused_with_one_message(arguments, message, tmp_path):
    refused(pertcast("simulate", *arguments, "--out", tmp_path / "a.h5ad"), message)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "folder.h5ad").mkdir()
    for out, message in (
        (tmp_path / "folder.h5ad", "is a folder, a file is to be written there"),
        (tmp_path / "cells.csv", r"must end in \.h5ad"),
        (tmp_path / "nowhere" / "a.h5ad", "its folder does not exist"),
    ):
        refused(pertcast("simulate", "base", "--out", out), message)
