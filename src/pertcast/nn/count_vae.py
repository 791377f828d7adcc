"""A variational autoencoder of counts: cell -> latent normal -> a zero-inflated negative binomial per gene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from scipy.sparse import csr_array
from torch import Tensor, nn

from pertcast.config import Config
from pertcast.nn.distributions import kl_to_standard_normal, log_normal, zinb_log_prob_rows
from pertcast.nn.sparse_rows import SparseBatch

LEAST_MEAN = 1e-8  # softplus underflows to 0 in float32; a mean of 0 has no logarithm
LOG_VARIANCE = (-12.0, 6.0)  # of the posterior


class CountVaeConfig(Config):
    """Sizes as published by system 002; likelihood, library and batches as scVI has them."""

    hidden: int = Field(40, ge=1)  # width of every hidden layer
    latent: int = Field(10, ge=1)  # numbers in a code
    depth: int = Field(1, ge=1)  # hidden layers of encoder and of decoder
    dispersion: Literal["gene", "gene-batch", "gene-cell"] = "gene"  # what a dispersion belongs to
    zero_inflation: Literal["none", "gene", "gene-cell"] = "gene-cell"  # and a probability of structural zeros
    mean: Literal["exp", "softplus"] = "exp"  # head of the mean: steps are factors, or for large means counts
    library: bool = True  # means are shares of the cell's own total
    inputs: Literal["log1p", "scaled"] = "log1p"  # what the encoder sees: log1p of counts, or counts over their sd
    dropout: float = Field(0.0, ge=0, lt=1)  # after every hidden layer
    correct_batches: bool = False  # tell encoder and decoder the batch, so that the code need not know it
    effects: bool = False  # factors per gene of context and of condition, which the code then need not carry


@dataclass(frozen=True, slots=True)
class CountLogits:
    """A distribution of counts per cell and gene; shapes broadcast to (..., b, g)."""

    log_mean: Tensor
    log_dispersion: Tensor
    zi_logits: Tensor | None

    def mean(self) -> Tensor:
        """Expected counts, structural zeros included."""
        keep = 1.0 if self.zi_logits is None else torch.sigmoid(-self.zi_logits)
        return torch.exp(self.log_mean) * keep


class CountVae(nn.Module):
    """Encoder and decoder.

    scale      (g,)  what counts are divided by where `inputs` is "scaled"
    log_mean   (g,)  log of the mean count (or share of the total) per gene, where the decoder begins
    batches    how many
    labels     how many contexts, and how many conditions
    Sources: Lopez et al. 2018, doi:10.1038/s41592-018-0229-2; system 002.
    """

    def __init__(
        self, config: CountVaeConfig, *, scale: Tensor, log_mean: Tensor, batches: int, labels: tuple[int, int] = (1, 1)
    ):
        super().__init__()
        self.config, g = config, len(scale)
        self.batches = batches if config.correct_batches else 0
        self.register_buffer("scale", scale)
        self.encoder = _layers(g + self.batches, config)
        self.posterior = nn.Linear(config.hidden, 2 * config.latent)
        self.decoder = _layers(config.latent + self.batches, config)
        self.mean_head = nn.Linear(config.hidden, g)
        rows = {"gene": 1, "gene-batch": batches}.get(config.dispersion)
        self.dispersion = nn.Linear(config.hidden, g) if rows is None else nn.Parameter(torch.zeros(rows, g))
        heads = {"none": None, "gene": nn.Parameter(torch.zeros(1, g)), "gene-cell": nn.Linear(config.hidden, g)}
        self.zero_head = heads[config.zero_inflation]
        self.effects = nn.ModuleList(_Effect(count, g) for count in labels) if config.effects else None
        with torch.no_grad():
            start = log_mean if config.mean == "exp" else _softplus_inverse(log_mean.exp())
            self.mean_head.bias.copy_(start)
            for head in (self.mean_head, self.dispersion, self.zero_head):
                if isinstance(head, nn.Linear):  # begin near what all cells share
                    head.weight.mul_(0.1)

    def encode(self, cells: SparseBatch, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code: (b, k) each."""
        counts = cells.values
        values = torch.log1p(counts) if self.config.inputs == "log1p" else counts / self.scale[cells.column]
        seen = replace(cells, values=values).dense()
        mean, log_variance = self.posterior(self.encoder(self._told(seen, batch))).chunk(2, dim=-1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def decode(self, z: Tensor, *, batch: Tensor, log_library: Tensor, labels: Tensor | None = None) -> CountLogits:
        """Distribution of the counts of cells with these codes.

        z            (..., b, k)
        batch        (b,)  int64 number of the batch
        log_library  (b,)  log of the total count, read where the mean is a share of it
        labels       (b, 2)  numbers of context and condition, read where they have effects of their own
        """
        h = self.decoder(self._told(z, batch))
        out = self.mean_head(h)
        log_mean = out if self.config.mean == "exp" else torch.log(F.softplus(out) + LEAST_MEAN)
        if self.config.library:
            log_mean = log_mean + log_library[:, None]
        zeros = self._zeros(h)
        if self.effects is not None:
            for effect, label in zip(self.effects, labels.unbind(-1), strict=True):
                log_mean, zeros = effect(label, log_mean, zeros)
        return CountLogits(log_mean, self._dispersion(h, batch), zeros)

    def _told(self, x: Tensor, batch: Tensor) -> Tensor:
        """Add the batch's one-hot columns where batches are corrected: (..., b, d) -> (..., b, d + batches)."""
        if not self.batches:
            return x
        return torch.cat([x, F.one_hot(batch, self.batches).to(x.dtype).expand(*x.shape[:-1], -1)], dim=-1)

    def _dispersion(self, h: Tensor, batch: Tensor) -> Tensor:
        if isinstance(self.dispersion, nn.Linear):
            return self.dispersion(h)
        return self.dispersion if len(self.dispersion) == 1 else self.dispersion[batch]

    def _zeros(self, h: Tensor) -> Tensor | None:
        return self.zero_head(h) if isinstance(self.zero_head, nn.Linear) else self.zero_head

    def elbo(
        self, cells: SparseBatch, *, batch: Tensor, log_library: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the log-probability of the counts at one sampled code, and the KL term: (b,) each, in nats."""
        mean, log_variance = self.encode(cells, batch)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        log_prob = self.log_prob(cells, z, batch=batch, log_library=log_library, labels=labels)
        return log_prob, kl_to_standard_normal(mean, log_variance)

    def log_prob(
        self, cells: SparseBatch, z: Tensor, *, batch: Tensor, log_library: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """Log-probability of whole cells given their codes: (..., b, k) -> (..., b)."""
        logits = self.decode(z, batch=batch, log_library=log_library, labels=labels)
        return zinb_log_prob_rows(
            cells, log_mean=logits.log_mean, log_dispersion=logits.log_dispersion, zi_logits=logits.zi_logits
        )

    @torch.no_grad()
    def marginal_log_prob(
        self,
        cells: SparseBatch,
        *,
        batch: Tensor,
        log_library: Tensor,
        labels: Tensor | None = None,
        samples: int,
        generator: torch.Generator,
    ) -> Tensor:
        """Log-probability of whole cells, codes integrated out by importance sampling: (b,).

        Draws from the posterior weighted by prior over posterior; a lower bound that tightens with the samples.
        Source: Burda et al. 2016, arXiv:1509.00519.
        """
        mean, log_variance = self.encode(cells, batch)
        noise = torch.randn((samples, *mean.shape), generator=generator, dtype=mean.dtype).to(mean.device)
        z = mean + torch.exp(0.5 * log_variance) * noise  # (s, b, k)
        log_weight = log_normal(z) - log_normal(z, mean=mean, log_variance=log_variance)
        joint = self.log_prob(cells, z, batch=batch, log_library=log_library, labels=labels) + log_weight  # (s, b)
        return torch.logsumexp(joint, dim=0) - torch.log(torch.tensor(float(samples)))


def network_of(
    config: CountVaeConfig, x: csr_array, total: np.ndarray, *, batches: int, labels: tuple[int, int]
) -> CountVae:
    """Build a network whose decoder begins at what all cells share: counts (n, k), and totals of all genes (n,)."""
    start = x.sum(axis=0) / total.sum() if config.library else x.mean(axis=0)
    spread = np.sqrt(np.maximum(x.power(2).mean(axis=0) - np.square(x.mean(axis=0)), 1e-12))
    least = 0.1 / len(total) / (total.mean() if config.library else 1.0)  # a gene that no cell shows
    return CountVae(
        config,
        scale=torch.tensor(np.maximum(spread, 1e-3), dtype=torch.float32),
        log_mean=torch.tensor(np.log(np.maximum(start, least)), dtype=torch.float32),
        batches=batches,
        labels=labels,
    )


class NegativeBound:
    """Evidence bound of a batch, negative, in nats per count; the KL term's weight rises over the first steps."""

    def __init__(self, kl_weight: float, *, warmup: float, genes: int):
        self.kl_weight, self.warmup, self.genes, self.step = kl_weight, warmup, genes, 0

    def __call__(self, net: CountVae, rows: dict[str, Tensor]) -> Tensor:
        weight = self.kl_weight
        if net.training:
            self.step += 1
            weight *= min(1.0, self.step / max(self.warmup, 1.0))
        log_prob, kl = net.elbo(rows["x"], **told(rows))
        return (weight * kl - log_prob).mean() / self.genes


def told(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the decoder is told of cells beside their codes."""
    return {name: rows[name] for name in ("batch", "log_library", "labels")}


class _Effect(nn.Module):
    """What a label does to every gene: a factor on its mean, and a shift of its zero inflation's logit.

    A label beyond the known ones has the average effect.
    """

    def __init__(self, count: int, g: int):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(count, g))
        self.zeros = nn.Parameter(torch.zeros(count, g))

    def forward(self, label: Tensor, log_mean: Tensor, zeros: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Labels (b,), parameters (..., b, g)."""
        log_mean = log_mean + _looked_up(self.mean, label)
        return log_mean, None if zeros is None else zeros + _looked_up(self.zeros, label)


def _looked_up(table: Tensor, label: Tensor) -> Tensor:
    return torch.cat([table, table.mean(dim=0, keepdim=True)])[label]


def _layers(width: int, config: CountVaeConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(config.depth):
        layers += [nn.Linear(width, config.hidden), nn.ReLU()]
        if config.dropout:
            layers.append(nn.Dropout(config.dropout))
        width = config.hidden
    return nn.Sequential(*layers)


def _softplus_inverse(y: Tensor) -> Tensor:
    y = y.clamp(min=1e-6)
    return y + torch.log(-torch.expm1(-y))
