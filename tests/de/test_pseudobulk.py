"""Sums of cells against pandas' groupby."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from pertcast.de.pseudobulk import pseudobulk
from pertcast.errors import InputError


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({
        "type": pd.Categorical(rng.choice(["T", "B"], 60), ["T", "B", "NK"]),
        "donor": rng.choice([1, 2, 3], 60),
        "drug": rng.choice(["dmso", "x"], 60),
    })  # fmt: skip
    return rng.poisson(0.7, (60, 9)), obs


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_array, lambda x: x.astype(np.float32)])
def test_equals_groupby(cells, form):
    counts, obs = cells
    bulk = pseudobulk(form(counts), obs, ["type", "donor", "drug"])
    want = pd.DataFrame(counts).groupby([obs["type"], obs["donor"], obs["drug"]], observed=True).sum()
    assert_array_equal(bulk.counts, want.to_numpy())
    assert bulk.counts.dtype == np.int64
    assert [tuple(row) for row in bulk.obs[["type", "donor", "drug"]].to_numpy()] == list(want.index)
    assert bulk.obs["n_cells"].sum() == 60
    assert bulk.genes == tuple("012345678")


def test_the_order_of_cells_does_not_matter(cells):
    """R23: no cell is paired with another."""
    counts, obs = cells
    order = np.random.default_rng(1).permutation(60)
    one, other = (pseudobulk(counts[rows], obs.iloc[rows], ["type", "drug"]) for rows in (np.arange(60), order))
    assert_array_equal(one.counts, other.counts)
    pd.testing.assert_frame_equal(one.obs, other.obs)


def test_small_samples_are_dropped_and_listed(cells):
    counts, obs = cells
    every = pseudobulk(counts, obs, ["donor", "type"])
    size = int(every.obs["n_cells"].median())
    kept = pseudobulk(counts, obs, ["donor", "type"], min_cells=size)
    mask = (every.obs["n_cells"] >= size).to_numpy()
    assert 0 < mask.sum() < len(mask)
    assert_array_equal(kept.counts, every.counts[mask])
    assert len(kept.dropped) == (~mask).sum()
    assert (kept.dropped["n_cells"] < size).all()


def test_sums_beyond_float32_are_exact():
    counts = sparse.csr_matrix(np.full((3, 1), 2**24 - 1, np.float32))
    bulk = pseudobulk(counts, pd.DataFrame({"a": ["x"] * 3}), ["a"])
    assert bulk.counts[0, 0] == 3 * (2**24 - 1)


def test_all_faults_at_once(cells):
    counts, obs = cells
    obs["drug"] = obs["drug"].where(obs["drug"] == "x", None)
    counts = counts.astype(float)
    counts[0, :4] = [0.5, -1, np.nan, np.inf]
    with pytest.raises(InputError) as caught:
        pseudobulk(sparse.csr_matrix(counts), obs, ["type", "drug", "plate"], min_cells=0)
    message = str(caught.value)
    for part in (
        "6 problems", "lacks the columns plate; it has type, donor, drug", "column 'drug' has no label for",
        "2 counts are not finite", "1 counts are negative, first -1", "1 counts are not whole, first 0.5",
        "min_cells must be at least 1, got 0",
    ):  # fmt: skip
        assert part in message


def test_further_faults(cells):
    counts, obs = cells
    with pytest.raises(InputError, match="the largest has .* Lower min_cells"):
        pseudobulk(counts, obs, ["type"], min_cells=61)
    with pytest.raises(InputError, match=r"\(60, 9\) must have a row for each of 59 cells and 2 genes"):
        pseudobulk(counts, obs[:-1], ["type"], genes=["a", "b"])
    with pytest.raises(InputError, match="named once each, got type, type"):
        pseudobulk(counts, obs, ["type", "type"])
    with pytest.raises(InputError, match="may not be called 'n_cells'"):
        pseudobulk(counts, obs.assign(n_cells=1), ["n_cells"])
    with pytest.raises(InputError, match="there are no cells"):
        pseudobulk(counts[:0], obs[:0], ["type"])
    with pytest.raises(InputError, match="counts must be numbers"):
        pseudobulk(counts.astype(str), obs, ["type"])
