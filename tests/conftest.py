"""Shared fixtures: a small competition written to a temporary folder, and the measured data where they are present."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from command_line import pertcast

REAL_DATA = Path(os.environ.get("PERTCAST_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("real_data") and not REAL_DATA.is_dir():
        message = f"the measured data are not in {REAL_DATA}; PERTCAST_REAL_DATA says where else to look"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of the measured data. Tests that use it carry the marker `real_data`."""
    return REAL_DATA


@dataclass
class Tables:
    """The tables of a small competition, free to be spoilt by a test before they are written."""

    train: pd.DataFrame  # (13, 5)  three cell types, one of them with three of the five compounds
    y: pd.DataFrame  # (13, 37)
    id_map: pd.DataFrame  # (4, 3)  the last compound is unknown to training

    def write(self, folder: Path, *, form: str = "parquet") -> Path:
        folder.mkdir(exist_ok=True)
        table = pd.concat([self.train, self.y], axis=1)
        if form == "csv":
            table.to_csv(folder / "de_train.csv", index=False)
        else:
            table.to_parquet(folder / "de_train.parquet")
        self.id_map.to_csv(folder / "id_map.csv", index=False)
        return folder


@pytest.fixture
def tables() -> Tables:
    structures = ["CCO", "CCN", "c1ccccc1O", "CC(=O)O", "CCCl"]
    pairs = [
        (cell_type, f"compound {k}", f"LSM-{k}", structures[k], k == 0)
        for k in range(5)
        for cell_type in ("NK cells", "T cells", "B cells")
        if cell_type != "B cells" or k < 3
    ]
    train = pd.DataFrame(pairs, columns=["cell_type", "sm_name", "sm_lincs_id", "SMILES", "control"])
    genes = [f"G{k}" for k in np.random.default_rng(1).permutation(37)]
    y = pd.DataFrame(np.random.default_rng(0).normal(size=(13, 37)), columns=genes)
    questions = ["compound 3", "compound 4", "NA", "new"]
    id_map = pd.DataFrame({"id": range(4), "cell_type": ["B cells"] * 3 + ["T cells"], "sm_name": questions})
    return Tables(train, y, id_map)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """Return a folder with the tiny simulated competition."""
    folder = tmp_path_factory.mktemp("demo") / "tiny"
    assert pertcast("demo", "--size", "tiny", "--out", folder).code == 0
    return folder


@pytest.fixture(scope="module")
def fitted(demo, tmp_path_factory) -> tuple[Path, Path, str]:
    """Return a folder with runs of `ridge`, the run itself, and what `cv --json` said."""
    folder = tmp_path_factory.mktemp("fitted")
    arguments = ("--data", demo, "--out", folder / "runs", "--cache", folder / "cache", "--jobs", "1")
    done = pertcast("cv", "ridge", *arguments, "--json")
    assert done.code == 0, done.err
    (run,) = (folder / "runs").glob("ridge-*")
    return folder, run, done.out


@pytest.fixture(scope="module")
def blended(demo, fitted) -> Path:
    """Return a submission blended from the run of `fitted`."""
    path = fitted[0] / "blend.csv"
    assert pertcast("ensemble", fitted[1], "--data", demo, "--out", path).code == 0
    return path
