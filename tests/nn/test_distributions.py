"""Count likelihoods in logits against scipy, autograd and moments worked by hand."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats
from scipy.sparse import csr_array

from pertcast.nn.distributions import (
    kl_to_standard_normal,
    log_normal,
    nb_log_prob,
    nb_log_zero,
    sample_zinb,
    zinb_log_prob,
    zinb_log_prob_rows,
    zinb_log_zero,
)
from pertcast.nn.sparse_rows import SparseRows

COUNTS = np.array([0, 1, 2, 7, 40, 3000, 100_000], float)[:, None, None, None]
MEANS = np.array([1e-3, 0.3, 3.0, 50.0, 2000.0])[:, None, None]
DISPERSIONS = np.array([1e-6, 1e-3, 0.0199, 0.0201, 0.7, 2.0, 30.0])[:, None]  # both sides of where Stirling begins
ZI_LOGITS = np.array([-60.0, -5.0, 0.0, 5.0, 30.0])  # pi from 0 over 0.5 to 1


def logits(dtype=torch.float64):
    return {
        "log_mean": torch.tensor(np.log(MEANS), dtype=dtype),
        "log_dispersion": torch.tensor(np.log(DISPERSIONS), dtype=dtype),
        "zi_logits": torch.tensor(ZI_LOGITS, dtype=dtype),
    }


def scipy_zinb(x, mean, dispersion, zi_logits):
    plain = stats.nbinom(1 / dispersion, 1 / (1 + dispersion * mean)).logpmf(x)
    kept = special.log_expit(-zi_logits) + plain
    return np.where(x == 0, np.logaddexp(special.log_expit(zi_logits), kept), kept)


def test_agrees_with_scipy_on_a_grid():
    """S002-05, R18: counts 0 to 1e5, pi to 0 and to 1, almost Poisson to very dispersed; 1e-6 of scipy in float64."""
    got = zinb_log_prob(torch.tensor(COUNTS), **logits()).numpy()
    want = scipy_zinb(COUNTS, MEANS, DISPERSIONS, ZI_LOGITS)
    assert got.shape == (7, 5, 7, 5)
    assert np.isfinite(got).all()
    fine = np.isfinite(want)  # scipy underflows far out in the tails
    assert fine.mean() > 0.9
    assert_allclose(got[fine], want[fine], rtol=1e-6, atol=1e-6)


def test_the_negative_binomial_alone_is_scipys():
    """S002-05: without zero inflation, and its zero without any gamma function."""
    given = {name: value for name, value in logits().items() if name != "zi_logits"}
    want = stats.nbinom(1 / DISPERSIONS, 1 / (1 + DISPERSIONS * MEANS)).logpmf(COUNTS)
    got = nb_log_prob(torch.tensor(COUNTS), **given).numpy()
    fine = np.isfinite(want)
    assert_allclose(got[fine], want[fine], rtol=1e-6, atol=1e-6)
    assert_allclose(nb_log_zero(**given).numpy(), want[0], rtol=1e-6)


@pytest.mark.parametrize("dispersion", [1e-13, 1e-30])
def test_the_poisson_limit_is_scipys_poisson(dispersion):
    """S002-05: sizes beyond what differences of log gammas can bear."""
    x, mean = np.array([0.0, 1, 5, 90, 2000])[:, None], np.array([0.02, 4.0, 1500.0])
    logs = {"log_mean": torch.tensor(np.log(mean)), "log_dispersion": torch.tensor([np.log(dispersion)])}
    assert_allclose(nb_log_prob(torch.tensor(x), **logs).numpy(), stats.poisson(mean).logpmf(x), rtol=1e-6, atol=1e-6)


def test_single_precision_is_finite_and_close():
    """S002-05: float32, as networks use it."""
    got = zinb_log_prob(torch.tensor(COUNTS, dtype=torch.float32), **logits(torch.float32))
    assert torch.isfinite(got).all()
    moderate = slice(0, 5)  # counts up to 40
    want = zinb_log_prob(torch.tensor(COUNTS), **logits())
    assert_allclose(got[moderate].numpy(), want[moderate].numpy(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e6, 30.0])
def test_any_network_output_gives_finite_values_and_slopes(dtype, size):
    """S002-05, R20: log parameters of +-1e6 in every combination; parameters stay above 0."""
    signs = torch.tensor(list(itertools.product([-1.0, 0.0, 1.0], repeat=3)), dtype=dtype) * size
    parameters = {
        name: column.clone().requires_grad_()
        for name, column in zip(("log_mean", "log_dispersion", "zi_logits"), signs.T, strict=True)
    }
    x = torch.tensor([[0.0], [1.0], [100_000.0]], dtype=dtype)
    value = zinb_log_prob(x, **parameters)
    assert torch.isfinite(value).all()
    for slope in torch.autograd.grad(value.sum(), list(parameters.values())):
        assert torch.isfinite(slope).all()
    rows = SparseRows.of(csr_array(np.tile(x.numpy(), (1, 27))), dtype=dtype)[torch.arange(3)]
    given = {name: value.detach().expand(3, 27).clone().requires_grad_() for name, value in parameters.items()}
    total = zinb_log_prob_rows(rows, **given)
    assert torch.isfinite(total).all()
    for slope in torch.autograd.grad(total.sum(), list(given.values())):
        assert torch.isfinite(slope).all()


def test_probabilities_sum_to_one():
    """S002-05: brute force over all counts."""
    x = torch.arange(6000, dtype=torch.float64)[:, None]
    mean = torch.tensor([0.1, 3.0, 40.0], dtype=torch.float64)
    p = zinb_log_prob(
        x,
        log_mean=mean.log(),
        log_dispersion=torch.tensor(0.3, dtype=x.dtype).log(),
        zi_logits=torch.tensor(0.4, dtype=x.dtype),
    ).exp()
    assert_allclose(p.sum(0).numpy(), 1, rtol=1e-9)
    assert_allclose((p * x).sum(0).numpy(), (mean * special.expit(-0.4)).numpy(), rtol=1e-9)


def rows_case(shape: str, *, samples: int | None = None, seed: int = 0):
    """A batch of 4 x 6 sparse counts and parameters of one of the shapes that networks give, in float64."""
    rng = np.random.default_rng(seed)
    x = rng.negative_binomial(1, 0.4, (4, 6)) * (rng.random((4, 6)) < 0.6)
    x[0], x[1, 2] = 0, 400  # a cell without counts, and a large one
    lead = (4, 6) if samples is None else (samples, 4, 6)
    each = {"gene": (1, 6), "gene-cell": lead}[shape]
    draw = lambda at, size: torch.tensor(rng.normal(at, 1.0, size), requires_grad=True)  # noqa: E731
    given = {"log_mean": draw(1.0, lead), "log_dispersion": draw(-2.0, each), "zi_logits": draw(0.0, each)}
    given["log_dispersion"].data[..., :2] = -7.0  # size 1100: beyond where Stirling begins
    return torch.tensor(x, dtype=torch.float64), given


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("shape", ["gene", "gene-cell"])
@pytest.mark.parametrize("inflated", [True, False])
def test_row_sums_are_the_dense_sum_with_the_same_slopes(shape, samples, inflated):
    """Written-out slopes against autograd's of the dense likelihood."""
    x, given = rows_case(shape, samples=samples)
    batch = SparseRows.of(csr_array(x.numpy()), dtype=torch.float64)[torch.arange(4)]
    if inflated:
        dense = zinb_log_prob(x, **given).sum(-1)
    else:
        del given["zi_logits"]
        dense = nb_log_prob(x, **given).sum(-1)
    rows = zinb_log_prob_rows(batch, **{"zi_logits": None, **given})
    assert rows.shape == dense.shape
    assert_allclose(rows.detach().numpy(), dense.detach().numpy(), rtol=1e-10)
    weight = torch.tensor(np.random.default_rng(1).normal(size=dense.shape))  # rows weigh differently
    wanted = torch.autograd.grad((dense * weight).sum(), list(given.values()))
    for name, slope, want in zip(
        given, torch.autograd.grad((rows * weight).sum(), list(given.values())), wanted, strict=True
    ):
        assert_allclose(slope.numpy(), want.numpy(), rtol=1e-7, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("shape", ["gene", "gene-cell"])
def test_row_sums_pass_gradcheck(shape):
    """Written-out slopes against finite differences."""
    x, given = rows_case(shape)
    x[1, 2] = 9  # finite differences of a count of 400 lose too many digits
    batch = SparseRows.of(csr_array(x.numpy()), dtype=torch.float64)[torch.arange(4)]

    def total(*values):
        return zinb_log_prob_rows(batch, **dict(zip(given, values, strict=True)))

    assert torch.autograd.gradcheck(total, tuple(given.values()), atol=1e-6)


def test_zero_has_one_probability():
    given = logits()
    want = zinb_log_prob(torch.zeros(1, dtype=torch.float64), **given)
    assert_allclose(zinb_log_zero(**given).numpy(), want.numpy())


@pytest.mark.parametrize(("mean", "dispersion", "zi"), [(4.0, 0.5, 0.3), (0.2, 2.0, 0.0), (300.0, 1e-12, 0.8)])
def test_draws_have_the_moments_of_the_distribution(mean, dispersion, zi):
    """R18: variance' = (1 - pi) m (1 + (a + pi) m); within five standard errors."""
    n = 200_000
    drawn = sample_zinb(
        log_mean=torch.full((n,), mean).log(), log_dispersion=torch.tensor([dispersion]).log(),
        zi_logits=torch.logit(torch.tensor([zi])) if zi else None, generator=torch.Generator().manual_seed(0),
    ).double()  # fmt: skip
    expected, variance = (1 - zi) * mean, (1 - zi) * mean * (1 + (dispersion + zi) * mean)
    assert_allclose(drawn.mean(), expected, atol=5 * (variance / n) ** 0.5)
    assert_allclose(drawn.var(), variance, rtol=0.05)
    zeros = zi + (1 - zi) * stats.nbinom(1 / dispersion, 1 / (1 + dispersion * mean)).pmf(0)
    assert_allclose((drawn == 0).double().mean(), zeros, atol=5 * 0.5 / n**0.5)
    assert (drawn == drawn.round()).all()


def test_draws_repeat_by_seed_and_stay_finite():
    """R20, R21."""
    extreme = torch.tensor([-1e6, 0.0, 5.0, 1e6])

    def draw(seed):
        return sample_zinb(
            log_mean=extreme.expand(40, 4), log_dispersion=extreme[:, None].repeat(10, 1), zi_logits=torch.zeros(1),
            generator=torch.Generator().manual_seed(seed),
        ).numpy()  # fmt: skip

    assert np.isfinite(draw(1)).all()
    assert (draw(1) >= 0).all()
    assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_normals_are_scipys_and_torchs():
    rng = np.random.default_rng(0)
    z, mean, log_variance = (torch.tensor(rng.normal(size=(5, 3))) for _ in range(3))
    want = stats.norm(mean.numpy(), np.exp(0.5 * log_variance.numpy())).logpdf(z.numpy()).sum(-1)
    assert_allclose(log_normal(z, mean=mean, log_variance=log_variance).numpy(), want)
    one, other = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance)), torch.distributions.Normal(0.0, 1.0)
    want = torch.distributions.kl_divergence(one, other).sum(-1).numpy()
    assert_allclose(kl_to_standard_normal(mean, log_variance).numpy(), want)
