"""p-values far into the tails against mpmath, their inverse, and the adjustment for many tests against scipy."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from pertcast.de import log10_p as p
from pertcast.errors import InputError


@pytest.mark.parametrize("df", [3.0, 5.5, 60.0, 420.7, 1e5])
@pytest.mark.parametrize("t", [1e-3, 0.5, 3.0, 28.0, 31.0, 60.0, 200.0, 1e4])
def test_log10_p_equals_mpmath(t, df):
    with mpmath.workdps(60):
        tail = mpmath.betainc(df / 2, 0.5, 0, df / (df + mpmath.mpf(t) ** 2), regularized=True)
        want = float(mpmath.log10(tail))
    assert_allclose(p.log10_p(np.array([t, -t]), df), want, rtol=1e-10)
    assert_allclose(p.t_from_signed_log10_p(np.array([-want, want]), df), [t, -t], rtol=1e-9)


def test_log10_p_of_the_normal_limit_equals_scipy():
    t = np.array([0.0, 1.5, 60.0, 1e3])
    assert_allclose(p.log10_p(t, np.inf), (stats.norm.logsf(t) + np.log(2)) / np.log(10), atol=1e-15)
    assert_allclose(p.t_from_signed_log10_p(p.signed_log10_p(t, np.inf), np.inf), t, rtol=1e-9)


def test_signed_log10_p_has_the_sign_of_t_and_no_jump_where_the_tail_series_starts():
    t = np.linspace(-80, 80, 40_001)
    value = p.signed_log10_p(t, 420.0)
    assert np.abs(value).max() > 250
    assert (np.diff(value) > 0).all()
    assert (np.abs(np.diff(value, 2)) < 2e-3).all()  # a jump would stand out against the curvature
    assert_array_equal(np.sign(value), np.sign(t))


@pytest.mark.parametrize("df", [420.0, np.inf])
def test_a_single_number_is_taken_too(df):
    for t in (2.0, -60.0):
        value = p.signed_log10_p(t, df)
        assert value == p.signed_log10_p(np.array([t]), df)[0]
        assert_allclose(p.t_from_signed_log10_p(value, df), t, rtol=1e-9)


@given(st.floats(0, 60), st.one_of(st.floats(3, 1000), st.just(np.inf)))
def test_signed_log10_p_is_finite_odd_and_falls_with_df(t, df):
    """Values of 60 in t are common; -log10 p is finite, odd in t, and largest for the normal limit."""
    value = p.signed_log10_p(np.array([t, -t]), df)
    assert np.isfinite(value).all()
    assert value[0] == -value[1] >= 0
    assert value[0] <= p.signed_log10_p(t, np.inf) * (1 + 1e-12) + 1e-15


@pytest.mark.parametrize("df", [*range(3, 1001, 37), 1000, np.inf])
def test_t_of_sixty_is_finite_and_comes_back(df):
    """Also where p itself is 0 in float64: at t = 60 and df 1000 it is 1e-331."""
    value = p.signed_log10_p(np.array([60.0, -60.0]), df)
    assert np.isfinite(value).all()
    assert value[0] > 4
    assert_allclose(p.t_from_signed_log10_p(value, df), [60, -60], rtol=1e-9)


def test_adjusted_p_equals_scipy():
    log10_p = np.log10(np.random.default_rng(0).beta(0.3, 1, (4, 500)))
    log10_p[0, :20] = log10_p[0, 0]  # ties
    want = stats.false_discovery_control(10**log10_p, axis=1)
    assert_allclose(10 ** p.adjust_log10_p(log10_p), want, rtol=1e-12)


def test_adjusted_p_by_hand():
    """P = 0.01, 0.02, 0.5, 0.03: times 4/1, 4/2, 4/3, 4/4 in their order, then the least of those above."""
    adjusted = p.adjust_log10_p(np.log10([0.01, 0.02, 0.5, 0.03]))
    assert_allclose(10**adjusted, [0.04, 0.04, 0.5, 0.04])


def test_adjusted_p_does_not_underflow():
    adjusted = p.adjust_log10_p(np.array([-1000.0, -400.0, -0.1, -401.0]))
    assert_allclose(adjusted, [-1000 + np.log10(4), -400 + np.log10(4 / 3), -0.1, -401 + np.log10(2)])


def test_adjusted_p_is_in_the_order_of_p_and_never_smaller():
    values = np.log10(np.random.default_rng(1).random(300))
    adjusted = p.adjust_log10_p(values)
    assert (adjusted >= values).all()
    assert (np.diff(adjusted[np.argsort(values)]) >= 0).all()
    assert_array_equal(p.adjust_log10_p(values[::-1])[::-1], adjusted)


def test_genes_without_p_are_not_adjusted():
    with pytest.raises(InputError, match="2 values are NaN or above 0"):
        p.adjust_log10_p(np.array([-1.0, np.nan, 0.1]))
