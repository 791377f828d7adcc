"""Likelihood, zeros and moments of zero-inflated counts, against scipy, brute force and numbers worked by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from pertcast.errors import InputError
from pertcast.metrics.count_likelihood import (
    CountParameters,
    dispersion_from_size,
    size_from_dispersion,
    solve_zero_inflation,
    zero_probability,
    zinb_log_likelihood,
    zinb_moments,
)

COUNTS = np.array([0, 1, 2, 7, 40, 300, 5000])[:, None, None, None]
MEANS = np.array([0.01, 0.3, 3.0, 50.0, 2000.0])[:, None, None]
DISPERSIONS = np.array([1e-3, 0.049, 0.051, 0.7, 2.0, 30.0])[:, None]  # both sides of where the series begins
INFLATIONS = np.array([0.0, 1e-12, 0.3, 0.8, 1 - 1e-9])


def scipy_log_likelihood(x, mean, dispersion, zero_inflation):
    plain = stats.nbinom(1 / dispersion, 1 / (1 + dispersion * mean)).logpmf(x)
    kept = np.log1p(-zero_inflation) + plain
    with np.errstate(divide="ignore"):
        return np.where(x == 0, np.logaddexp(np.log(zero_inflation), kept), kept)


def test_agrees_with_scipy_on_a_grid():
    """S002-05, R18: zeros, large counts, zero inflation near 0 and near 1; finite everywhere."""
    got = zinb_log_likelihood(COUNTS, MEANS, DISPERSIONS, INFLATIONS)
    assert got.shape == (7, 5, 6, 5)
    assert np.isfinite(got).all()
    want = scipy_log_likelihood(COUNTS, MEANS, DISPERSIONS, INFLATIONS)
    fine = np.isfinite(want)  # scipy underflows where the mean is tiny and the count large
    assert fine.mean() > 0.9
    assert_allclose(got[fine], want[fine], rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("dispersion", [0.0, 1e-12, 1e-30, 1e-250])
def test_the_poisson_limit_is_scipys_poisson(dispersion):
    """S002-05: size 1 / dispersion grows beyond what differences of log-gammas can bear."""
    x, mean = np.array([0, 1, 5, 90, 2000])[:, None], np.array([0.02, 4.0, 1500.0])
    assert_allclose(zinb_log_likelihood(x, mean, dispersion), stats.poisson(mean).logpmf(x), rtol=1e-6, atol=1e-6)


def test_limits_of_mean_and_zero_inflation():
    """A mean of 0 gives zeros only; zero inflation 1 as well; a tiny mean stays finite."""
    assert_array_equal(zinb_log_likelihood([0, 3], 0.0, 0.5), [0.0, -np.inf])
    assert_array_equal(zinb_log_likelihood([0, 3], 2.0, 0.5, 1.0), [0.0, -np.inf])
    assert_allclose(zinb_log_likelihood(1, 1e-12, 0.5), np.log(1e-12), rtol=1e-9)


def test_probabilities_sum_to_one_and_give_the_moments():
    """S002-03: brute force over all counts; variance' = (1 - pi) m (1 + (a + pi) m)."""
    x = np.arange(4000)
    for mean, dispersion, inflation in ((3.0, 0.5, 0.3), (0.2, 2.0, 0.0), (20.0, 0.0, 0.9)):
        p = np.exp(zinb_log_likelihood(x, mean, dispersion, inflation))
        got = zinb_moments(mean, dispersion, inflation)
        assert_allclose(p.sum(), 1, rtol=1e-9)
        assert_allclose(got.mean, p @ x, rtol=1e-8)
        assert_allclose(got.variance, p @ x**2 - (p @ x) ** 2, rtol=1e-7)
        assert_allclose(zero_probability(mean, dispersion, inflation), p[0], rtol=1e-12)


