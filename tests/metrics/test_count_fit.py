"""Maximum likelihood gene by gene: recovery on the published benchmark, and no better point nearby."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, sparse, stats

from pertcast.errors import InputError
from pertcast.metrics.count_fit import fit_zinb
from pertcast.metrics.count_likelihood import zinb_log_likelihood
from pertcast.simulate.base import simulate_base


def test_recovers_the_parameters_of_the_published_benchmark():
    """S002-04, R18: squared errors 0.0331, 0.0194 and 0.00009; constants reach 7.285, 0.181 and 0.0026."""
    cells = simulate_base(10_000, 20, 0.8, seed=42, fixture=True)
    plan, fitted = cells.model.base, fit_zinb(cells.counts)
    assert_allclose(np.mean((fitted.mean - plan.means[0]) ** 2), 0.0331, atol=5e-5)
    assert_allclose(np.mean((fitted.dispersion - plan.dispersion) ** 2), 0.0194, atol=5e-5)
    assert_allclose(np.mean((fitted.zero_inflation - plan.zero_inflation) ** 2), 0.00009, atol=5e-6)


@pytest.mark.parametrize(("mean", "dispersion", "inflation"), [(4.0, 0.8, 0.5), (0.5, 1.5, 0.2), (30.0, 0.02, 0.0)])
def test_no_other_parameters_are_likelier(mean, dispersion, inflation):
    """S002-04: a general optimiser over all three parameters, scipy's likelihood, started at the truth."""
    rng = np.random.default_rng(1)
    x = stats.nbinom(1 / dispersion, 1 / (1 + dispersion * mean)).rvs(4000, random_state=rng)
    x[rng.random(4000) < inflation] = 0

    def loss(free):
        m, a, pi = np.exp(free[0]), np.exp(free[1]), 1 / (1 + np.exp(-free[2]))
        plain = stats.nbinom(1 / a, 1 / (1 + a * m)).pmf(x)
        return -np.log(np.where(x == 0, pi, 0) + (1 - pi) * plain).mean()

    start = [np.log(mean), np.log(dispersion), -8.0 if inflation == 0 else np.log(inflation / (1 - inflation))]
    best = optimize.minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10})
    fitted = fit_zinb(x[:, None])
    ours = -zinb_log_likelihood(x, fitted.mean, fitted.dispersion, fitted.zero_inflation).mean()
    assert ours <= best.fun + 1e-7


def test_poisson_counts_get_almost_no_dispersion_and_fewer_zeros_no_inflation():
    """Without zero inflation the estimate of the mean is the average, whatever the dispersion (worked by hand)."""
    x = np.random.default_rng(2).poisson(6.0, (20_000, 1))
    fitted = fit_zinb(x)
    assert fitted.dispersion[0] < 5e-3
    assert_allclose(fitted.mean * (1 - fitted.zero_inflation), x.mean(), rtol=1e-4)
    assert_allclose(fit_zinb(np.full((50, 1), 7)).mean, 7)


def test_sparse_counts_give_the_same_and_empty_genes_are_zero():
    x = np.random.default_rng(3).poisson([0.0, 0.7, 3.0], (500, 3))
    dense, thin = fit_zinb(x), fit_zinb(sparse.csr_array(x))
    for name in ("mean", "dispersion", "zero_inflation"):
        assert_array_equal(getattr(dense, name), getattr(thin, name))
        assert getattr(dense, name)[0] == 0


def test_a_gene_of_ones_and_zeros_is_fitted():
    """Counts never above 1 say nothing of dispersion: the fit must still reach the likelihood of a coin."""
    x = np.repeat([0, 1], [700, 300])[:, None]
    fitted = fit_zinb(x)
    got = zinb_log_likelihood(x, fitted.mean, fitted.dispersion, fitted.zero_inflation).mean()
    coin = 0.7 * np.log(0.7) + 0.3 * np.log(0.3)
    poisson = stats.poisson(0.3).logpmf(x).mean()
    assert poisson - 1e-6 <= got <= coin + 1e-9


@pytest.mark.parametrize("bad", [np.zeros((0, 3), int), np.zeros(4, int)])
def test_tables_without_cells_are_refused(bad):
    with pytest.raises(InputError, match="at least one cell"):
        fit_zinb(bad)


def test_fractions_are_refused():
    with pytest.raises(InputError, match="whole numbers"):
        fit_zinb(np.array([[0.5], [1.0]]))
