"""Cells in every form against the same cells as anndata, scipy and h5py wrote them."""

import gzip
import json
import shutil

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import io, sparse

from pertcast.errors import InputError
from pertcast.io import text_matrix
from pertcast.io.cell_forms import Reading, files_of, read_form
from pertcast.io.single_cells import read_cells

X = np.array([[0, 1, 2, 0], [3, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 9, 0, 2]], np.float32)  # cells x genes
CELLS = [f"AAC{letter}-1" for letter in "ACGTN"]
SYMBOLS, IDS = ["MYC", "ATF", "ATF1", "IL2"], [f"ENSG0{j}" for j in range(4)]
KEYS = {"condition_key": "drug", "control": "dmso", "context_key": "type"}


def table() -> pd.DataFrame:
    told = {"drug": ["dmso", "x", "dmso", "y", "x"], "type": ["T", "T", "B", "B", "B"], "dose": [0, 1.5, 0, 2, 1.5]}
    return pd.DataFrame(told, index=pd.Index(CELLS, name="barcode"))


def zipped(path, text: str, *, gz: bool) -> None:
    if gz:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        path.write_text(text)


def write_mtx(folder, *, gz: bool, types=None, prefix: str = ""):
    folder.mkdir()
    io.mmwrite(folder / "plain.mtx", sparse.coo_matrix(X.T.astype(int)))
    text = (folder / "plain.mtx").read_text()
    (folder / "plain.mtx").unlink()
    zipped(folder / f"{prefix}matrix.mtx", text, gz=gz)
    features = [f"{i}\t{s}" + (f"\t{t}" if types else "") for i, s, t in zip(IDS, SYMBOLS, types or IDS, strict=True)]
    zipped(folder / (prefix + ("features.tsv" if types else "genes.tsv")), "\n".join(features) + "\n", gz=gz)
    zipped(folder / f"{prefix}barcodes.tsv", "\n".join(CELLS) + "\n", gz=gz)
    table().to_csv(folder / "obs.csv")
    return folder


def write_h5(path, *, version: int):
    x = sparse.csc_matrix(X.T.astype(np.int32))
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(x, name)
        group["shape"], group["barcodes"] = x.shape, np.array(CELLS, "S")
        if version == 3:
            group["features/id"], group["features/name"] = np.array(IDS, "S"), np.array(SYMBOLS, "S")
            group["features/feature_type"] = np.array(["Gene Expression"] * 4, "S")
        else:
            group["genes"], group["gene_names"] = np.array(IDS, "S"), np.array(SYMBOLS, "S")
    table().to_csv(path.with_name(f"{path.stem}.obs.csv"))
    return path


def write_text(path, *, genes_in: str, sep: str = ",", corner: bool = True):
    frame = pd.DataFrame(X, index=CELLS, columns=SYMBOLS)
    text = (frame.T if genes_in == "rows" else frame).to_csv(sep=sep)
    if not corner:  # as R's write.table has it
        text = text[len(sep) :]
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    table().sample(frac=1, random_state=0).to_csv(path.with_name(f"{stem}.obs.tsv"), sep="\t")
    return path


