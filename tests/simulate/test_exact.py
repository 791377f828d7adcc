"""The oracle's distributions against scipy and brute force."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from pertcast.errors import InputError
from pertcast.metrics.count_likelihood import CountParameters
from pertcast.simulate.exact import Oracle


@pytest.fixture
def oracle():
    """Two cells, three genes: plain, shifted by 10, and set to 4 in the second cell."""
    parameters = CountParameters(np.array([[2.0, 3.0, 5.0]] * 2), np.full((2, 3), 0.5), np.full((2, 3), 0.25))
    shift = np.array([[0.0, 10.0, 0.0]] * 2)
    fixed = np.array([[np.nan] * 3, [np.nan, np.nan, 4.0]])
    return Oracle(("a", "b", "c"), parameters, shift, fixed)


def test_the_pmf_sums_to_one_and_has_the_moments(oracle):
    x = np.arange(400)
    for i, gene in enumerate(oracle.genes):
        p = oracle.pmf(gene, x)
        assert_allclose(p.sum(1), 1, rtol=1e-9)
        assert_allclose(p @ x, oracle.mean[:, i], rtol=1e-7)
        assert_allclose(p @ x**2 - (p @ x) ** 2, oracle.variance[:, i], rtol=1e-6, atol=1e-9)
        assert_allclose(p[:, 0], oracle.zero_probability[:, i])


def test_likelihood_of_shifted_and_set_genes(oracle):
    """A shift moves scipy's distribution; below it nothing can be; a set gene has its value for certain."""
    counts = np.array([[0, 12, 1], [3, 9, 4]])
    plain = [stats.nbinom(2, 2 / (2 + mean)) for mean in (2, 3, 5)]
    want = [
        [np.log(0.25 + 0.75 * plain[0].pmf(0)), np.log(0.75 * plain[1].pmf(2)), np.log(0.75 * plain[2].pmf(1))],
        [np.log(0.75 * plain[0].pmf(3)), -np.inf, 0.0],
    ]
    assert_allclose(oracle.log_likelihood(counts), want, rtol=1e-12)
    assert oracle.log_likelihood(np.array([[0, 12, 1], [3, 9, 5]]))[1, 2] == -np.inf


def test_set_and_masked_entries_do_not_count(oracle):
    counts = np.array([[0.0, 12, np.nan], [3, 11, 4]])
    ll = oracle.log_likelihood(counts)
    assert np.isnan(ll[0, 2])
    assert_allclose(oracle.nll(counts), -np.mean([ll[0, 0], ll[0, 1], ll[1, 0], ll[1, 1]]))
    with pytest.raises(InputError, match="no entry is both free and observed"):
        oracle.nll(np.full((2, 3), np.nan))


def test_genes_by_name_and_other_shapes_refused(oracle):
    """R17."""
    assert_array_equal(oracle.only("c", "a").parameters.mean, [[5, 2]] * 2)
    with pytest.raises(InputError, match="'d' is not among the 3"):
        oracle.pmf("d", np.arange(3))
    with pytest.raises(InputError, match="shape"):
        oracle.nll(np.zeros((2, 2)))
    with pytest.raises(InputError, match="whole numbers"):
        oracle.nll(np.array([[0.5, 12, 1], [3, 9, 4]]))
