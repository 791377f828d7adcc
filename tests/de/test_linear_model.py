"""Least squares of many genes against numpy's, R's limma and a loop over the genes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

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
