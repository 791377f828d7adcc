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
    if not bool(large.any()):
        return torch.lgamma(x + size) - torch.lgamma(size) + x * log_dispersion
    r = torch.where(large, 1.0, size)  # where a branch is not taken its slope must be finite all the same
    small_case = torch.lgamma(x + r) - torch.lgamma(r) + x * torch.where(large, 0.0, log_dispersion)
    r = torch.where(large, size, STIRLING_FROM)
    top = x + r
    series = (1 / top - 1 / r) / 12 - (top**-3 - r**-3) / 360 + (top**-5 - r**-5) / 1260
    large_case = (top - 0.5) * torch.log1p(x / r) - x + series
    return torch.where(large, large_case, small_case)


def _size_times_harmonic(x: Tensor, size: Tensor) -> Tensor:
    """Return r (digamma(x + r) - digamma(r)) - x, which the slope in r needs; it goes to 0 as r goes to infinity."""
    large = size > STIRLING_FROM
    if not bool(large.any()):
        return size * (torch.digamma(x + size) - torch.digamma(size)) - x
    r = torch.where(large, 1.0, size)
    small_case = r * (torch.digamma(x + r) - torch.digamma(r)) - x
    r = torch.where(large, size, STIRLING_FROM)
    top = x + r
    # digamma's series, DLMF 5.11.2: its main terms log(x + r) - log(r) are one log1p
    large_case = r * (torch.log1p(x / r) - (1 / top - 1 / r) / 2 - (top**-2 - r**-2) / 12) - x
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
    log_dispersion  (1, g) or the shape of `log_mean`
    zi_logits       (1, g) or the shape of `log_mean`; None: no zero inflation

    The sum of `zinb_log_prob`, in a third of its time: every entry is first taken for a zero, which needs no gamma
    function, and only the entries with counts are computed in full; slopes are written out by hand.
    """
    return _RowSums.apply(log_mean, log_dispersion, zi_logits, batch.values, batch.place)


class _RowSums(torch.autograd.Function):
    """Sums over genes, with their slopes worked out while the parts are at hand.

    With u = log(a mean), r = 1/a, s = log(1 + exp(u)): log NB(0) = -r s. A zero is the NB's own with probability q.
    The slopes of log ZINB(0) are  -q r sigmoid(u)  in the log mean,  q r (s - sigmoid(u))  in the log dispersion and
    1 - q - sigmoid(zi)  in the logit. Logs beyond their bounds are held there, and still get a slope.
    """

    @staticmethod
    def forward(ctx, log_mean, log_dispersion, zi_logits, values, place):  # noqa: ANN001, ANN205
        shape = log_mean.shape
        eta, lam = bounded_log(log_mean), bounded_log(log_dispersion)
        size = torch.exp(-lam)
        u = eta + lam
        s, sig = F.softplus(u), torch.sigmoid(u)
        total = s.mul(-size)  # log NB(0)
        at = _Gather(place, shape)
        x = values
        positive, to_mean, to_dispersion = _positive_parts(x, at(eta), at(lam), at(s), at(sig))
        if zi_logits is None:
            q, to_zero = torch.ones_like(total), None
        else:
            q = torch.sigmoid(total - zi_logits)
            inflated = torch.sigmoid(zi_logits)
            none = F.softplus(zi_logits)
            total = torch.logaddexp(zi_logits, total).sub_(none)
            positive = positive - at(none)
            to_zero = (1 - inflated).sub(q)
            _put(to_zero, place, -at(inflated))
        _put(total, place, positive)
        q = q.mul_(size)
        slope_mean = q.mul(sig).neg_()
        slope_dispersion = q.mul_(s.sub_(sig))
        _put(slope_mean, place, to_mean)
        _put(slope_dispersion, place, to_dispersion)
        ctx.save_for_backward(slope_mean, slope_dispersion, to_zero)
        ctx.shapes = log_mean.shape, log_dispersion.shape, None if zi_logits is None else zi_logits.shape
        return total.sum(-1)

    @staticmethod
    def backward(ctx, gradient):  # noqa: ANN001, ANN205
        slopes = ctx.saved_tensors
        given = zip(slopes, ctx.shapes, ctx.needs_input_grad, strict=False)
        found = [
            (slope * gradient[..., None]).sum_to_size(shape) if wanted and slope is not None else None
            for slope, shape, wanted in given
        ]
        return (*found, None, None)


def _positive_parts(x: Tensor, eta: Tensor, lam: Tensor, s: Tensor, sig: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log NB of counts above 0, and its slopes in log mean and log dispersion: (..., k) each."""
    size = torch.exp(-lam)
    log_prob = _rising_factorial_ratio(x, size, lam) + x * eta - (x + size) * s - torch.lgamma(x + 1)
    to_mean = x - (x + size) * sig
    to_dispersion = size * s - (x + size) * sig - _size_times_harmonic(x, size)
    return log_prob, to_mean, to_dispersion


def _put(full: Tensor, place: Tensor, values: Tensor) -> None:
    """Write the entries of a batch into a contiguous (..., b, g)."""
    full.view(*full.shape[:-2], -1)[..., place] = values


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