def test_one_convention_and_converters_both_ways():
    """S002-03, R18: variance = mean + dispersion * mean^2 is scipy's nbinom of size 1 / dispersion."""
    dispersion = np.array([0.01, 0.5, 4.0])
    size = size_from_dispersion(dispersion)
    assert_allclose(size, [100, 2, 0.25])
    assert_allclose(dispersion_from_size(size), dispersion)
    assert_allclose(stats.nbinom(size, size / (size + 3.0)).var(), 3 + dispersion * 9)
    assert_allclose(zinb_moments(3.0, dispersion).variance, 3 + dispersion * 9)


@pytest.mark.parametrize("convert", [size_from_dispersion, dispersion_from_size])
@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_converters_refuse_what_has_no_inverse(convert, bad):
    with pytest.raises(InputError, match="must be finite and above 0"):
        convert(np.array([1.0, bad]))


def test_zero_inflation_is_solved_for():
    """By hand: mean 1, dispersion 1 leaves 1/2 zeros; for 3/4 half of the others must go."""
    assert_allclose(solve_zero_inflation(0.75, 1.0, 1.0), 0.5)
    mean, dispersion = np.array([2.0, 8.0]), np.array([0.5, 1.9])
    assert_allclose(zero_probability(mean, dispersion, solve_zero_inflation(0.8, mean, dispersion)), 0.8)


def test_more_zeros_than_wanted_are_refused_or_clipped():
    """The published simulator clips; otherwise the message says how many cases and the largest share."""
    mean = np.array([1.0, 9.0])
    assert_allclose(solve_zero_inflation(0.3, mean, 1.0, clip=True), [0, (0.3 - 0.1) / 0.9])
    with pytest.raises(InputError, match=r"Zero share 0.3 cannot be had: in 1 of 2 cases .* up to 0.500"):
        solve_zero_inflation(0.3, mean, 1.0)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, np.nan])
def test_a_zero_share_out_of_range_is_refused(share):
    with pytest.raises(InputError, match="at least 0 and below 1"):
        solve_zero_inflation(share, 1.0, 1.0)


@pytest.mark.parametrize(("bad", "first"), [([1, -2], "-2"), ([0.5, 1.0], "0.5"), ([1.0, np.nan], "nan")])
def test_counts_that_are_none_are_refused(bad, first):
    with pytest.raises(InputError, match=f"1 of 2 are not, the first is {first}"):
        zinb_log_likelihood(np.array(bad), 1.0, 1.0)


def test_all_parameters_out_of_range_are_named_at_once():
    with pytest.raises(InputError, match=r"(?s)3 problems.*mean.*got -1.*dispersion.*NaN in 1 of 2.*at most 1, got 2"):
        zinb_log_likelihood(0, -1.0, np.array([0.1, np.nan]), 2.0)


def test_parameters_are_tiled_without_copies():
    p = CountParameters(np.array([1.0, 2.0]), np.array([0.1, 0.2]), np.zeros(2)).tiled(5)
    assert p.mean.shape == (5, 2)
    assert p.mean.strides[0] == 0
    assert_array_equal(p.take([1]).mean, np.full((5, 1), 2.0))


def test_tiled_parameters_give_the_same_in_every_cell():
    """A view that repeats itself is worked on once; the shape of the answer stays that of all four."""
    p = CountParameters(np.array([1.0, 2.0]), np.array([0.1, 0.2]), np.array([0.3, 0.0])).tiled(4)
    x = np.array([[0, 1], [2, 3], [4, 0], [0, 0]])
    want = zinb_log_likelihood(x, p.mean.copy(), p.dispersion.copy(), p.zero_inflation.copy())
    assert_array_equal(zinb_log_likelihood(x, p.mean, p.dispersion, p.zero_inflation), want)
    assert zinb_log_likelihood(3, p.mean, p.dispersion, p.zero_inflation).shape == (4, 2)
    assert zinb_log_likelihood(3, 1.0, 0.5).shape == ()
