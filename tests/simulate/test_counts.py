"""Moments, zeros and the whole distribution of negative-binomial draws."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from pertcast.errors import InputError
from pertcast.simulate.counts import negative_binomial


def test_mean_and_variance_follow_the_stated_convention():
    """R18: variance = mean + dispersion * mean^2; here 4 + 0.5 * 16 = 12."""
    draws = negative_binomial(np.full(400_000, 4.0), 0.5, rng=np.random.default_rng(1))
    assert_allclose(draws.mean(), 4, rtol=0.01)
    assert_allclose(draws.var(), 12, rtol=0.02)


def test_distribution_equals_scipy():
    """R18: scipy's size is 1 / dispersion, its probability size / (size + mean)."""
    draws = negative_binomial(np.full(200_000, 2.5), 0.4, rng=np.random.default_rng(2))
    want = stats.nbinom(2.5, 2.5 / 5.0).pmf(np.arange(12))
    assert_allclose(np.bincount(draws)[:12] / len(draws), want, atol=4e-3)


def test_dispersion_zero_is_poisson_and_mean_zero_is_zero():
    mean = np.tile([0.0, 9.0], (100_000, 1))
    draws = negative_binomial(mean, np.array([0.3, 0.0]), rng=np.random.default_rng(3))
    assert_array_equal(draws[:, 0], 0)
    assert_allclose(draws[:, 1].var(), 9, rtol=0.03)


def test_same_seed_same_counts():
    """R38."""
    mean = np.linspace(0, 50, 300)
    one, two, other = (negative_binomial(mean, 0.1, rng=np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.parametrize(("mean", "dispersion", "name"), [(-1.0, 0.1, "mean"), (1.0, -0.1, "dispersion")])
def test_impossible_parameters_are_refused(mean, dispersion, name):
    with pytest.raises(InputError, match=f"Counts: {name} must be finite and at least 0"):
        negative_binomial(np.array([mean]), dispersion, rng=np.random.default_rng(0))
