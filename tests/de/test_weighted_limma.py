"""voom, weighted fit, empirical Bayes, adjusted p and log odds in a row against R's limma, on simulated counts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from de.limma_case import case, counts, samples, some
from pertcast.de.design import design_from_formula
from pertcast.de.linear_model import fit_linear, fit_weighted
from pertcast.de.log10_p import adjust_log10_p, log10_p
from pertcast.de.log_odds import log_odds
from pertcast.de.moderated_t import ModeratedT, moderated_t, squeeze_variance
from pertcast.de.normalization import log2_cpm
from pertcast.de.voom import voom
from pertcast.errors import InputError

ROWS = {"weighted": slice(None), "exact": some(), "trend": some()}


def run(kind: str) -> ModeratedT:
    design, contrasts = np.array(case()["design"]), np.array(case()["contrasts"], float)
    sizes = counts().sum(axis=1) * np.array(case()["tmm"])
    if kind == "trend":
        y = log2_cpm(counts(), sizes, prior_count=3)
        return moderated_t(fit_linear(y, design), contrasts, trend=y.mean(axis=0))
    v = voom(counts(), design, lib_size=sizes)
    if kind == "exact":
        return moderated_t(fit_weighted(v.log2_cpm, design, v.weights, contrasts, contrast_sd="exact"))
    return moderated_t(fit_weighted(v.log2_cpm, design, v.weights, contrasts))


@pytest.mark.parametrize("kind", ROWS)
def test_equals_limma(kind):
    """`weighted` is contrasts.fit after voom, `exact` the same contrasts as coefficients, `trend` limma-trend."""
    got, want, rows = run(kind), case()[kind], ROWS[kind]
    assert_allclose(got.prior.df, want["prior_df"], rtol=1e-6)
    assert_allclose(got.prior.variance, want["prior_variance"], rtol=1e-6)
    assert_allclose(got.df, want["df_total"], rtol=1e-6)
    assert_allclose(got.prior.posterior[rows], want["posterior"], rtol=1e-6)
    sd = np.broadcast_to(got.unscaled_sd, got.t.shape)
    assert_allclose(sd[:, some()].T, np.reshape(want["unscaled_sd"], (len(some()), 3)), rtol=1e-6)
    assert_allclose(got.effect[:, rows].T, want["effect"], rtol=1e-6, atol=1e-9)
    assert_allclose(got.t[:, rows].T, want["t"], rtol=1e-6, atol=1e-9)
    log_p = log10_p(got.t, got.df)
    assert_allclose(10 ** log_p[:, rows].T, want["p"], rtol=1e-6)
    assert_allclose(10 ** adjust_log10_p(log_p)[:, rows].T, want["adjusted"], rtol=1e-6)
    assert_allclose(log_odds(got)[:, rows].T, want["lods"], rtol=1e-6, atol=1e-8)
    assert np.abs(want["t"]).max() > 7


def test_the_two_ways_to_an_sd_differ_where_donors_are_unevenly_weighted():
    """So that agreement with R is no accident: contrasts.fit is an approximation, of some per cent here."""
    gap = run("weighted").unscaled_sd / run("exact").unscaled_sd - 1
    assert 1e-3 < np.abs(gap).max() < 0.3


def test_log_odds_equal_limma_where_the_prior_is_certain():
    """Infinite prior df: the normal limit of B, checked against its formula."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(8, 400))
    residual = y - y.mean(axis=0)
    y = y.mean(axis=0) + residual / np.sqrt((residual**2).sum(axis=0) / 7)
    y[:, :4] += 6.0
    tests = moderated_t(fit_linear(y, np.ones((8, 1))), np.eye(1))
    assert tests.prior.df == np.inf
    b = log_odds(tests)
    assert (b[0, :4] > b[0, 4:].max()).all()
    ratio = np.exp(-2 * (b[0, np.abs(tests.t[0]).argmin()] - np.log(0.01 / 0.99)))  # t near 0 leaves -log(ratio) / 2
    t = tests.t[0]
    assert_allclose(b[0], np.log(0.01 / 0.99) - np.log(ratio) / 2 + t**2 * (1 - 1 / ratio) / 2, rtol=1e-3)


def test_the_design_is_the_one_that_r_was_given():
    assert_allclose(design_from_formula("~ 0 + compound + donor + age", samples()).matrix, case()["design"])


def test_genes_of_zero_variance_count_a_little():
    """Limma lifts them to 1e-5 of the median, also in the mean where the prior is certain."""
    variance = np.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    prior = squeeze_variance(variance, 2)
    assert prior.df < np.inf
    assert_allclose(prior.posterior[0], prior.df * prior.variance / (prior.df + 2))
    even = squeeze_variance(np.array([0.0] + [1.0] * 299), 1)  # so few df that even a 0 is no more than chance
    assert even.df == np.inf
    assert_allclose(even.posterior, (299 + 1e-5) / 300, rtol=1e-12)


def test_a_trend_needs_a_number_per_gene():
    with pytest.raises(InputError, match=r"expected \(3,\), all finite"):
        squeeze_variance(np.ones(3), 5, covariate=np.array([1.0, np.nan, 2.0]))
    flat = squeeze_variance(np.array([1.0, 2, 3, 9]), 5, covariate=np.ones(4))
    assert_allclose(flat.posterior, squeeze_variance(np.array([1.0, 2, 3, 9]), 5).posterior)


def test_contrasts_are_taken_once():
    fit = fit_linear(np.random.default_rng(0).normal(size=(6, 9)), np.ones((6, 1)))
    with pytest.raises(InputError, match="needs contrasts"):
        moderated_t(fit)
    weighted = fit_weighted(np.ones((3, 2)) * [[1], [2], [4]], np.ones((3, 1)), np.ones((3, 2)), np.eye(1))
    with pytest.raises(InputError, match="taken with their fit"):
        moderated_t(weighted, np.eye(1))
