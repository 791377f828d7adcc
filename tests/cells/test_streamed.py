"""A virtual cell fitted to cells that stay on disk, against the same fit in memory."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from cell_cases import make_cells
from pertcast.cells import streamed
from pertcast.cells.log_scale import as_log1p
from pertcast.cells.registry import build
from pertcast.cells.streamed import split_streamed
from pertcast.io import arrays
from pertcast.nn import sparse_rows
from pertcast.nn.masked_fit import has_single_counts, start_of
from pertcast.nn.sparse_rows import SparseRows, sparse_pieces

SETTINGS = {"hidden": [8], "hiding": {"zeros": True}, "training": {"epochs": 3, "batch": 32}}


@pytest.fixture
def cells():
    return make_cells(0, cells=240, genes=12)


@pytest.mark.parametrize("zeros", [True, False])
def test_the_network_is_the_one_of_a_fit_in_memory(cells, tmp_path, zeros):
    """S001-17: same parts, same batches, same weights to the last bit."""
    settings = {**SETTINGS, "hiding": {"zeros": zeros}}
    parts = split_streamed(cells, tmp_path / "train", valid_share=0.1, seed=3)
    there = build("masked-autoencoder", settings).fit(parts.train, seed=3, valid=parts.valid)
    here = build("masked-autoencoder", settings).fit(cells, seed=3)
    assert there.history == here.history
    for name, value in here.net.state_dict().items():
        assert_array_equal(there.net.state_dict()[name], value)


def test_training_cells_are_on_the_log_scale_whatever_the_piece(cells, tmp_path, monkeypatch):
    """Log1p of 10,000 counts, cell by cell; every cell trains, stops, or is neither where too many stop."""
    monkeypatch.setattr(arrays, "PIECE", 50)
    monkeypatch.setattr(streamed, "MOST_VALID", 10)
    monkeypatch.setattr(streamed, "MOST_SAMPLED", 70)
    parts = split_streamed(cells, tmp_path / "train", valid_share=0.2, seed=0)
    logs = dict(zip(cells.ids, as_log1p(cells).toarray(), strict=True))
    for part in (parts.train, parts.valid):
        assert part.unit == "log1p"
        assert_array_equal(part.x.toarray(), [logs[name] for name in part.ids])
    assert len(parts.valid) == 10
    assert len(set(parts.valid.ids) | set(parts.train.ids)) == len(parts.train) + 10
    assert (len(parts.sample), parts.sample.unit) == (70, "counts")
    place = {name: row for row, name in enumerate(cells.ids)}
    rows = [place[name] for name in parts.sample.ids]
    assert_array_equal(parts.sample.x.toarray(), cells.x[rows].toarray())


def test_what_is_measured_piece_by_piece_is_what_it_was_whole(cells, monkeypatch):
    """Start of a network, and whether cells show single counts: against dense sums."""
    x = as_log1p(cells)
    whole = start_of(x, zeros=False), start_of(x, zeros=True), has_single_counts(x)
    monkeypatch.setattr(arrays, "PIECE", 30)
    assert len(list(sparse_pieces(x))) > 20
    assert_array_equal(np.concatenate([part.toarray() for part in sparse_pieces(x)]), x.toarray())
    for before, zeros in zip(whole, (False, True), strict=False):
        for name, value in start_of(x, zeros=zeros).items():
            assert_allclose(value, before[name], rtol=1e-6)
    dense = x.toarray()
    assert_allclose(start_of(x, zeros=True)["mean"], dense.mean(axis=0), rtol=1e-5)
    assert_allclose(start_of(x, zeros=False)["mean"], dense.sum(axis=0) / (dense > 0).sum(axis=0), rtol=1e-5)
    assert has_single_counts(x) == whole[2]


def test_rows_that_fill_a_gpu_stay_where_they_are(monkeypatch):
    """Their batches move; torch's device without memory stands for the GPU."""
    rows, far = SparseRows.of(csr_array(np.eye(5, dtype=np.float32))), torch.device("meta")
    assert rows.to(far).values.device == far
    monkeypatch.setattr(sparse_rows, "MOST_ON_DEVICE", 10)
    moved = rows.to(far)
    assert (moved.values.device.type, moved.device, moved[torch.tensor([2, 0])].device) == ("cpu", far, far)
    assert rows.to(torch.device("cpu")).device.type == "cpu"
