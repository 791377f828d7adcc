"""Folders of CSV files and concatenated matrices against the same cells as they were written."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pertcast.errors import InputError
from pertcast.io.single_cells import read_cells

KEYS = {"condition_key": "condition", "control": "control", "context_key": "context"}
GENES = ["GATA1", "ATF1", "ATF", "MYC"]


def write(folder, name: str, values, *, genes=GENES, cells=None) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    cells = cells or [f"{name[:-4]}-{i}" for i in range(values.shape[1])]
    pd.DataFrame(values, index=genes, columns=cells).to_csv(path)


def name(path, **names) -> None:
    path.write_text(json.dumps(names))


@pytest.fixture
def folder(tmp_path):
    """Counts of two lines; one file has its genes in another order, and one more."""
    rng = np.random.default_rng(0)
    for line in ("K562", "RPE1"):
        for name in ("control", "ATF", "ATF1"):
            write(tmp_path, f"{line}/{name}.csv", rng.poisson(3, (4, 5)))
    turned = rng.poisson(3, (5, 2))
    write(tmp_path, "RPE1/MYC.csv", turned, genes=["MYC", "EXTRA", "ATF", "ATF1", "GATA1"])
    return tmp_path, turned


def test_a_folder_of_files_is_read_by_name(folder):
    """S003-15, S003-14, R27: file ATF is not ATF1, genes go by name and are those common to all."""
    path, turned = folder
    cells = read_cells(path, **KEYS)
    assert cells.genes == ("ATF", "ATF1", "GATA1", "MYC")
    assert (len(cells), cells.unit, cells.control) == (32, "counts", "control")
    assert cells.conditions == ["ATF", "ATF1", "MYC"]
    assert (cells.condition == "ATF").sum() == 10
    assert set(cells.context) == {"K562", "RPE1"}
    got = cells.take(cells.condition == "MYC")
    assert_array_equal(got.x.toarray(), turned[[2, 3, 4, 0]].T)
    one = pd.read_csv(path / "K562" / "ATF.csv", index_col=0)
    row = cells.ids == one.columns[3]
    assert_array_equal(cells.x.toarray()[row][0], one.loc[list(cells.genes)].iloc[:, 3])


def test_a_concatenated_matrix_is_read_by_position(tmp_path):
    """S003-15, S003-14: two marks are two genes, none is the control."""
    x = np.random.default_rng(0).random((4, 3)) * 5
    marks = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    batch = np.eye(2)[[0, 1, 1, 0]]
    np.save(tmp_path / "x.npy", np.column_stack([x, marks, batch]))
    name(tmp_path / "x.json", genes=GENES[:3], perturbed=["ATF", "ATF1"], batches=["a", "b"])
    cells = read_cells(tmp_path / "x.npy", **KEYS)
    assert cells.condition.tolist() == ["control", "ATF", "ATF1", "ATF+ATF1"]
    assert cells.context.tolist() == ["a", "b", "b", "a"]
    assert cells.unit == "log1p"
    assert_allclose(cells.x.toarray(), x, rtol=1e-6)


def test_faults_of_a_folder_are_all_told(folder, tmp_path):
    path, _ = folder
    write(path, "RPE1/GATA1.csv", np.ones((4, 2)), cells=["K562/ATF-0", "other"], genes=["ATF", "ATF", "ATF1", "MYC"])
    (path / "RPE1" / "text.csv").write_text("gene,a\nATF,many\n")
    with pytest.raises(InputError) as told:
        read_cells(path, **KEYS)
    message = str(told.value)
    for said in (
        "1 genes more than once: ATF",
        "1 cells stand in more than one place: K562/ATF-0",
        "text.csv' holds 'many' in line 2",
    ):
        assert said in message
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no cells in a form that is known"):
        read_cells(tmp_path / "empty", **KEYS)


def test_values_and_controls_are_checked(tmp_path):
    write(tmp_path, "one/control.csv", np.array([[-1.5], [0], [1], [2]]))
    with pytest.raises(InputError, match=r"values below 0, down to -1.5; give counts or log1p"):
        read_cells(tmp_path / "one", **KEYS)
    write(tmp_path, "two/KO.csv", np.array([[0.5], [0], [1], [99]]))
    with pytest.raises(
        InputError, match=r"(?s)no untreated cells: Unknown label 'control'.*up to 99: neither counts nor log1p"
    ):
        read_cells(tmp_path / "two", **KEYS)


def test_a_matrix_that_does_not_fit_its_names_is_refused(tmp_path):
    for stem in ("narrow", "odd", "text"):
        name(tmp_path / f"{stem}.json", genes=GENES[:2], perturbed=["ATF"], batches=["a", "b"])
    np.save(tmp_path / "narrow.npy", np.zeros((3, 4)))
    with pytest.raises(InputError, match=r"2 genes, 1 perturbations and 2 batches make 5 columns"):
        read_cells(tmp_path / "narrow.npy", **KEYS)
    np.save(tmp_path / "odd.npy", np.array([[1, 1, 0.5, 1, 0], [1, 1, 0, 1, 1]]))
    with pytest.raises(InputError, match=r"(?s)1 marks of perturbations are neither.*exactly one batch"):
        read_cells(tmp_path / "odd.npy", **KEYS)
    (tmp_path / "text.npy").write_text("none")
    with pytest.raises(InputError, match=r"cannot be read as a matrix"):
        read_cells(tmp_path / "text.npy", **KEYS)
