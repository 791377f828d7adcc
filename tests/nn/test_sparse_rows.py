"""Rows cut out of a sparse matrix against numpy's indexing of the dense one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from pertcast.nn.sparse_rows import SparseRows


def matrix(n: int, g: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.poisson(1.0, (n, g)) * (rng.random((n, g)) < 0.4)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 99), st.data())
def test_batches_are_the_rows_of_the_dense_matrix(n, g, seed, data):
    """Any rows, in any order, repeated or none; rows without entries among them."""
    dense = matrix(n, g, seed)
    rows = data.draw(st.lists(st.integers(0, n - 1), max_size=12))
    batch = SparseRows.of(csr_array(dense))[torch.tensor(rows, dtype=torch.int64)]
    assert batch.shape == (len(rows), g)
    assert_array_equal(batch.dense().numpy(), dense[rows])
    assert_array_equal(batch.column.numpy(), np.nonzero(dense[rows])[1])
    assert_array_equal(batch.values.numpy(), dense[rows][np.nonzero(dense[rows])])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 99), st.data())
def test_rows_of_rows(n, g, seed, data):
    dense = matrix(n, g, seed)
    first = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=12))
    second = data.draw(st.lists(st.integers(0, len(first) - 1), max_size=12))
    cut = SparseRows.of(csr_array(dense)).rows(torch.tensor(first))
    assert len(cut) == len(first)
    again = cut[torch.tensor(second, dtype=torch.int64)]
    assert_array_equal(again.dense().numpy(), dense[first][second])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stored_zeros_are_dropped_without_touching_the_matrix(dtype):
    stored = csr_array((np.array([0.0, 2.0, 0.0]), np.array([0, 1, 2]), np.array([0, 2, 3])), shape=(2, 3))
    rows = SparseRows.of(stored, dtype=dtype)
    assert rows.values.tolist() == [2.0]
    assert rows.values.dtype == dtype
    assert_array_equal(rows[torch.arange(2)].dense().numpy(), [[0, 2, 0], [0, 0, 0]])
    assert stored.nnz == 3


def test_a_matrix_without_rows_or_entries():
    assert len(SparseRows.of(csr_array((0, 4)))) == 0
    empty = SparseRows.of(csr_array((3, 4)))[torch.tensor([2, 0])]
    assert empty.dense().shape == (2, 4)
    assert not empty.dense().any()
