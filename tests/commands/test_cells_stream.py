"""`pertcast cells fit --stream`: cells larger than memory, from shards to a run."""

import json
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cell_cases import make_cells
from command_line import pertcast, refused
from pertcast.cell_tasks.runs import open_cell_run
from pertcast.io.cell_stream import CellStream

COLUMNS = ("--condition-key", "drug", "--control", "control", "--context-key", "type")
QUICK = ("--set", "training.epochs=3", "--set", "hidden=[8]", "--set", "hiding.zeros=true")
MEASURED = """
import sys, threading, time
from pathlib import Path
import torch, anndata
torch.set_num_threads(1)
from pertcast.cell_tasks.runs import Columns
from pertcast.cell_tasks.verbs import fit_cells
from pertcast.cells import streamed

def held():
    # Own pages alone: those of a file that is mapped go back whenever memory is short.
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) * 1024

def watch():
    while True:
        peaks.append(held())
        time.sleep(0.02)

streamed.MOST_VALID = streamed.MOST_SAMPLED = 2000  # as few beside these cells as they are beside millions
data, out, stream = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "stream"
torch.nn.Linear(300, 8)(torch.rand(64, 300)).sum().backward()
used, peaks = held(), []
threading.Thread(target=watch, daemon=True).start()
settings = ("training.epochs=1", "hidden=[8]", "training.batch=128", "training.device=cpu")
fit_cells("masked-autoencoder", data, Columns("drug", "control"), out=out, changes=settings, threads=1, stream=stream)
print(max(peaks) - used)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with cells as one file, and as three shards of it."""
    folder = tmp_path_factory.mktemp("stream")
    cells = make_cells(0, cells=300, genes=20)
    obs = pd.DataFrame({"drug": list(cells.condition), "type": list(cells.context)}, index=list(cells.ids))
    whole = ad.AnnData(sparse.csr_matrix(cells.x), obs, pd.DataFrame(index=list(cells.genes)))
    whole.write_h5ad(folder / "whole.h5ad")
    (folder / "shards").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(300), 3)):
        whole[rows].copy().write_h5ad(folder / "shards" / f"{number}.h5ad")
    return folder


def fit(data, out, *more, model="masked-autoencoder"):
    return pertcast("cells", "fit", model, data, *COLUMNS, *QUICK, "--out", out, *more)


def test_shards_are_fitted_as_one_file_in_memory(place, tmp_path):
    """S001-17: the network, bit for bit; nothing is left beside the run; a second call fits nothing."""
    done = fit(place / "shards", tmp_path / "streamed", "--stream", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["cells"], told["genes"], told["unit"], told["fitted"]) == (300, 20, "counts", True)
    assert fit(place / "whole.h5ad", tmp_path / "memory").code == 0
    nets = [open_cell_run(tmp_path / name).model().net.state_dict() for name in ("streamed", "memory")]
    for name, value in nets[0].items():
        assert value.equal(nets[1][name]), name
    assert {path.name for path in tmp_path.iterdir()} == {"streamed", "memory", "tensorboard"}
    again = fit(place / "shards", tmp_path / "streamed", "--stream", "--json")
    assert not json.loads(again.out)["fitted"]
    ask = ("cells", "predict", tmp_path / "streamed", place / "whole.h5ad", "--condition", "up")
    assert pertcast(*ask, "--out", tmp_path / "told.h5ad").code == 0  # counts, as the shards held


def test_what_does_not_stream_says_so(place, tmp_path):
    """Exit 2, nothing written."""
    columns = ("--condition-key", "drug", "--control", "control", "--out", tmp_path / "out", "--stream")
    refused(pertcast("cells", "fit", "mean-shift", place / "whole.h5ad", *columns), "needs all cells in memory; only")
    refused(fit(tmp_path, tmp_path / "out", "--stream"), "holds no cells that can be streamed")
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    refused(fit(tmp_path / "text.csv", tmp_path / "out", "--stream"), "cannot be streamed. Give one of: h5ad; zarr")
    assert {path.name for path in tmp_path.iterdir()} == {"text.csv"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read where Linux writes it")
def test_cells_larger_than_memory_are_fitted(tmp_path):
    """S001-17: streamed, 350 MB of numbers never take 330 MB beyond the libraries; read whole they take more."""
    rng, n, genes = np.random.default_rng(0), 60_000, tuple(f"g{j}" for j in range(2000))
    with CellStream(tmp_path / "cells.h5ad") as stream:
        for _ in range(12):
            stream.add(sparse.csr_array(rng.poisson(0.45, (n // 12, len(genes))).astype(np.float32)))
        stream.finish(pd.DataFrame({"drug": ["control"] * n}, index=[f"c{i}" for i in range(n)]), genes, {})
    peaks = {}
    for how in ("stream", "memory"):
        command = [sys.executable, "-c", MEASURED, tmp_path / "cells.h5ad", tmp_path / how, how]
        told = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stderr[-2000:]
        peaks[how] = int(told.stdout.split()[-1])
    assert open_cell_run(tmp_path / "stream").model().history
    assert peaks["stream"] < 330e6 < 350e6 < peaks["memory"], peaks
