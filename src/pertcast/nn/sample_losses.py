"""Distances between two samples of cells that a generator can be trained on. Cells are not paired."""

from __future__ import annotations

import torch
from torch import Tensor


def energy_loss(a: Tensor, b: Tensor) -> Tensor:
    """Energy distance of pairs of samples, without bias: (k, n, d), (k, m, d) -> (k,), unit of the cells.

    2 E|a - b| - E|a - a'| - E|b - b'| over different cells; the U-statistic, so its mean is 0 for samples of one
    distribution and it may be negative. Needs n, m of at least 2. Source: Szekely and Rizzo 2013.
    """
    n, m = a.shape[1], b.shape[1]
    within_a = _distances(a, a).sum(dim=(1, 2)) / (n * (n - 1))
    within_b = _distances(b, b).sum(dim=(1, 2)) / (m * (m - 1))
    return 2 * _distances(a, b).mean(dim=(1, 2)) - within_a - within_b


def marginal_loss(a: Tensor, b: Tensor) -> Tensor:
    """Energy distance of every gene on its own, summed over genes: (k, n, g), (k, m, g) -> (k,), without bias.

    In one dimension the mean of |x - y| over all pairs follows from ranks, so no pairs are built; that of a with b is
    what pairs of both samples together have beyond those within each. Source: Bellemare et al. 2017, arXiv:1705.10743.
    """
    n, m = a.shape[1], b.shape[1]
    of_a, of_b, of_both = _pair_sum(a), _pair_sum(b), _pair_sum(torch.cat([a, b], dim=1))  # (k, g)
    between = (of_both - of_a - of_b) / (n * m)
    return (2 * between - 2 * of_a / (n * (n - 1)) - 2 * of_b / (m * (m - 1))).sum(dim=1)


def _pair_sum(x: Tensor) -> Tensor:
    """Sum of |x_i - x_j| over unordered pairs: (k, n, g) -> (k, g)."""
    n = x.shape[1]
    rank = 2 * torch.arange(n, device=x.device, dtype=x.dtype) - (n - 1)
    return torch.einsum("n,kng->kg", rank, x.sort(dim=1).values)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances: (k, n, d), (k, m, d) -> (k, n, m); their slope at distance 0 is 0."""
    squared = a.square().sum(2)[:, :, None] + b.square().sum(2)[:, None] - 2 * a @ b.transpose(1, 2)
    if a is b:
        squared = squared * (1 - torch.eye(a.shape[1], device=a.device, dtype=a.dtype))
    apart = squared > 1e-10
    return torch.where(apart, squared, 1.0).sqrt() * apart
