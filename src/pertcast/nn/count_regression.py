"""A count distribution of each target gene, given all other genes of its cell: many small index networks at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pertcast.config import Config
from pertcast.nn.count_vae import LEAST_MEAN, CountLogits


class CountRegressionConfig(Config):
    """A few weighted sums of the other genes, and a small network of those sums."""

    indices: int = Field(1, ge=1)  # weighted sums per target; 1 suits one pathway, 4 products and thresholds of two
    hidden: int = Field(16, ge=1)  # width of both hidden layers behind them


class CountRegression(nn.Module):
    """Counts of all genes -> zero-inflated negative binomial of t target genes.

    A target's own column has no weight, so that what was observed of it cannot reach its prediction (S002-08). The
    mean is softplus of the network plus the sums themselves: linear where the network has nothing to add.

    targets  (t,)  columns
    scale    (g,)  counts are divided by it
    Source: projection pursuit regression, Friedman and Stuetzle 1981, doi:10.1080/01621459.1981.10477729.
    """

    def __init__(self, config: CountRegressionConfig, *, targets: Tensor, scale: Tensor):
        super().__init__()
        t, g, k, h = len(targets), len(scale), config.indices, config.hidden
        self.register_buffer("targets", targets)
        self.register_buffer("scale", scale)
        self.register_buffer("others", (torch.arange(g) != targets[:, None]).float())  # (t, g)
        self.index = _weight(t, g, k)
        self.index_bias = nn.Parameter(torch.zeros(t, k))
        self.first, self.first_bias = _weight(t, k, h), nn.Parameter(torch.zeros(t, h))
        self.second, self.second_bias = _weight(t, h, h), nn.Parameter(torch.zeros(t, h))
        self.head, self.head_bias = _weight(t, h, 2), nn.Parameter(torch.zeros(t, 2))
        self.log_dispersion = nn.Parameter(torch.zeros(1, t))

    def forward(self, counts: Tensor) -> CountLogits:
        """Distribution of the targets: (b, g) -> (b, t)."""
        x = counts / self.scale
        weight = self.index * self.others[..., None]  # (t, g, k)
        u = torch.einsum("bg,tgk->tbk", x, weight) + self.index_bias[:, None]
        h = torch.relu(torch.baddbmm(self.first_bias[:, None], u, self.first))
        h = torch.relu(torch.baddbmm(self.second_bias[:, None], h, self.second))
        out = torch.baddbmm(self.head_bias[:, None], h, self.head)  # (t, b, 2)
        mean = F.softplus(out[..., 0] + u.sum(-1))
        log_mean = torch.log(mean * self.scale[self.targets][:, None] + LEAST_MEAN)
        return CountLogits(log_mean.T, self.log_dispersion, out[..., 1].T)


def _weight(t: int, d_in: int, d_out: int) -> nn.Parameter:
    """Draw as `nn.Linear` does."""
    bound = d_in**-0.5
    return nn.Parameter(torch.empty(t, d_in, d_out).uniform_(-bound, bound))
