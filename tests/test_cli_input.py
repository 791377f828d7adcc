"""Input at fault, command by command: exit 2, one message with file, expected, got and fix, nothing half-written."""

import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from command_line import partials, pertcast, places, refused, submit
from pertcast.types import Predictions


def cut_in_half(folder: Path) -> None:
    path = folder / "de_train.parquet"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_targets(tables) -> None:
    tables.y.iloc[1, 2] = np.nan
    tables.y.iloc[2, 2] = np.inf


SPOILT = {
    "missing column": (
        lambda t: setattr(t, "train", t.train.drop(columns="sm_name")),
        "de_train' .*de_train.parquet\\): column 'sm_name' is missing \\(compound name\\); got cell_type, sm_lincs_id",
    ),
    "wrong type": (
        lambda t: setattr(t, "y", t.y.astype(str)),
        "de_train.parquet\\): numbers expected in 37 gene columns, got other things: G",
    ),
    "unknown cell type": (
        lambda t: setattr(t, "id_map", t.id_map.assign(cell_type=["B cell", "B cells", "B cells", "T cells"])),
        "id_map.csv\\): neither de_train nor cell_baseline has the cell type of 1 row, first row 0, "
        ".* Did you mean 'B cells'\\? Known: ",
    ),
    "duplicate pair to predict": (
        lambda t: setattr(t, "id_map", t.id_map.assign(sm_name=["new", "new", "NA", "new"])),
        "id_map.csv\\): the key \\('cell_type', 'sm_name'\\) is repeated by 1 row: first row 1, 'B cells' / 'new'",
    ),
    "duplicate pair measured": (
        lambda t: setattr(t, "train", t.train.assign(sm_name="compound 0")),
        "de_train.parquet\\): the key \\('cell_type', 'sm_name'\\) is repeated by 10 rows: first row 3",
    ),
    "unparseable SMILES": (
        lambda t: setattr(t, "train", t.train.assign(SMILES=["C1CC((", *t.train["SMILES"][1:]])),
        "1 SMILES string in 1 row cannot be parsed: first 'C1CC\\(\\(' at row 0, 'NK cells' / 'compound 0'",
    ),
    "unparseable SMILES to predict": (
        lambda t: setattr(t, "id_map", t.id_map.assign(SMILES=[None, None, None, "nonsense"])),
        "id_map.csv\\): 1 SMILES string in 1 row cannot be parsed: first 'nonsense' at row 3, 'T cells' / 'new'",
    ),
    "NaN and inf": (
        spoil_targets,
        "has 2 problems:\n.*got 1 value NaN or missing: first gene 'G\\d+', row 1, .*\n.*got 1 value infinite",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_competition_is_refused(tables, tmp_path, name):
    """Faults of the tables: file, place, what was expected and got, in one message; nothing is written."""
    spoil, message = SPOILT[name]
    spoil(tables)
    data = tables.write(tmp_path / "data")
    done = submit(data, tmp_path / "out.csv", tmp_path)
    refused(done, message)
    refused(pertcast("check", data), message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "recipes"]


def test_all_faults_of_all_tables_at_once(tables, tmp_path):
    spoil_targets(tables)
    tables.train.loc[1, "SMILES"] = "C1CC(("
    tables.id_map = pd.concat([tables.id_map, tables.id_map[:1]])
    done = pertcast("check", tables.write(tmp_path / "data"))
    refused(done, "de_train.parquet\\) has 3 problems:")
    refused(done, "id_map.csv\\) has 2 problems:")


def test_files_that_cannot_be_read(tables, tmp_path):
    """Truncated Parquet, empty folder, no folder, a file for a folder, a CSV that is none."""
    data = tables.write(tmp_path / "data")
    cut_in_half(data)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    cases = {
        "data": "de_train.parquet' is not a whole Parquet file \\([\\d,]+ bytes\\): .* Copy or download it again.",
        "empty": "empty' is empty, expected de_train.parquet and id_map.csv. Give the folder .* `pertcast demo`.",
        "nowhere": "nowhere' cannot be read: No such file or directory. Give the folder that holds",
        "file": "file' is a file, not a folder. Give the folder that holds the competition's files.",
    }
    for name, message in cases.items():
        refused(submit(tmp_path / name, tmp_path / "out.csv", tmp_path), message)
        refused(pertcast("check", tmp_path / name), message)
        refused(pertcast("validate", tmp_path / "file", "--data", tmp_path / name), message)
    refused(pertcast("validate", tmp_path / "no.csv", "--data", tables.write(tmp_path / "data")), "'.*no.csv' does not")
    for solution in ("no.parquet", "file"):
        done = pertcast("score", tmp_path / "no.csv", "--solution", tmp_path / solution)
        refused(done, f"{solution}'? (cannot be read|is not a whole Parquet)")


CHOICES = {
    ("--preset", "fst"): "Unknown preset 'fst'. Did you mean 'fast'\\? Known: cells, default, fast",
    ("--format", "kagle"): "Unknown format 'kagle'. Did you mean 'kaggle'\\? Known: kaggle, openproblems.",
    ("--format", "openproblems"): "in the form 'openproblems' must end in '.h5ad', got '.*out.csv'. Write to '.*out.h5",
    ("--device", "gpu"): "Unknown device 'gpu'. Did you mean 'cpu'\\? Known: auto, cpu, cuda.",
    ("--layer", "logFC"): "has no de_train.h5ad, which the layer 'logFC' was asked of. Name no layer, or put",
}


@pytest.mark.parametrize("option", CHOICES)
def test_unknown_choices_of_submission(tables, tmp_path, option):
    data = tables.write(tmp_path / "data")
    done = pertcast("submission", "--data", data, "--out", tmp_path / "out.csv", *places(tmp_path), *option)
    refused(done, CHOICES[option])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


SETTINGS = {
    ("rige",): "Unknown recipe 'rige'. Did you mean 'ridge'\\? Known: .* Or give the path of a recipe's TOML file.",
    ("ridge", "ridge"): "Recipes: 2 recipes have the name 'ridge'",
    ("ridge", "--set", "name=blend"): "the name 'blend' stands for something else in the score table",
    ("ridge", "--set", "name=zeros"): "the name 'zeros' stands for something else in the score table",
    ("ridge", "--set", "name=../x"): "the name '../x' is not made of letters, digits, '-', '_' and '.'",
    ("ridge", "--folds", "tsk"): "Unknown fold strategy 'tsk'. Did you mean 'task'\\? Known: celltype, ",
    ("ridge", "--set", "settings"): "Cannot read the change 'settings'. Expected 'group.field=value'",
    ("ridge", "--set", "name.x=3"): "Cannot set 'name.x': 'name' is a single value, not a group of settings.",
    ("ridge", "--set", "settings.widht=3"): "model 'ridge': 'widht': .* got 3\nKnown fields: blocks, components",
    ("ridge", "--set", 'features.blocks=["morgn"]'): "Unknown feature block 'morgn'. Did you mean 'morgan'\\?",
    ("additive", "--set", "settings.x=1"): "Settings of model 'additive': 'x': .* got 1",
}


@pytest.mark.parametrize("arguments", SETTINGS)
def test_unknown_settings_of_cv(tables, tmp_path, arguments):
    """Refused before anything is fitted: no run folder is begun."""
    data = tables.write(tmp_path / "data")
    done = pertcast("cv", *arguments, "--data", data, "--out", tmp_path / "runs", "--cache", tmp_path / "cache")
    refused(done, SETTINGS[arguments])
    assert not list(tmp_path.glob("runs/*/*"))


def test_recipe_files_that_cannot_be_read(tables, tmp_path):
    data = tables.write(tmp_path / "data")
    (tmp_path / "broken.toml").write_text("model = \n")
    (tmp_path / "bare.toml").write_text("reason = 1\nseeds = 0\nrecipes = 3\n")
    done = pertcast("cv", tmp_path / "broken.toml", "--data", data, "--out", tmp_path / "runs")
    refused(done, "Recipe '.*broken.toml' is not valid TOML: Invalid value \\(at line 1")
    done = pertcast("cv", tmp_path / "bare.toml", "--data", data, "--out", tmp_path / "runs")
    refused(done, "Recipe '.*bare.toml' has \\d problems:\n(.*\n)*.*'model': Field required")
    done = pertcast("submission", "--preset", tmp_path / "bare.toml", "--data", data, "--out", tmp_path / "o.csv")
    refused(done, "Preset '.*bare.toml' has 3 problems:")


def test_places_that_cannot_be_written_to_are_refused_first(tables, tmp_path, monkeypatch):
    """Not after minutes of fitting: the place of the file, of the runs, and its ending."""
    monkeypatch.setattr("pertcast.workflow.cv.cross_validate", lambda *args, **kwargs: pytest.fail("it was fitted"))
    data = tables.write(tmp_path / "data")
    (tmp_path / "file").write_text("x")
    blocked = "'.*file.*' cannot be written to: .* Choose another place, or move away what stands there."
    refused(submit(data, tmp_path / "file" / "out.csv", tmp_path), blocked)
    refused(submit(data, tmp_path / "file", tmp_path), blocked)
    refused(submit(data, tmp_path / "out.txt", tmp_path), "must end in '.csv', got '.*out.txt'. Write to '.*out.csv'.")
    done = pertcast("cv", "ridge", "--data", data, "--out", tmp_path / "file" / "runs")
    refused(done, blocked)
    done = pertcast("ensemble", tmp_path / "no-run", "--data", data, "--out", tmp_path / "file" / "out.csv")
    refused(done, blocked)
    refused(pertcast("demo", "--size", "tiny", "--out", tmp_path / "file" / "x"), "'.*file' cannot be written: File ex")
    refused(pertcast("demo", "--size", "tiny", "--out", data), "holds files that are no demo .*nothing was written.")
    assert (tmp_path / "file").read_text() == "x"


def test_no_permission(tables, tmp_path, monkeypatch):
    """Whoever runs the tests may write anywhere, so the refusal is made."""
    data = tables.write(tmp_path / "data")

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pertcast.io.atomic.tempfile.TemporaryFile", refuse)
    done = submit(data, tmp_path / "out.csv", tmp_path)
    refused(done, "Folder '.*' cannot be written to: Permission denied. Choose another place")


def full(path: Path, predictions: Predictions) -> None:
    """Write half of a file to a disk that is full then."""
    path.write_bytes(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_a_full_disk_while_a_unit_is_written(demo, fitted, tmp_path, monkeypatch):
    """One message, no half unit, finished units stay, and the same command goes on from them."""
    from pertcast import runs

    arguments = ("cv", "ridge", "--data", demo, "--out", tmp_path / "runs", "--cache", fitted[0] / "cache", "--jobs", 1)
    written = []

    def write(path, predictions, whole=runs.write_predictions):
        written.append(path)
        (full if len(written) == 3 else whole)(path, predictions)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_predictions", write)
        done = pertcast(*arguments)
    refused(done, "'.*seed0' cannot be written: .*No space left on device.* The disk is full. Free some space")
    assert not partials(tmp_path)
    assert len(list(tmp_path.glob("runs/*/*/*/seed0/DONE.json"))) == 2
    assert json.loads(pertcast(*arguments, "--json").out)["lines"] == json.loads(fitted[2])["lines"]


def test_a_full_disk_while_the_submission_is_written(demo, fitted, tmp_path, monkeypatch):
    """Neither the CSV nor its facts stand under their names."""

    def write(path: Path, data) -> int:
        with open(path, "wb") as file:
            file.write(bytes(data)[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", write)
    done = pertcast("ensemble", fitted[1], "--data", demo, "--out", tmp_path / "out.csv")
    refused(done, "'.*out.csv' cannot be written: .*No space left on device.* The disk is full. Free some space")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_anywhere_else_is_told_too(demo, tmp_path, monkeypatch):
    def mkdir(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr("pertcast.runs.Path.mkdir", mkdir)
    monkeypatch.setattr("pertcast.workflow.make_folder", lambda folder: None)
    done = pertcast("cv", "ridge", "--data", demo, "--out", tmp_path / "runs")
    refused(done, "'.*runs.*' cannot be written: No space left on device. Free some space, or choose another place.")


def test_validate_names_every_fault(demo, blended, tmp_path):
    table = pd.read_csv(blended)
    table = table.rename(columns={"id": "Id"}).drop(columns=table.columns[3]).iloc[:-1]
    table.to_csv(tmp_path / "spoilt.csv", index=False)
    done = pertcast("validate", tmp_path / "spoilt.csv", "--data", demo)
    refused(done, "spoilt.csv' has \\d problems:")
    for fault in ("'Id'", "genes without a column \\(1\\)", "missing ids \\(1\\): 8"):
        assert re.search(fault, done.err), (fault, done.err)
