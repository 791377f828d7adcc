"""Log-likelihoods of counts in logits: negative binomial, and the same with zero inflation. Stable everywhere.

Everywhere `dispersion` is the `a` of variance = mean + a * mean^2; its inverse is called size. Parameters come as
`log_mean`, `log_dispersion` and `zi_logits` (the logit of the probability of a structural zero), which a network may
give any real value.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pertcast.nn.sparse_rows import SparseBatch

STIRLING_FROM = 50.0  # sizes from which the difference of two log gammas is taken from Stirling's series
MOST_LOG = 30.0  # logs of means and dispersions are held within +-30: exp of that is finite, and its square too


def bounded_log(value: Tensor) -> Tensor:
    """Hold a log parameter within +-MOST_LOG, so that no network output overflows. Any shape."""
    return value.clamp(-MOST_LOG, MOST_LOG)


def nb_log_prob(x: Tensor, *, log_mean: Tensor, log_dispersion: Tensor) -> Tensor:
    """Log-probability of counts under the negative binomial; shapes broadcast.

    x               counts, >= 0
    log_mean        natural log of the mean
    log_dispersion  natural log of `a` in variance = mean + a * mean^2; very negative: the Poisson distribution

    Written as  [lgamma(x + r) - lgamma(r) - x log r] + x log mean - (x + r) log(1 + mean / r) - lgamma(x + 1), r = 1/a:
    nothing in it cancels, however large r is. Source: Lawless 1987, doi:10.2307/3314912.
    """
    log_mean, log_dispersion = bounded_log(log_mean), bounded_log(log_dispersion)
    size = torch.exp(-log_dispersion)
    log1p_ratio = F.softplus(log_mean + log_dispersion)  # log(1 + mean / r)
    rising = _rising_factorial_ratio(x, size, log_dispersion)
    return rising + x * log_mean - (x + size) * log1p_ratio - torch.lgamma(x + 1)


def nb_log_zero(*, log_mean: Tensor, log_dispersion: Tensor) -> Tensor:
    """Log-probability of a count of zero: -r log(1 + mean / r), without any gamma function."""
    log_mean, log_dispersion = bounded_log(log_mean), bounded_log(log_dispersion)
    return -torch.exp(-log_dispersion) * F.softplus(log_mean + log_dispersion)


def zinb_log_prob(x: Tensor, *, log_mean: Tensor, log_dispersion: Tensor, zi_logits: Tensor) -> Tensor:
    """Log-probability of counts that are zero for a reason of their own with probability sigmoid(zi_logits)."""
    zero = zinb_log_zero(log_mean=log_mean, log_dispersion=log_dispersion, zi_logits=zi_logits)
    positive = nb_log_prob(x, log_mean=log_mean, log_dispersion=log_dispersion) - F.softplus(zi_logits)
    return torch.where(x == 0, zero, positive)


def zinb_log_zero(*, log_mean: Tensor, log_dispersion: Tensor, zi_logits: Tensor) -> Tensor:
    """Log-probability of zero: log(pi + (1 - pi) NB(0)), from logits."""
    log_zero = nb_log_zero(log_mean=log_mean, log_dispersion=log_dispersion)
    return torch.logaddexp(zi_logits, log_zero) - F.softplus(zi_logits)


def sample_zinb(
    *, log_mean: Tensor, log_dispersion: Tensor, zi_logits: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Draw counts: gamma of mean 1 and variance `dispersion`, times the mean, into Poisson, then structural zeros."""
    shape = torch.broadcast_shapes(log_mean.shape, log_dispersion.shape)
    mean = torch.exp(bounded_log(log_mean)).expand(shape)
    size = torch.exp(-bounded_log(log_dispersion)).expand(shape).clamp(max=1e8)
    gamma = torch._standard_gamma(size.contiguous(), generator=generator) / size
    # A rate beyond 2^53 has no exact count in a float; no cell holds as many molecules of a gene.
    counts = torch.poisson((mean * gamma).clamp(max=2.0**53), generator=generator)
    if zi_logits is None:
        return counts
    keep = torch.rand(counts.shape, generator=generator, dtype=counts.dtype) >= torch.sigmoid(zi_logits)
    return counts * keep


