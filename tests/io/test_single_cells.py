"""Cells from h5ad and zarr against what was written; every fault in one message; predictions byte for byte."""

import warnings
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from cell_cases import make_cells
from pertcast.errors import InputError
from pertcast.io.single_cells import read_cells, read_expression, read_mean_shift, write_cells

KEYS = {"condition_key": "drug", "control": "dmso"}


@pytest.fixture
def data():
    """Five cells, four genes, one of each fault away from being refused."""
    x = np.array([[0, 1, 2, 0], [3, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 9, 0, 2]], np.float32)
    obs = pd.DataFrame(
        {"drug": ["dmso", "x", "dmso", "y", "x"], "type": pd.Categorical(["T", "T", "B", "B", "B"]), "plate": range(5)},
        index=[f"c{i}" for i in range(5)],
    )
    return ad.AnnData(sparse.csr_matrix(x), obs, pd.DataFrame(index=list("ABCD")), layers={"log": np.log1p(x)})


def write(data, path, form="h5ad"):
    if form == "h5ad":
        data.write_h5ad(path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the version of the format, which is not ours to choose
            data.write_zarr(path)
    return path


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.parametrize("store", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_cells_are_read_as_written(data, tmp_path, form, store):
    dense = data.X.toarray()
    data.X = store(dense)
    path = write(data, tmp_path / f"cells.{form}", form)
    cells = read_cells(path, **KEYS, context_key="type", batch_key="plate")
    assert_array_equal(cells.x.toarray(), dense)
    assert cells.x.dtype == np.float32
    assert cells.unit == "counts"
    assert cells.genes == ("A", "B", "C", "D")
    assert list(cells.ids) == ["c0", "c1", "c2", "c3", "c4"]
    assert list(cells.condition) == ["dmso", "x", "dmso", "y", "x"]
    assert list(cells.context) == ["T", "T", "B", "B", "B"]
    assert list(cells.batch) == ["0", "1", "2", "3", "4"]
    assert_array_equal(cells.untreated, [True, False, True, False, False])


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_the_unit_is_seen_and_layers_can_be_chosen(data, tmp_path, form):
    path = write(data, tmp_path / f"cells.{form}", form)
    cells = read_cells(path, **KEYS, layer="log")
    assert cells.unit == "log1p"
    assert_array_equal(cells.x.toarray(), np.log1p(data.X.toarray()))
    assert set(cells.context) == {"all"}
    with pytest.raises(InputError, match=r"raw|Layers: log"):
        read_cells(path, **KEYS, layer="lg")


def test_all_faults_are_named_at_once(data, tmp_path):
    x = data.X.toarray()
    x[0, 0], x[1, 1] = -2, np.nan
    drug = data.obs["drug"].astype(object).copy()
    drug.iloc[3] = None
    obs = data.obs.assign(drug=drug)
    obs.index = ["c0", "c1", "c1", "c3", "c4"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that are not unique are the point
        path = write(ad.AnnData(x, obs, pd.DataFrame(index=list("ABCA"))), tmp_path / "bad.h5ad")
    with pytest.raises(InputError) as caught:
        read_cells(path, condition_key="drug", control="dms", context_key="typ", batch_key="donor")
    message = str(caught.value)
    for part in (
        "8 problems", "1 cell ids occur more than once: c1", "1 genes occur more than once: A",
        "Unknown column of obs 'typ'. Did you mean 'type'?", "Unknown column of obs 'donor'",
        "column 'drug' of obs is empty in 1 cells, first in 'c3'", "no untreated cells: Unknown label 'dms'",
        "X holds 1 values that are NaN", "X holds values below 0, down to -2",
    ):  # fmt: skip
        assert part in message, part


def test_values_that_are_neither_counts_nor_logarithms_are_refused(data, tmp_path):
    """Normalised values that nobody took the logarithm of."""
    data.X = data.X.toarray() * 123.4
    with pytest.raises(InputError, match=r"not whole, up to 1110.6: neither counts nor log1p"):
        read_cells(write(data, tmp_path / "cpm.h5ad"), **KEYS)


def test_a_file_of_untreated_cells_is_refused_only_where_treated_ones_are_needed(data, tmp_path):
    path = write(data[data.obs["drug"] == "dmso"].copy(), tmp_path / "control.h5ad")
    assert len(read_cells(path, **KEYS)) == 2
    with pytest.raises(InputError, match="'dmso' in every cell; at least one other condition"):
        read_cells(path, **KEYS, need_treated=True)


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="holds no cells in a form that is known"):
        read_cells(tmp_path / "folder", **KEYS)
    (tmp_path / "folder" / "zarr.json").write_text("no")
    with pytest.raises(InputError, match="not a whole anndata zarr store"):
        read_cells(tmp_path / "folder", **KEYS)
    (tmp_path / "text.h5ad").write_text("no")
    with pytest.raises(InputError, match="not a whole h5ad file"):
        read_cells(tmp_path / "text.h5ad", **KEYS)


def test_predictions_come_back_with_their_notes(tmp_path):
    """Expected counts are no whole numbers; the note says that they are counts all the same."""
    cells = make_cells(cells=30)
    half = replace(cells, x=sparse.csr_array(cells.x * np.float32(0.5)))
    shift = np.arange(12.0)
    write_cells(tmp_path / "a.h5ad", half, about={"run": "abc", "seed": 1}, mean_shift=shift)
    write_cells(tmp_path / "b.h5ad", half, about={"seed": 1, "run": "abc"}, mean_shift=shift)
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()
    back, about = read_expression(tmp_path / "a.h5ad")
    assert about == {"run": "abc", "seed": 1, "unit": "counts"}
    assert back.unit == "counts"
    assert_array_equal(back.x.toarray(), half.x.toarray())
    assert_array_equal(read_mean_shift(tmp_path / "a.h5ad", cells.genes[::-1]), shift[::-1])
    obs = ad.read_h5ad(tmp_path / "a.h5ad").obs
    assert list(obs["source_cell"]) == list(cells.ids)
    for name in ("condition", "context", "batch"):
        assert list(obs[name]) == list(getattr(cells, name))
    with pytest.raises(InputError, match=r"must end in \.h5ad"):
        write_cells(tmp_path / "a.csv", half, about={})


def test_some_cells_can_be_chosen(data, tmp_path):
    path = write(data, tmp_path / "cells.h5ad")
    some, about = read_expression(path, where={"drug": "x", "type": "B"})
    assert list(some.ids) == ["c4"]
    assert about == {}
    assert read_mean_shift(path, ("A",)) is None
    with pytest.raises(InputError, match=r"(?s)2 problems.*Unknown column of obs 'drg'.*Unknown label 'C'"):
        read_expression(path, where={"drg": "x", "type": "C"})
    with pytest.raises(InputError, match="no cell has drug=y and type=T"):
        read_expression(path, where={"drug": "y", "type": "T"})


@pytest.mark.real_data
def test_measured_cells_are_read(real_data):
    """Raw counts of one study and log values of another, as their files say."""
    kang = real_data / "kang" / "kang_ifnb_2000.h5ad"
    labels = ad.read_h5ad(kang, backed="r").obs["condition"].astype(str)
    control = min(set(labels), key=lambda name: ("stim" in name.lower(), name))
    cells = read_cells(kang, condition_key="condition", control=control, context_key="cell_type", need_treated=True)
    assert cells.x.shape == (2000, 13215)
    assert cells.unit == "counts"
    assert len(set(cells.context)) == 13
    assert cells.untreated.sum() == (labels == control).sum()
    lines = real_data / "perturbseq" / "four_lines_5961.h5ad"
    obs = ad.read_h5ad(lines, backed="r").obs
    got = read_cells(lines, condition_key="condition", control=str(obs["condition"].mode()[0]), context_key="cell_type")
    assert got.unit == "log1p"
    assert len(set(got.context)) == 4
