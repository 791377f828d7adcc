"""Moderated t against R's limma, least squares gene by gene, mpmath and numbers worked by hand."""

import json
from pathlib import Path

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

from pertcast.de import moderated_t as de
from pertcast.errors import InputError


@pytest.fixture(scope="module")
def limma():
    return json.loads((Path(__file__).parent / "limma_fixture.json").read_text())


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    design = np.column_stack([np.repeat(np.eye(3), 5, axis=0), np.tile([0, 1, 0, 1, 1], 3)])  # (15, 4)
    return rng.normal(size=(15, 40)) * np.sqrt(5 / rng.chisquare(5, 40)), design


def test_equals_limma(limma):
    design, y = np.array(limma["design"], float), np.array(limma["y"], float).T
    result = de.moderated_t(de.fit_linear(y, design), np.array(limma["contrasts"], float))
    want = limma["fit"]
    assert_allclose(result.prior.df, float(want["prior_df"]), rtol=1e-6)
    assert_allclose(result.prior.variance, want["prior_variance"], rtol=1e-6)
    assert_allclose(result.prior.posterior, want["posterior"], rtol=1e-6)
    assert_allclose(result.df, want["df_total"], rtol=1e-6)
    assert_allclose(result.unscaled_sd, want["unscaled_sd"], rtol=1e-6)
    assert_allclose(result.effect.T, want["effect"], rtol=1e-6, atol=1e-9)
    assert_allclose(result.t.T, want["t"], rtol=1e-6, atol=1e-9)
    assert_allclose(10 ** de.log10_p(result.t.T, result.df), want["p"], rtol=1e-6)


def test_equals_limma_when_the_variances_agree(limma):
    """The prior df is infinite, and the df of a test are capped at those of all genes together: 25 x 10."""
    design, y = np.array(limma["design"], float), np.array(limma["y_even"], float).T
    result = de.moderated_t(de.fit_linear(y, design), np.eye(6))
    want = limma["fit_even"]
    assert result.prior.df == np.inf
    assert result.df == want["df_total"] == 250
    assert_allclose(result.prior.variance, want["prior_variance"], rtol=1e-6)
    assert_allclose(result.t.T, want["t"], rtol=1e-6)


def test_fit_equals_least_squares_gene_by_gene(data):
    y, design = data
    fit = de.fit_linear(y, design)
    for gene in range(y.shape[1]):
        beta, rss, *_ = np.linalg.lstsq(design, y[:, gene], rcond=None)
        assert_allclose(fit.coefficients[:, gene], beta, atol=1e-12)
        assert_allclose(fit.residual_variance[gene], rss[0] / 11)
    assert_allclose(fit.unscaled_covariance, np.linalg.inv(design.T @ design), atol=1e-12)


def test_two_groups_by_hand():
    """Groups (0, 2) and (5, 7): difference 5, pooled variance 2, t = 5 / sqrt(2 (1/2 + 1/2)), as Student's."""
    y = np.array([[0.0], [2.0], [5.0], [7.0]]) * np.ones(3)
    result = de.moderated_t(de.fit_linear(y, np.repeat(np.eye(2), 2, axis=0)), np.array([[-1.0], [1.0]]))
    assert_allclose(result.effect, 5.0)
    assert_allclose(result.t, 5 / np.sqrt(2))  # equal variances: the shrunk variance is the variance
    assert result.df == 6.0


def test_prior_is_recovered_from_many_variances():
    """Variances drawn as s0^2 F(df, d0) with d0 = 8, s0^2 = 0.3; 200,000 genes leave about 1 % of error."""
    variance = 0.3 * np.random.default_rng(0).f(12, 8, 200_000)
    prior = de.squeeze_variance(variance, 12)
    assert_allclose(prior.df, 8, rtol=0.03)
    assert_allclose(prior.variance, 0.3, rtol=0.01)
    assert_allclose(prior.posterior, (prior.df * prior.variance + 12 * variance) / (prior.df + 12))


@pytest.mark.parametrize("x", [1e-4, 0.05, 0.7, 1.0, 9.0, 3e3, 1e7])
def test_trigamma_inverse(x):
    assert_allclose(de.trigamma_inverse(special.polygamma(1, x)), x, rtol=1e-6)


@pytest.mark.parametrize("df", [3.0, 5.5, 60.0, 420.7, 1e5])
@pytest.mark.parametrize("t", [1e-3, 0.5, 3.0, 28.0, 31.0, 60.0, 200.0, 1e4])
def test_log10_p_equals_mpmath(t, df):
    with mpmath.workdps(60):
        tail = mpmath.betainc(df / 2, 0.5, 0, df / (df + mpmath.mpf(t) ** 2), regularized=True)
        want = float(mpmath.log10(tail))
    assert_allclose(de.log10_p(np.array([t, -t]), df), want, rtol=1e-10)
    assert_allclose(de.t_from_signed_log10_p(np.array([-want, want]), df), [t, -t], rtol=1e-9)


def test_log10_p_of_the_normal_limit_equals_scipy():
    t = np.array([0.0, 1.5, 60.0, 1e3])
    assert_allclose(de.log10_p(t, np.inf), (stats.norm.logsf(t) + np.log(2)) / np.log(10), atol=1e-15)
    assert_allclose(de.t_from_signed_log10_p(de.signed_log10_p(t, np.inf), np.inf), t, rtol=1e-9)


def test_signed_log10_p_has_the_sign_of_t_and_no_jump_where_the_tail_series_starts():
    t = np.linspace(-80, 80, 40_001)
    value = de.signed_log10_p(t, 420.0)
    assert np.abs(value).max() > 250
    assert (np.diff(value) > 0).all()
    assert (np.abs(np.diff(value, 2)) < 2e-3).all()  # a jump would stand out against the curvature
    assert_array_equal(np.sign(value), np.sign(t))


@pytest.mark.parametrize("df", [420.0, np.inf])
def test_a_single_number_is_taken_too(df):
    for t in (2.0, -60.0):
        value = de.signed_log10_p(t, df)
        assert value == de.signed_log10_p(np.array([t]), df)[0]
        assert_allclose(de.t_from_signed_log10_p(value, df), t, rtol=1e-9)


def test_a_rank_deficient_design_names_the_aliased_columns(data):
    y, design = data
    wide = np.column_stack([design, design[:, :3].sum(axis=1), design[:, 0] - design[:, 3]])
    with pytest.raises(InputError, match="aliased with columns before them: plate_2, plate_3"):
        de.fit_linear(y, wide, names=["a", "b", "c", "donor", "plate_2", "plate_3"])


def test_all_faults_at_once(data):
    y, design = data
    with pytest.raises(InputError, match=r"(?s)2 problems.*aliased.*column 1.*no residual degrees of freedom"):
        de.fit_linear(y[:1], np.ones((1, 2)))
    y[2, 3] = np.nan
    with pytest.raises(InputError, match="y has 1 values that are not finite"):
        de.fit_linear(y, design)
    with pytest.raises(InputError, match="must agree"):
        de.fit_linear(y[:-1], design)


def test_variances_that_mostly_vanish_are_refused():
    with pytest.raises(InputError, match="more than half must vary"):
        de.squeeze_variance(np.array([0.0, 0.0, 1.0]), 5)


def test_contrasts_must_fit_the_design(data):
    with pytest.raises(InputError, match="must have a row for each of 4 columns"):
        de.moderated_t(de.fit_linear(*data), np.eye(3))