FORMS = {
    "mtx": lambda f: write_mtx(f / "a", gz=False),
    "mtx.gz": lambda f: write_mtx(f / "a", gz=True, types=["Gene Expression"] * 4, prefix="GSM1_"),
    "h5 v3": lambda f: write_h5(f / "a.h5", version=3),
    "h5 v2": lambda f: write_h5(f / "a.h5", version=2),
    "csv, cells in rows": lambda f: write_text(f / "a.csv", genes_in="columns"),
    "csv.gz, genes in rows": lambda f: write_text(f / "a.csv.gz", genes_in="rows"),
    "tsv as R writes it": lambda f: write_text(f / "a.tsv", genes_in="rows", sep="\t", corner=False),
    "txt.gz with blanks": lambda f: write_text(f / "a.txt.gz", genes_in="columns", sep=" "),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_cells(form, tmp_path):
    cells = read_cells(FORMS[form](tmp_path), **KEYS, need_treated=True)
    assert_array_equal(cells.x.toarray(), X)
    assert (list(cells.ids), cells.genes, cells.unit) == (CELLS, tuple(SYMBOLS), "counts")
    assert list(cells.condition) == list(table()["drug"])
    assert list(cells.context) == list(table()["type"])


@pytest.mark.parametrize("form", ["mtx", "h5 v3", "h5 v2"])
def test_genes_of_10x_go_by_symbol_or_id(form, tmp_path):
    read = read_form(FORMS[form](tmp_path), Reading(gene_names="id"))
    assert read.genes == tuple(IDS)
    assert list(read.obs["dose"]) == [0, 1.5, 0, 2, 1.5]


def test_only_gene_expression_is_kept_of_several_types(tmp_path):
    types = ["Gene Expression", "Antibody Capture", "Gene Expression", "CRISPR Guide Capture"]
    read = read_form(write_mtx(tmp_path / "a", gz=False, types=types))
    assert read.genes == ("MYC", "ATF1")
    assert_array_equal(read.values.toarray(), X[:, [0, 2]])


def test_genes_that_occur_twice_are_one_message(tmp_path):
    folder = write_mtx(tmp_path / "a", gz=False)
    (folder / "genes.tsv").write_text("E0\tMYC\nE1\tATF\nE2\tATF\nE3\tIL2\n")
    with pytest.raises(InputError, match=r"^Cells of '.*a': 1 genes occur more than once: ATF\. .*--gene-names id"):
        read_cells(folder, **KEYS)
    assert read_form(folder, Reading(gene_names="id")).genes == ("E0", "E1", "E2", "E3")


def test_a_matrix_of_text_is_read_piece_by_piece(tmp_path, monkeypatch):
    """Pieces of one line give the matrix of one piece; numbers as numpy reads them."""
    rng = np.random.default_rng(0)
    x = (rng.random((23, 7)) * (rng.random((23, 7)) < 0.4)).astype(np.float32)
    frame = pd.DataFrame(x, index=[f"r{i}" for i in range(23)], columns=[f"c{j}" for j in range(7)])
    frame.to_csv(tmp_path / "a.csv")
    monkeypatch.setattr(text_matrix, "PIECE", 7)
    got = text_matrix.read_text_matrix(tmp_path / "a.csv")
    oracle = np.loadtxt(tmp_path / "a.csv", delimiter=",", skiprows=1, usecols=range(1, 8), dtype=np.float32)
    assert_array_equal(got.values.toarray(), oracle)
    assert got.values.nnz == np.count_nonzero(x)
    assert (got.rows, got.columns) == (tuple(frame.index), tuple(frame.columns))


def test_names_that_look_like_missing_values_stay_names(tmp_path):
    (tmp_path / "a.csv").write_text('gene,NA,"b,1"\nNA,1,2\nnan,3,\n007,5,6\n')
    got = text_matrix.read_text_matrix(tmp_path / "a.csv")
    assert got.rows == ("NA", "nan", "007")
    assert got.columns == ("NA", "b,1")
    assert_array_equal(got.values.toarray(), [[1, 2], [3, np.nan], [5, 6]])


def test_text_that_is_no_number_is_named_by_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(text_matrix, "PIECE", 2)
    (tmp_path / "a.csv").write_text("gene,a,b\nMYC,1,2\nATF,3,4\nIL2,5,six\n")
    with pytest.raises(InputError, match=r"holds 'six' in line 4 \('IL2'\), column 3, expected a number"):
        text_matrix.read_text_matrix(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("gene,a,b\nMYC,1,2\nATF,3,4,5\n")
    with pytest.raises(InputError, match=r"b.csv' cannot be read as a table of numbers"):
        text_matrix.read_text_matrix(tmp_path / "b.csv")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"gene,a\n" + b"MYC,1\n" * 9999)[:60])
    with pytest.raises(InputError, match=r"c.csv.gz' cannot be read as a table of numbers"):
        text_matrix.read_text_matrix(tmp_path / "c.csv.gz")
    (tmp_path / "d.csv").write_text("gene,a\n")
    with pytest.raises(InputError, match="no line beyond its header"):
        text_matrix.read_text_matrix(tmp_path / "d.csv")


def test_which_side_is_genes_is_said_or_found_out(tmp_path):
    path = write_text(tmp_path / "a.csv", genes_in="rows")
    with pytest.raises(InputError, match=r"5 of 4|4 of 4 cells have no row in"):
        read_form(path, Reading(genes_in="columns"))
    (tmp_path / "a.obs.tsv").unlink()
    assert list(read_form(path, Reading(genes_in="rows")).obs.index) == CELLS
    with pytest.raises(InputError, match=r"cells x genes or genes x cells. Say --genes-in"):
        read_form(path)
    (tmp_path / "a.obs.csv").write_text("cell,drug\nnobody,x\n")
    with pytest.raises(InputError, match=r"0% of its rows and as many of its columns are cells of the table"):
        read_form(path)


def test_a_table_of_cells_adds_to_what_a_file_knows(tmp_path):
    """Also beside h5ad: its columns come on top, rows go by name, further rows are ignored."""
    told = pd.DataFrame({"type": ["old"] * 5, "plate": list("vwxyz")}, index=CELLS)
    ad.AnnData(sparse.csr_matrix(X), told, pd.DataFrame(index=SYMBOLS)).write_h5ad(tmp_path / "a.h5ad")
    more = table().iloc[::-1]
    more.loc["other"] = ["q", "q", 9.0]
    more.to_csv(tmp_path / "more.csv")
    read = read_form(tmp_path / "a.h5ad", Reading(obs=tmp_path / "more.csv"))
    assert list(read.obs["type"]) == list(table()["type"])
    assert list(read.obs["plate"]) == list("vwxyz")
    assert_array_equal(read.values.toarray(), X)


