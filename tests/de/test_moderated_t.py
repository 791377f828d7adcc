"""Moderated t against R's limma and numbers worked by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special

from pertcast.de import moderated_t as de
from pertcast.de.linear_model import fit_linear, fit_weighted
from pertcast.de.log10_p import log10_p
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
    result = de.moderated_t(fit_linear(y, design), np.array(limma["contrasts"], float))
    want = limma["fit"]
    assert_allclose(result.prior.df, float(want["prior_df"]), rtol=1e-6)
    assert_allclose(result.prior.variance, want["prior_variance"], rtol=1e-6)
    assert_allclose(result.prior.posterior, want["posterior"], rtol=1e-6)
    assert_allclose(result.df, want["df_total"], rtol=1e-6)
    assert_allclose(result.unscaled_sd[:, 0], want["unscaled_sd"], rtol=1e-6)
    assert_allclose(result.effect.T, want["effect"], rtol=1e-6, atol=1e-9)
    assert_allclose(result.t.T, want["t"], rtol=1e-6, atol=1e-9)
    assert_allclose(10 ** log10_p(result.t.T, result.df), want["p"], rtol=1e-6)


def test_equals_limma_when_the_variances_agree(limma):
    """The prior df is infinite, and the df of a test are capped at those of all genes together: 25 x 10."""
    design, y = np.array(limma["design"], float), np.array(limma["y_even"], float).T
    result = de.moderated_t(fit_linear(y, design), np.eye(6))
    want = limma["fit_even"]
    assert result.prior.df == np.inf
    assert result.df == want["df_total"] == 250
    assert_allclose(result.prior.variance, want["prior_variance"], rtol=1e-6)
    assert_allclose(result.t.T, want["t"], rtol=1e-6)


def test_two_groups_by_hand():
    """Groups (0, 2) and (5, 7): difference 5, pooled variance 2, t = 5 / sqrt(2 (1/2 + 1/2)), as Student's."""
    y = np.array([[0.0], [2.0], [5.0], [7.0]]) * np.ones(3)
    result = de.moderated_t(fit_linear(y, np.repeat(np.eye(2), 2, axis=0)), np.array([[-1.0], [1.0]]))
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


def test_variances_that_mostly_vanish_are_refused():
    with pytest.raises(InputError, match="more than half must vary"):
        de.squeeze_variance(np.array([0.0, 0.0, 1.0]), 5)


def test_contrasts_must_fit_the_design(data):
    with pytest.raises(InputError, match="must have a row for each of 4 columns"):
        de.moderated_t(fit_linear(*data), np.eye(3))


@pytest.mark.parametrize("weighted", [False, True])
def test_t_obeys_the_laws_of_scale_and_sign(data, weighted):
    """Units of y and of a contrast cancel, a contrast turned round turns t, a shift of all samples is no effect."""
    y, design = data
    contrasts = np.array([[-1.0, 1, 0, 0], [-1, 0, 1, 0]]).T
    weights = np.exp(np.random.default_rng(0).normal(size=y.shape))

    def t(y, contrasts, weights=weights):
        if weighted:
            return moderated_t_of(fit_weighted(y, design, weights, contrasts))
        return moderated_t_of(fit_linear(y, design), contrasts)

    plain = t(y, contrasts)
    assert_allclose(t(y * 1e3, contrasts), plain, rtol=1e-7)
    assert_allclose(t(y, contrasts * 1e-4), plain, rtol=1e-7)
    assert_allclose(t(y, -contrasts), -plain, rtol=1e-7)
    assert_allclose(t(-y, contrasts), -plain, rtol=1e-7)
    assert_allclose(t(y + 50, contrasts), plain, rtol=1e-7)
    assert_allclose(t(y, contrasts, weights * 7), plain, rtol=1e-7)


def moderated_t_of(*arguments) -> np.ndarray:
    return de.moderated_t(*arguments).t
