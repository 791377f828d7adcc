"""Cells read piece by piece into files on disk, against the same cells read whole."""

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
from pertcast.io import arrays
from pertcast.io.arrays import row_pieces
from pertcast.io.cell_shards import read_mapped, shard_files
from pertcast.io.single_cells import checked_values, read_cells

KEYS = {"condition_key": "drug", "control": "control", "context_key": "type", "batch_key": "plate"}


@pytest.fixture
def cells():
    return make_cells(0, cells=120, genes=9)


def table(cells):
    labels = {"drug": list(cells.condition), "type": list(cells.context), "plate": list(cells.batch)}
    return pd.DataFrame(labels, index=pd.Index(list(cells.ids), name="cell"))


def write_h5ad(path, cells, x=None):
    data = ad.AnnData(sparse.csr_matrix(cells.x), table(cells), pd.DataFrame(index=list(cells.genes)))
    if x is not None:
        data.X = x
    data.write_h5ad(path)


def write_npz(path, cells):
    sparse.save_npz(path, sparse.csr_matrix(cells.x))
    table(cells).to_csv(path.with_suffix(".obs.csv"))
    path.with_name("genes.txt").write_text("\n".join(cells.genes) + "\n")


def same(found, cells):
    assert (found.genes, found.unit, found.control) == (cells.genes, cells.unit, cells.control)
    for name in ("ids", "condition", "context", "batch"):
        assert_array_equal(getattr(found, name), getattr(cells, name))
    assert_array_equal(found.x.toarray(), cells.x.toarray())


@pytest.mark.parametrize("form", ["h5ad", "dense h5ad", "zarr", "npz"])
def test_each_form_is_read_as_the_reader_of_whole_files_reads_it(cells, tmp_path, form, monkeypatch):
    """S001-17: pieces of 40 numbers, put together again."""
    monkeypatch.setattr(arrays, "PIECE", 40)
    path, whole = tmp_path / f"one.{form.split()[-1]}", tmp_path / "whole.h5ad"
    write_h5ad(whole, cells)
    if form == "npz":
        write_npz(path, cells)
    elif form == "zarr":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the version of the format, which is not ours to choose
            ad.read_h5ad(whole).write_zarr(path)
    else:
        write_h5ad(path, cells, cells.x.toarray() if form == "dense h5ad" else None)
    same(read_mapped(path, tmp_path / "scratch", **KEYS), read_cells(whole, **KEYS))


def test_shards_are_put_below_each_other_and_genes_go_by_name(cells, tmp_path):
    """S001-17: h5ad beside npz, the genes of one of them in another order."""
    folder = tmp_path / "shards"
    folder.mkdir()
    parts = [cells.take(np.arange(first, first + 40)) for first in (0, 40, 80)]
    write_h5ad(folder / "a.h5ad", parts[0])
    write_npz(folder / "b.npz", parts[1])
    write_h5ad(folder / "c.h5ad", parts[2].select(cells.genes[::-1]))
    assert [path.name for path in shard_files(folder)] == ["a.h5ad", "b.npz", "c.h5ad"]
    same(read_mapped(folder, tmp_path / "scratch", **KEYS), cells)


def test_values_lie_on_disk_and_no_piece_is_larger_than_asked(cells, tmp_path, monkeypatch):
    """S001-17: counted where pieces are checked; what is handed out is the files' own memory."""
    seen, piece = [], 60
    monkeypatch.setattr(arrays, "PIECE", piece)
    checked = "pertcast.io.cell_shards.checked_values"
    monkeypatch.setattr(checked, lambda read, *rest, **more: (seen.append(read.values.nnz),
                                                              checked_values(read, *rest, **more))[1])  # fmt: skip
    write_h5ad(tmp_path / "one.h5ad", cells)
    found = read_mapped(tmp_path / "one.h5ad", tmp_path / "scratch", **KEYS)
    assert max(seen) <= piece
    assert sum(seen) == cells.x.nnz
    with open(tmp_path / "scratch" / "values", "r+b") as file:
        file.write(np.float32(77).tobytes())  # into the file: the matrix shows it, for it has no values of its own
    assert found.x.data[0] == 77
    assert {path.name: path.stat().st_size for path in (tmp_path / "scratch").iterdir()} == {
        "values": 4 * cells.x.nnz, "columns": 8 * cells.x.nnz}  # fmt: skip


