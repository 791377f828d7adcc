"""Pieces of networks that a condition modulates: FiLM around the identity, noise by feature, penalties of a critic."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Critic = Callable[[Tensor], Tensor]  # (n, g) -> (n,)


class Film(nn.Module):
    """Feature-wise modulation (1 + gamma(c)) * x + beta(c), the identity at the start: (n, d), (n, c) -> (n, d).

    Source: Perez et al. 2018, arXiv:1709.07871.
    """

    def __init__(self, width: int, code_width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(code_width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        gamma, beta = self.modulation(code).chunk(2, dim=-1)  # (n, d) each
        return (1 + gamma) * x + beta


class ScaledLeakyReLU(nn.Module):
    """Leaky ReLU of x + b, slope 0.2, times sqrt(2) so that a normal input keeps its size; b is one learned number.

    Source: system 000; Karras et al. 2020, arXiv:1912.04958.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(x + self.bias, 0.2) * math.sqrt(2)


class InjectNoise(nn.Module):
    """x + w * noise with a weight per feature that starts at 0; without noise the identity: (n, d) -> (n, d)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        return x if noise is None else x + self.weight * noise


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """Two-sided penalty (|slope| - 1)^2 at random points between real and fake cells, mean over cells: ().

    critic      (n, g) -> (n,)  scores; a condition is bound to it by the caller
    real, fake  (n, g)  with or without gradients; they are detached here (R32, R33)
    For a linear critic of weight norm w it is (w - 1)^2. Source: Gulrajani et al. 2017, arXiv:1704.00028.
    """
    share = torch.rand(len(real), 1, device=real.device, dtype=real.dtype)
    between = real.detach() + share * (fake.detach() - real.detach())
    return (_slope(critic, between).norm(dim=1) - 1).square().mean()


def divergence_penalty(critic: Critic, real: Tensor, fake: Tensor, *, k: float = 2.0, p: float = 6.0) -> Tensor:
    """Wasserstein-divergence penalty k / 2 * mean(|slope at real|^p + |slope at fake|^p): ().

    Arguments as in `gradient_penalty`. For a linear critic of weight norm w it is k / 2 * 2 * w^p.
    Source: Wu et al. 2018, arXiv:1712.01026, with k = 2 and p = 6; system 000 has p = 2.
    """
    norms = _slope(critic, real.detach()).norm(dim=1), _slope(critic, fake.detach()).norm(dim=1)
    return k / 2 * (norms[0].pow(p) + norms[1].pow(p)).mean()


def _slope(critic: Critic, x: Tensor) -> Tensor:
    """Slope of every cell's own score: (n, g) -> (n, g)."""
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0]
