"""Tabulated distributions against scipy, and their inversion against a search one by one."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from pertcast.simulate.tables import count_tables

MEAN = np.array([0.0, 1e-6, 0.5, 3.0, 40.0, 40.0])
DISPERSION = np.array([1.0, 0.5, 2.0, 1.0, 0.0, 0.3])
INFLATION = np.array([0.0, 0.3, 0.0, 0.9, 0.5, 0.0])


@pytest.fixture
def tables():
    return count_tables(MEAN, DISPERSION, INFLATION)


def test_probabilities_are_scipys(tables):
    """R18: cumulative probabilities to 1e-13; what is left out has less than 2^-54."""
    x = np.arange(tables.below.shape[1])
    for got, mean, dispersion, inflation in zip(tables.below, MEAN, DISPERSION, INFLATION, strict=True):
        r = 1 / dispersion if dispersion else None
        plain = stats.nbinom(r, r / (r + mean)) if dispersion else stats.poisson(mean)
        assert_allclose(got, inflation + (1 - inflation) * plain.cdf(x), atol=1e-13)
        assert plain.sf(x[-1]) < 2**-54
    assert_array_equal(tables.zero, tables.below[:, 0])


def test_inversion_finds_the_smallest_count_that_exceeds(tables):
    """One by one with numpy's search, for random numbers, all edges of the table and the last number below 1."""
    uniform = np.concatenate([np.random.default_rng(0).random(3000), [0.0, 0.25, 0.5, 1 - 2**-53]])
    for kind, below in enumerate(tables.below):
        at = np.concatenate([uniform, below[below < 1][:50], np.nextafter(below[:50], 0)])
        got = tables.invert(np.full(len(at), kind, np.int32), at)
        assert_array_equal(got, np.searchsorted(below, at, side="right"))


def test_tables_that_would_be_too_large_are_not_made():
    assert count_tables(np.array([1e6]), np.array([1.0]), np.zeros(1), most=1 << 20) is None
    assert count_tables(np.array([1.0]), np.array([1.0]), np.zeros(1), most=1 << 20) is not None