def test_rows_are_cut_by_hand():
    """At most five numbers a piece; the row of seven stands alone, empty rows go with their neighbours."""
    ends = np.cumsum([0, 2, 3, 1, 7, 0, 4, 1])
    assert [(piece.start, piece.stop) for piece in row_pieces(ends, most=5)] == [(0, 2), (2, 3), (3, 4), (4, 7)]
    assert not list(row_pieces(np.zeros(1, int), most=5))


def test_explicit_zeros_are_dropped(cells, tmp_path):
    x = sparse.csr_matrix(cells.x)
    x.data[::3] = 0
    write_h5ad(tmp_path / "one.h5ad", cells, x)
    found = read_mapped(tmp_path / "one.h5ad", tmp_path / "scratch", **KEYS)
    assert found.x.data.all()
    assert_array_equal(found.x.toarray(), x.toarray())


def test_what_cannot_be_streamed_is_refused(cells, tmp_path):
    """One message each, with what to do."""

    def refused(path, match, **other):
        with pytest.raises(InputError, match=match):
            read_mapped(
                path, tmp_path / "scratch" / str(len(list(tmp_path.iterdir()))) / match[:4], **{**KEYS, **other}
            )

    write_h5ad(tmp_path / "csc.h5ad", cells, sparse.csc_matrix(cells.x))
    refused(tmp_path / "csc.h5ad", r"is stored by genes \(CSC\), so no cell can be read alone. Write it as CSR")
    refused(tmp_path / "none.h5ad", "does not exist. Give one of: h5ad; zarr")
    sparse.save_npz(tmp_path / "bare.npz", sparse.csr_matrix(cells.x))
    refused(tmp_path / "bare.npz", "holds values alone, and there is no bare.obs.csv and no genes.txt beside it")
    write_npz(tmp_path / "short.npz", cells)
    (tmp_path / "genes.txt").write_text("a\nb\n")
    refused(tmp_path / "short.npz", r"has shape \(120, 9\), but the files beside it name 120 cells and 2 genes")
    (tmp_path / "text.csv").write_text("a,b\n")
    refused(tmp_path / "text.csv", "cannot be streamed. Give one of")
    write_h5ad(tmp_path / "good.h5ad", cells)
    refused(tmp_path / "good.h5ad", "Unknown layer 'count'|has no layers|Unknown", layer="count")
    refused(tmp_path / "good.h5ad", r"has 2 problems:\n  - Unknown column of obs 'drg'.*\n.*'typ'", condition_key="drg",
            context_key="typ")  # fmt: skip
    low = cells.x.copy()
    low.data[3] = -1
    write_h5ad(tmp_path / "low.h5ad", cells, sparse.csr_matrix(low))
    refused(tmp_path / "low.h5ad", "values below 0, down to -1")


def test_shards_that_do_not_fit_together_are_refused(cells, tmp_path):
    """Other genes; the same cells twice; counts beside normalised values; a folder without any."""

    def refused(name, match, *parts):
        folder = tmp_path / name
        folder.mkdir()
        for number, part in enumerate(parts):
            write_h5ad(folder / f"{number}.h5ad", part)
        with pytest.raises(InputError, match=match):
            read_mapped(folder, tmp_path / f"{name}-scratch", **KEYS)

    half, rest = cells.take(np.arange(60)), cells.take(np.arange(60, 120))
    refused(
        "genes", r"1.h5ad have other genes than 0.h5ad. Give every shard the same", half, rest.select(cells.genes[1:])
    )
    refused("twice", "60 cell ids occur more than once", half, half)
    large = half.x * 100
    logs = rest.x * 0.37
    refused("units", r"some values are not whole, and others are as large as \d+", replace(half, x=large),
            replace(rest, x=logs))  # fmt: skip
    refused("empty", "holds no cells that can be streamed")
