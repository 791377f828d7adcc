"""Simulated files: the same bytes streamed or from memory, and a truth that is rebuilt from the file alone."""

import json
from pathlib import Path

import anndata
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pertcast.errors import InputError
from pertcast.simulate import populations
from pertcast.simulate.base import BaseSettings, base_plan, simulate_base
from pertcast.simulate.cells import draw_cells
from pertcast.simulate.files import About, stream_cells, write_cells
from pertcast.simulate.planted import add_mechanistic_gene, mechanism_model, with_mechanistic_gene
from pertcast.simulate.truth import oracle_nll, read_about, read_cells, read_truth

SETTINGS = BaseSettings(populations=2, batches=2, batch_kind="multiplicative", library_sd=0.3)


@pytest.fixture
def model(monkeypatch):
    """Build a model whose blocks are of 70 cells, so that a few hundred make several."""
    monkeypatch.setattr(populations, "ENTRIES", 700)
    return mechanism_model(base_plan(10, 0.8, seed=1, settings=SETTINGS), ["hill", "time"], seed=1)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    cells = simulate_base(2000, 20, 0.8, seed=42, fixture=True)
    cells = with_mechanistic_gene(cells, add_mechanistic_gene(cells.counts))
    path = tmp_path_factory.mktemp("published") / "cells.h5ad"
    write_cells(path, cells, about=About("mechanism", 42, {"note": "published"}))
    return path


def test_streamed_and_in_memory_are_the_same_bytes(model, tmp_path):
    """R38: block by block to disk, or all at once; twice."""
    times = np.linspace(0, 5, 300)
    told = stream_cells(tmp_path / "a.h5ad", model, 300, about=About("mechanism", 4), times=times)
    cells = draw_cells(model, 300, seed=4, times=times)
    same = write_cells(tmp_path / "b.h5ad", cells, about=About("mechanism", 4))
    stream_cells(tmp_path / "c.h5ad", model, 300, about=About("mechanism", 5), times=times)
    one, two, other = ((tmp_path / f"{name}.h5ad").read_bytes() for name in "abc")
    assert one == two
    assert one != other
    assert told == same
    assert_allclose(told["nll_truth"], cells.nll(), rtol=1e-12)
    assert_allclose(told["zero_share"], np.mean(cells.counts == 0), rtol=1e-12)


def test_anndata_reads_what_was_streamed(model, tmp_path):
    """The outside reader sees the same counts, labels and a truth marked as simulated."""
    stream_cells(tmp_path / "a.h5ad", model, 300, about=About("mechanism", 4))
    data, cells = anndata.read_h5ad(tmp_path / "a.h5ad"), draw_cells(model, 300, seed=4)
    assert_array_equal(data.X.toarray(), cells.counts)
    assert tuple(data.var_names) == model.genes
    assert_array_equal(data.obs["population"].cat.codes, cells.context.population)
    assert_array_equal(data.obs["library"], cells.context.library)
    about = json.loads(data.uns["pertcast"])
    assert (about["simulated"], about["kind"], about["seed"], about["version"]) == (True, "mechanism", 4, 1)


def test_the_truth_of_a_file_is_rebuilt(published):
    """S002-03: the oracle's score from the file alone, for the mechanistic gene and all genes."""
    cells = read_cells(published)
    assert read_truth(published) == cells.model
    weights = cells.model.mechanistic[0].mechanism.weights
    assert_allclose([min(weights), max(weights)], [-1.8839447023025584, 1.466594563596801], rtol=0, atol=1e-12)
    assert_allclose(oracle_nll(published), cells.oracle().nll(cells.dense), rtol=1e-12)
    own = cells.oracle().only("mechanistic").nll(cells.dense[:, [-1]])
    assert_allclose(oracle_nll(published, genes=("mechanistic",)), own, rtol=1e-12)
    assert read_about(published)["facts"] == {"note": "published"}
    with pytest.raises(InputError, match="'mechanstic' is not among the 21; nearest: mechanistic"):
        oracle_nll(published, genes=("mechanstic",))


def test_genes_are_matched_by_name_and_cells_may_be_subset(published, tmp_path):
    """R17: shuffled columns, a dense table, half of the cells: the same score as of these cells before."""
    data = anndata.read_h5ad(published)
    rng = np.random.default_rng(0)
    half = np.sort(rng.permutation(2000)[:1000])
    part = data[half, rng.permutation(21)].copy()
    part.write_h5ad(tmp_path / "part.h5ad")
    part.X = part.X.toarray()
    part.write_h5ad(tmp_path / "dense.h5ad")
    want = read_cells(published).take(half).nll()
    assert_allclose([oracle_nll(tmp_path / f"{name}.h5ad") for name in ("part", "dense")], want, rtol=1e-12)


def test_files_without_truth_are_refused(published, tmp_path):
    data = anndata.read_h5ad(published)
    about = json.loads(data.uns.pop("pertcast"))
    data.write_h5ad(tmp_path / "none.h5ad")
    data.uns["pertcast"] = json.dumps({**about, "version": 99})
    data.write_h5ad(tmp_path / "later.h5ad")
    data.uns["pertcast"] = json.dumps(about)
    data[:, 1:].write_h5ad(tmp_path / "fewer.h5ad")
    del data.obs["batch"]
    data.write_h5ad(tmp_path / "unlabelled.h5ad")
    (tmp_path / "text.h5ad").write_text("no HDF5")
    for name, message in (
        ("none", "holds no simulated truth"),
        ("later", "by version 99, this is 1"),
        ("fewer", "lacks 1 genes that its truth has: gene-0"),
        ("unlabelled", "columns batch of obs are missing"),
        ("text", "not a whole h5ad file"),
        ("missing", "not a whole h5ad file"),
    ):
        with pytest.raises(InputError, match=message):
            oracle_nll(tmp_path / f"{name}.h5ad")


def test_nothing_remains_of_a_file_that_could_not_be_written(published, tmp_path, monkeypatch):
    cells = read_cells(published)
    with pytest.raises(InputError, match="folder does not exist"):
        write_cells(tmp_path / "nowhere" / "a.h5ad", cells, about=About("base", 1))
    (tmp_path / "folder.h5ad").mkdir()
    with pytest.raises(InputError, match="A folder stands where the file should go"):
        write_cells(tmp_path / "folder.h5ad", cells, about=About("base", 1))

    def broken(self):
        raise InputError("stopped half-way")

    monkeypatch.setattr(type(cells), "log_likelihood_sum", broken)
    with pytest.raises(InputError, match="stopped half-way"):
        write_cells(tmp_path / "half.h5ad", cells, about=About("base", 1))
    assert [path.name for path in tmp_path.iterdir()] == ["folder.h5ad"]
