"""Least squares of many genes against numpy's, R's limma and a loop over the genes."""

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_limits

from pertcast.de import linear_model as de
from pertcast.errors import InputError


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    design = np.column_stack([np.repeat(np.eye(3), 5, axis=0), np.tile([0, 1, 0, 1, 1], 3)])  # (15, 4)
    return rng.normal(size=(15, 40)) * np.sqrt(5 / rng.chisquare(5, 40)), design


def test_fit_equals_least_squares_gene_by_gene(data):
    y, design = data
    fit = de.fit_linear(y, design)
    for gene in range(y.shape[1]):
        beta, rss, *_ = np.linalg.lstsq(design, y[:, gene], rcond=None)
        assert_allclose(fit.coefficients[:, gene], beta, atol=1e-12)
        assert_allclose(fit.residual_variance[gene], rss[0] / 11)
    assert_allclose(fit.unscaled_covariance, np.linalg.inv(design.T @ design), atol=1e-12)


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


@pytest.fixture
def weighted(data):
    y, design = data
    weights = np.exp(np.random.default_rng(5).normal(0, 2, y.shape))  # over a range of e^8 and more
    contrasts = np.array([[-1.0, 1, 0, 0], [-1, 0, 1, 0], [0, 0, 0, 1], [-0.5, -0.5, 1, 2]]).T
    return y, design, weights, contrasts


def test_weighted_fit_equals_least_squares_gene_by_gene(weighted):
    """Least squares of sqrt(w) y on sqrt(w) X by numpy's lstsq; columns in units far apart lose no digits."""
    y, design, weights, contrasts = weighted
    scale = np.array([1.0, 1, 1, 1e6])
    got = de.fit_weighted(y, design * scale, weights, contrasts * scale[:, None], contrast_sd="exact")
    assert got.df == 11
    for gene in range(y.shape[1]):
        root = np.sqrt(weights[:, gene])
        x = design * root[:, None]
        beta, rss, *_ = np.linalg.lstsq(x, y[:, gene] * root, rcond=None)
        inverse = np.linalg.inv(x.T @ x)
        assert_allclose(got.effect[:, gene], contrasts.T @ beta, rtol=1e-9, atol=1e-10)
        assert_allclose(got.residual_variance[gene], rss[0] / 11, rtol=1e-9)
        assert_allclose(got.unscaled_sd[:, gene], np.sqrt(np.diag(contrasts.T @ inverse @ contrasts)), rtol=1e-9)


def test_weights_far_apart_keep_the_digits(data):
    """Weights over a range of 1e12, against mpmath: the refinement returns digits that are lost."""
    rng = np.random.default_rng(3)
    y, design = data[0][:, :4] + 1000, np.column_stack([data[1], rng.normal(size=15)])
    weights = 10 ** rng.uniform(-12, 0, y.shape)
    got = de.fit_weighted(y, design, weights, np.eye(5))
    with mpmath.workdps(60):
        x = mpmath.matrix(design.tolist())
        for gene in range(4):
            w, v = mpmath.diag(weights[:, gene].tolist()), mpmath.matrix(y[:, gene].tolist())
            want = mpmath.lu_solve(x.T * w * x, x.T * w * v)
            assert_allclose(got.effect[:, gene], [float(number) for number in want], rtol=1e-10)


def test_weights_too_far_apart_are_refused(weighted):
    y, design, weights, contrasts = weighted
    weights[4:, 3] = 1e-200
    with pytest.raises(InputError, match="differ so much that its fit has no unique answer"):
        de.fit_weighted(y, design, weights, contrasts)


@pytest.mark.parametrize("contrast_sd", ["limma", "exact"])
def test_equal_weights_change_nothing(weighted, contrast_sd):
    """The variance is that of a value of weight 1; effects and their standard errors are those without weights."""
    y, design, _, contrasts = weighted
    got = de.fit_weighted(y, design, np.full(y.shape, 4.0), contrasts, contrast_sd=contrast_sd)
    want = de.fit_contrasts(de.fit_linear(y, design), contrasts)
    assert_allclose(got.effect, want.effect, atol=1e-12)
    error, plain = (fit.unscaled_sd * np.sqrt(fit.residual_variance) for fit in (got, want))
    assert_allclose(error, plain, rtol=1e-10)


@pytest.mark.parametrize("contrast_sd", ["limma", "exact"])
def test_batches_change_nothing(weighted, contrast_sd):
    y, design, weights, contrasts = weighted
    whole, parts = (
        de.fit_weighted(y, design, weights, contrasts, contrast_sd=contrast_sd, memory=memory)
        for memory in (10**9, 999)
    )
    for name in ("effect", "unscaled_sd", "residual_variance"):
        assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("contrast_sd", ["limma", "exact"])
def test_the_number_of_threads_changes_no_byte(weighted, contrast_sd):
    y, design, weights, contrasts = weighted
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            results.append(de.fit_weighted(y, design, weights, contrasts, contrast_sd=contrast_sd, memory=20_000))
    for name in ("effect", "unscaled_sd", "residual_variance"):
        assert_array_equal(getattr(results[0], name), getattr(results[1], name))


def test_limmas_sd_is_exact_where_columns_have_samples_of_their_own(weighted):
    y, design, weights, contrasts = weighted
    groups, contrasts = design[:, :3], contrasts[:3, :2]
    one, other = (de.fit_weighted(y, groups, weights, contrasts, contrast_sd=sd) for sd in ("limma", "exact"))
    assert_allclose(one.unscaled_sd, other.unscaled_sd, rtol=1e-10)


def test_weights_that_are_none(weighted):
    y, design, weights, contrasts = weighted
    weights[0, :2] = [0, np.nan]
    with pytest.raises(InputError, match=r"\(15, 40\) finite positive numbers, got 2 that are not"):
        de.fit_weighted(y, design, weights, contrasts)
    with pytest.raises(InputError, match=r"got shape \(15, 39\)"):
        de.fit_weighted(y, design, weights[:, 1:], contrasts)
    with pytest.raises(InputError, match="'limma' or 'exact', got 'r'"):
        de.fit_weighted(y, design, np.ones(y.shape), contrasts, contrast_sd="r")
    with pytest.raises(InputError, match="must have a row for each of 4 columns"):
        de.fit_weighted(y, design, np.ones(y.shape), contrasts[1:])


def test_one_replicate_is_said_to_be_one():
    with pytest.raises(InputError, match="2 samples leave no residual degrees of freedom for 2 .*one replicate only"):
        de.fit_linear(np.zeros((2, 3)), np.eye(2))