def _rising_factorial_ratio(x: Tensor, size: Tensor, log_dispersion: Tensor) -> Tensor:
    """lgamma(x + r) - lgamma(r) - x log r: 0 for x = 0, and for r to infinity.

    Large r: Stirling's series of both, whose main terms cancel by hand. Source: DLMF 5.11.1.
    """
    large = size > STIRLING_FROM
    r = torch.where(large, 1.0, size)  # where a branch is not taken its gradient must be finite all the same
    small_case = torch.lgamma(x + r) - torch.lgamma(r) + x * torch.where(large, 0.0, log_dispersion)
    r = torch.where(large, size, STIRLING_FROM)
    top = x + r
    series = (1 / top - 1 / r) / 12 - (top**-3 - r**-3) / 360 + (top**-5 - r**-5) / 1260
    large_case = (top - 0.5) * torch.log1p(x / r) - x + series
    return torch.where(large, large_case, small_case)


def log_normal(z: Tensor, *, mean: Tensor | float = 0.0, log_variance: Tensor | float = 0.0) -> Tensor:
    """Log-density of independent normals, summed over the last dimension: (..., k) -> (...)."""
    log_variance = torch.as_tensor(log_variance, dtype=z.dtype, device=z.device)
    density = -0.5 * ((z - mean) ** 2 * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi))
    return density.sum(-1)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of N(mean, exp(log_variance)) from N(0, 1), summed over the last dimension: (n, k) -> (n,)."""
    return 0.5 * (mean**2 + torch.exp(log_variance) - 1 - log_variance).sum(-1)


def zinb_log_prob_rows(
    batch: SparseBatch, *, log_mean: Tensor, log_dispersion: Tensor, zi_logits: Tensor | None
) -> Tensor:
    """Log-probability of whole rows, summed over genes: (b,), or (s, b) where parameters carry samples (s, b, g).

    batch           (b, g)  counts, sparse
    log_mean        (..., b, g)
    log_dispersion  broadcasts to it
    zi_logits       broadcasts to it; None: no zero inflation

    Every entry is first taken for a zero, which needs no gamma function; what differs is then corrected where the
    counts are. On data of 10 % that is the greater part of the work saved, and the sum is the same.
    """
    log_mean, log_dispersion = bounded_log(log_mean), bounded_log(log_dispersion)
    zero = -torch.exp(-log_dispersion) * F.softplus(log_mean + log_dispersion)
    if zi_logits is not None:
        zero = torch.logaddexp(zi_logits.expand_as(zero), zero) - F.softplus(zi_logits)
    at = _Gather(batch.place, log_mean.shape)
    positive = nb_log_prob(batch.values, log_mean=at(log_mean), log_dispersion=at(log_dispersion))
    if zi_logits is not None:
        positive = positive - F.softplus(at(zi_logits))
    correction = positive - at(zero)  # (..., k)
    rows = (batch.place // batch.shape[1]).expand(correction.shape)
    return zero.sum(-1).scatter_add(-1, rows, correction)


class _Gather:
    """Pick the entries of a batch that hold counts from parameters of any shape that broadcasts to it."""

    def __init__(self, place: Tensor, shape: torch.Size):
        self.place, self.shape = place, shape

    def __call__(self, parameter: Tensor) -> Tensor:
        if parameter.shape == self.shape:
            return parameter.flatten(-2)[..., self.place]
        if parameter.dim() == 1 or parameter.shape[-2] == 1:  # a number per gene
            return parameter.reshape(-1)[self.place % self.shape[-1]]
        return parameter.expand(self.shape).flatten(-2)[..., self.place]