def test_cells_that_the_table_lacks_are_refused_or_left_out(tmp_path):
    path = write_h5(tmp_path / "a.h5", version=3)
    table().iloc[[0, 3]].to_csv(tmp_path / "a.obs.csv")
    with pytest.raises(InputError, match=r"3 of 5 cells have no row in '.*a.obs.csv': AACC-1.*--listed-only"):
        read_form(path)
    read = read_form(path, Reading(listed_only=True))
    assert list(read.obs.index) == [CELLS[0], CELLS[3]]
    assert_array_equal(read.values.toarray(), X[[0, 3]])
    (tmp_path / "a.obs.csv").write_text("cell,drug\nx,1\nx,2\n")
    with pytest.raises(InputError, match="has 1 ids more than once: x"):
        read_form(path)


def test_a_digest_covers_all_that_is_read(tmp_path):
    """The table beside the data counts, the file of another data set does not."""
    path = write_h5(tmp_path / "a.h5", version=3)
    write_text(tmp_path / "b.csv", genes_in="rows")
    assert [one.name for one in files_of(path)] == ["a.h5", "a.obs.csv"]
    np.save(tmp_path / "m.npy", X)
    (tmp_path / "m.json").write_text("{}")
    assert [one.name for one in files_of(tmp_path / "m.npy")] == ["m.npy", "m.json"]
    assert len(files_of(write_mtx(tmp_path / "folder", gz=True))) == 4


def test_what_is_told_of_no_cell_is_asked_for(tmp_path):
    folder = write_mtx(tmp_path / "a", gz=False)
    (folder / "obs.csv").unlink()
    with pytest.raises(InputError, match=r"(?s)nothing is told of the cells, so no column 'drug'.*obs.csv"):
        read_cells(folder, **KEYS)


def test_damaged_and_unknown_forms_are_refused(tmp_path):
    folder = write_mtx(tmp_path / "a", gz=False)
    shutil.copy(folder / "barcodes.tsv", folder / "x_barcodes.tsv")
    with pytest.raises(InputError, match="must hold one barcodes.tsv, plain or as .gz; got barcodes.tsv, x_barcodes"):
        read_form(folder)
    (folder / "x_barcodes.tsv").write_text("only\n")
    (folder / "barcodes.tsv").unlink()
    with pytest.raises(InputError, match=r"has shape \(4, 5\), but the folder names 4 features and 1 barcodes"):
        read_form(folder)
    (folder / "matrix.mtx").write_text("%%MatrixMarket matrix coordinate integer general\n2 2 9\n1 1 1\n")
    with pytest.raises(InputError, match="not a whole Matrix Market file"):
        read_form(folder)
    with h5py.File(tmp_path / "two.h5", "w") as file:
        for genome in ("hg19", "mm10"):
            file[f"{genome}/gene_names"] = [1]
    with pytest.raises(InputError, match="holds 2 genomes: hg19, mm10"):
        read_form(tmp_path / "two.h5")
    (tmp_path / "no.h5").write_text("no")
    with pytest.raises(InputError, match="not a whole 10x HDF5 file"):
        read_form(tmp_path / "no.h5")
    (tmp_path / "cells.xlsx").write_text("no")
    with pytest.raises(InputError, match=r"in no form that is known. Give one of: h5ad; "):
        read_form(tmp_path / "cells.xlsx")
    with pytest.raises(InputError, match="has no layers"):
        read_form(write_h5(tmp_path / "b.h5", version=2), Reading(layer="raw"))


def test_names_of_a_concatenated_matrix_are_needed(tmp_path):
    np.save(tmp_path / "m.npy", X)
    with pytest.raises(InputError, match=r"has no names: '.*m.json' cannot be read"):
        read_form(tmp_path / "m.npy")
    (tmp_path / "m.json").write_text(json.dumps({"genes": ["A"], "perturbed": 3}))
    with pytest.raises(InputError, match="must hold"):
        read_form(tmp_path / "m.npy")


@pytest.mark.real_data
def test_measured_counts_come_through_10x_unchanged(real_data, tmp_path):
    """A study's own counts, written as 10x folders are, genes x cells, and read back."""
    kang = ad.read_h5ad(real_data / "kang" / "kang_ifnb_2000.h5ad")
    io.mmwrite(tmp_path / "matrix.mtx", sparse.coo_matrix(kang.X.T.astype(int)))
    (tmp_path / "genes.tsv").write_text("".join(f"{name}\t{name}\n" for name in kang.var_names))
    (tmp_path / "barcodes.tsv").write_text("".join(f"{name}\n" for name in kang.obs_names))
    kang.obs.sample(frac=1, random_state=0).to_csv(tmp_path / "obs.csv")
    cells = read_cells(tmp_path, condition_key="condition", control="control", context_key="cell_type")
    assert abs(cells.x - kang.X).nnz == 0
    assert cells.genes == tuple(kang.var_names)
    assert list(cells.context) == list(kang.obs["cell_type"])
    assert cells.unit == "counts"
