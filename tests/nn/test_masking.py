"""Hidden entries: how many, which, and that all sets are equally likely."""

from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array, random_array
from scipy.stats import chisquare

from pertcast.errors import InputError
from pertcast.nn.masking import hidden_counts, hide, hide_batch, hide_dense, hide_sparse
from pertcast.nn.sparse_rows import SparseRows


@pytest.fixture
def x():
    return csr_array(random_array((60, 400), density=0.3, rng=np.random.default_rng(0), dtype=np.float32) + 0)


def test_eighty_percent_of_a_thousand_genes_are_eight_hundred():
    """R11: masking with replacement hides 1 - exp(-0.8) of them, about 551."""
    row = csr_array(np.ones((1, 1000), np.float32))
    assert hide_sparse(row, 0.8, 0.8, np.random.default_rng(0)).sum() == 800
    draws = np.random.default_rng(0).integers(1000, size=800)
    assert len(set(draws)) < 600  # the published way


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.8), (0.01, 0.8), (0.2, 0.5), (0.0, 1.0), (1.0, 1.0), (0.3, 0.3)])
def test_the_realised_share_lies_in_the_range(x, low, high):
    """S001-01: share of each cell's own genes, and several shares are drawn where the range has several."""
    hidden = hide_sparse(x, low, high, np.random.default_rng(1))
    share = np.add.reduceat(hidden, x.indptr[:-1], dtype=int) / np.diff(x.indptr)
    slack = (0.5 if low == high else 0) / np.diff(x.indptr) + 1e-9
    assert (share >= low - slack).all()
    assert (share <= high + slack).all()
    assert (np.ptp(share) > 0.05) == (low < high)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.8), (1.0, 1.0), (0.05, 0.1)])
def test_zeros_are_never_hidden(x, low, high):
    """S001-01, for the dense form, which draws as many as the sparse one would."""
    dense = np.tile(x.toarray(), (5, 1))
    hidden = hide_dense(dense, low, high, np.random.default_rng(2))
    assert not hidden[dense == 0].any()
    share = hidden.sum(axis=1) / (dense != 0).sum(axis=1)
    assert (share >= low).all()
    assert (share <= high).all()


@pytest.mark.parametrize("dense", [False, True])
def test_every_set_is_equally_likely(dense):
    """Three of five entries, 20,000 times: the ten sets by a chi-square test; of the dense form two zeros between."""
    n, rng = 20_000, np.random.default_rng(3)
    if dense:
        at = [0, 1, 3, 4, 6]
        values = np.zeros((n, 7), np.float32)
        values[:, at] = 1
        hidden = hide_dense(values, 0.6, 0.6, rng)[:, at]
    else:
        hidden = hide(np.arange(n + 1) * 5, np.full(n, 3), rng).reshape(n, 5)
    assert (hidden.sum(axis=1) == 3).all()
    code = hidden @ (1 << np.arange(5))
    sets = [sum(1 << i for i in one) for one in combinations(range(5), 3)]
    counts = [int((code == one).sum()) for one in sets]
    assert sum(counts) == n
    assert chisquare(counts).pvalue > 1e-3


def test_counts_are_uniform_over_the_range():
    drawn = hidden_counts(np.full(30_000, 10), 0.5, 0.8, np.random.default_rng(4))
    assert chisquare(np.bincount(drawn)[5:]).pvalue > 1e-3
    assert_array_equal(np.unique(drawn), [5, 6, 7, 8])


def test_short_and_empty_rows():
    """No whole number lies between half and 0.8 of one gene; a cell without genes hides none."""
    x = csr_array(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]], np.float32))
    hidden = hide_sparse(x, 0.5, 0.8, np.random.default_rng(5))
    assert_array_equal(hidden_counts(np.array([0, 1, 3]), 0.5, 0.8, np.random.default_rng(0)), [0, 1, 2])
    assert (hidden[0], hidden[1:].sum()) == (True, 2)


def test_a_wrong_range_is_refused(x):
    with pytest.raises(InputError, match=r"rise from at least 0 to at most 1, got 0.8 to 0.5"):
        hide_sparse(x, 0.8, 0.5, np.random.default_rng(0))


@pytest.mark.parametrize("zeros", [False, True])
def test_batches_on_a_device(x, zeros):
    rows = torch.tensor([5, 2, 40])
    batch = SparseRows.of(x)[rows]
    hidden = hide_batch(batch, 0.4, 0.6, np.random.default_rng(6), zeros=zeros)
    dense = batch.dense()
    assert_array_equal(dense.numpy(), x.toarray()[rows])
    may = torch.ones_like(dense) if zeros else (dense != 0)
    assert not (hidden & (may == 0)).any()
    share = hidden.sum(1) / may.sum(1)
    assert (share >= 0.4).all()
    assert (share <= 0.6).all()
    again = hide_batch(batch, 0.4, 0.6, np.random.default_rng(6), zeros=zeros)
    assert_array_equal(again, hidden)
    assert not np.array_equal(hide_batch(batch, 0.4, 0.6, np.random.default_rng(7), zeros=zeros), hidden)
