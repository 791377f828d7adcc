"""The autoencoder of counts: every option runs, every number stays finite, the marginal against integration."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, stats
from scipy.sparse import csr_array
from torch import nn

from pertcast.nn.count_vae import CountVae, CountVaeConfig
from pertcast.nn.fit import seeded
from pertcast.nn.sparse_rows import SparseRows

CELLS, GENES, BATCHES = 12, 7, 3
CHOICES = {
    "dispersion": ("gene", "gene-batch", "gene-cell"),
    "zero_inflation": ("none", "gene", "gene-cell"),
    "library": (True, False),
    "mean": ("exp", "softplus"),
    "inputs": ("log1p", "scaled"),
    "correct_batches": (True, False),
}
EVERY = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())]


def build(seed=0, *, genes=GENES, **settings) -> CountVae:
    with seeded(seed):
        start = torch.linspace(-1, 2, genes)
        return CountVae(CountVaeConfig(**settings), scale=torch.full((genes,), 3.0), log_mean=start, batches=BATCHES)


def cells(seed=0, *, n=CELLS, genes=GENES, dtype=torch.float32):
    rng = np.random.default_rng(seed)
    x = rng.negative_binomial(1, 0.2, (n, genes)) * (rng.random((n, genes)) < 0.5)
    total = torch.tensor(np.maximum(x.sum(1), 1), dtype=dtype)
    batch = torch.tensor(rng.integers(BATCHES, size=n))
    return SparseRows.of(csr_array(x), dtype=dtype)[torch.arange(n)], {"batch": batch, "log_library": total.log()}


@pytest.mark.parametrize("choice", EVERY, ids=lambda choice: "-".join(map(str, choice.values())))
def test_every_choice_runs_with_finite_slopes(choice):
    """S002-06: all 144 combinations; every parameter that is there is learned."""
    net, (x, rest) = build(hidden=9, latent=2, **choice), cells()
    with seeded(1):
        log_prob, kl = net.elbo(x, **rest)
    assert log_prob.shape == kl.shape == (CELLS,)
    assert (log_prob <= 0).all()
    assert (kl >= 0).all()
    (kl - log_prob).mean().backward()
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    logits = net.decode(torch.zeros(5, CELLS, 2), **rest)  # samples lead
    assert logits.mean().shape == (5, CELLS, GENES)
    assert (logits.mean() > 0).all()


@pytest.mark.parametrize("mean", CHOICES["mean"])
@pytest.mark.parametrize("inputs", CHOICES["inputs"])
def test_huge_counts_and_weights_stay_finite(mean, inputs):
    """R20: inputs of 1e6 and codes of +-1e6 give finite likelihoods, positive parameters, finite slopes."""
    net = build(mean=mean, inputs=inputs, dispersion="gene-cell", library=False)
    x = SparseRows.of(csr_array(np.full((2, GENES), 1e6)))[torch.arange(2)]
    rest = {"batch": torch.zeros(2, dtype=torch.int64), "log_library": torch.zeros(2)}
    for code in (-1e6, 1e6):
        z = torch.full((2, 10), code)
        log_prob = net.log_prob(x, z, **rest)
        assert torch.isfinite(log_prob).all()
        slopes = torch.autograd.grad(log_prob.sum(), [net.mean_head.bias, net.dispersion.bias])
        assert all(torch.isfinite(slope).all() for slope in slopes)
    encoded, log_variance = net.encode(x, rest["batch"])
    assert torch.isfinite(encoded).all()
    assert torch.isfinite(log_variance).all()


@pytest.mark.parametrize("mean", CHOICES["mean"])
def test_no_nan_in_a_hundred_steps(mean):
    """R20: a learning rate ten times too high, counts from 0 to 1e6."""
    net, (x, rest) = build(mean=mean, dispersion="gene-cell"), cells(n=40)
    x.values[:3] = 1e6
    rest = {"batch": torch.zeros(40, dtype=torch.int64), "log_library": x.dense().sum(1).clamp_min(1).log()}
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    with seeded(0):
        for _ in range(100):
            optimizer.zero_grad()
            log_prob, kl = net.elbo(x, **rest)
            loss = (kl - log_prob).mean()
            assert torch.isfinite(loss)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 10.0, error_if_nonfinite=True)
            optimizer.step()
    assert all(torch.isfinite(parameter).all() for parameter in net.parameters())
    logits = net.decode(torch.randn(40, 10), **rest)
    assert (torch.exp(logits.log_mean) > 0).all()


@pytest.mark.parametrize("correct", [True, False])
def test_marginal_likelihood_is_the_integral(correct):
    """One latent number: importance sampling against a fine grid of p(x | z) N(z)."""
    net = build(latent=1, hidden=6, correct_batches=correct, dispersion="gene-batch").double()
    with torch.no_grad():  # a decoder that depends on the code, or the test is easy
        net.mean_head.weight.mul_(20)
    x, rest = cells(dtype=torch.float64, n=4)

    z = np.linspace(-9, 9, 8001)
    with torch.no_grad():
        given = net.log_prob(x, torch.tensor(z)[:, None, None].expand(-1, 4, 1), **rest).numpy()  # (s, 4)
    want = np.log(integrate.trapezoid(np.exp(given) * stats.norm.pdf(z)[:, None], z, axis=0))
    got = net.marginal_log_prob(x, **rest, samples=20_000, generator=torch.Generator().manual_seed(0))
    assert np.ptp(want) > 0.1
    assert_allclose(got.numpy(), want, atol=0.03)
    few = net.marginal_log_prob(x, **rest, samples=1, generator=torch.Generator().manual_seed(0))
    assert (few.numpy() < want + 3).all()


def test_the_decoder_begins_at_what_cells_share():
    """With codes at 0 and no hidden signal the expected share is the one given, for both heads."""
    for mean in CHOICES["mean"]:
        net = build(mean=mean, zero_inflation="none", library=True)
        with torch.no_grad():
            net.mean_head.weight.zero_()
        rest = {"batch": torch.zeros(1, dtype=torch.int64), "log_library": torch.tensor([2.0])}
        logits = net.decode(torch.zeros(1, 10), **rest)
        assert_allclose(logits.log_mean.detach().numpy()[0], np.linspace(-1, 2, GENES) + 2.0, rtol=1e-4, atol=1e-5)


def test_a_corrected_batch_moves_the_decoder_and_an_uncorrected_one_does_not():
    """S002-16: the batch is told to both halves only where that is asked for."""
    z, library = torch.zeros(2, 10), torch.zeros(2)
    for correct in (True, False):
        net = build(correct_batches=correct)
        mean = net.decode(z, batch=torch.tensor([0, 1]), log_library=library).log_mean
        assert torch.equal(mean[0], mean[1]) != correct
        x, _ = cells(n=1)
        codes = [net.encode(x, torch.tensor([number]))[0] for number in (0, 1)]
        assert torch.equal(*codes) != correct
