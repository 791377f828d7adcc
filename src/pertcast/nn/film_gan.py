"""Generator and critic of the FiLM-GAN: a cell and two conditions in, a modulation of that very cell out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pertcast.config import Config
from pertcast.nn.context_start import ContextStart
from pertcast.nn.film import Film, InjectNoise, ScaledLeakyReLU
from pertcast.nn.gene_attention import GatedGeneAttention

SPEED = 5.0  # how much faster than a weight what all cells share may move where it has whole units to go: without start
SPREAD_START = -3.0  # softplus of it, 0.05, is the first spread of the noise of a gene


class FilmGanSizes(Config):
    """Sizes of both networks."""

    hidden: int = Field(128, ge=2)  # first layer of the encoder, last but one of the decoders
    latent: int = Field(32, ge=1)
    heads: int = Field(1, ge=0)  # of the generator's attention over genes; 0: none
    critic_heads: int = Field(0, ge=0)  # of the critic's; its penalty makes attention there six times as dear
    landmarks: int = Field(4, ge=1)  # a head
    head_width: int = Field(8, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    axes: int = Field(20, ge=0)  # principal axes of the control cells that the generator's encoder reads; 0: all genes
    most_gain: float = Field(4.0, gt=1)  # gamma stays in (0, most_gain)
    noise: bool = True  # whether a cell may have more than one outcome


@dataclass(frozen=True, slots=True)
class Modulation:
    """What becomes of each gene of each cell: max(0, gamma * x + beta + spread * noise), (n, g) each."""

    gamma: Tensor  # at least 0
    beta: Tensor  # unit of the cells
    spread: Tensor | None = None  # at least 0; None: no noise
    own: Tensor | None = None  # (n,) squared size of all that is more than one shift for all cells

    def apply(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Modulate cells: x (n, g), standard normal noise (n, g) -> (n, g), never negative.

        Without noise the result is its mean over noise, in closed form; at a spread of 0 the two are the same.
        """
        centre = self.gamma * x + self.beta
        if self.spread is None:
            return functional.relu(centre)
        if noise is not None:
            return functional.relu(centre + self.spread * noise)
        ratio = centre / self.spread.clamp_min(1e-6)
        density = torch.exp(-0.5 * ratio.square()) / math.sqrt(2 * math.pi)
        mean = centre * 0.5 * (1 + torch.erf(ratio / math.sqrt(2))) + self.spread * density
        return functional.relu(mean)  # rounding alone may leave it below 0


class _Trunk(nn.Module):
    """Attention, FiLM and encoder, the same form in both networks: (n, g), (n, c) -> (n, latent)."""

    def __init__(
        self, sizes: FilmGanSizes, *, centre: Tensor, axes: Tensor | None, code_width: int, heads: int
    ) -> None:
        super().__init__()
        g, half = len(centre), max(1, sizes.hidden // 2)
        self.register_buffer("centre", centre.clone())
        self.register_buffer("axes", axes)
        self.mix = None
        if heads:
            self.mix = GatedGeneAttention(
                g, heads, landmarks=sizes.landmarks, head_width=sizes.head_width, code_width=code_width
            )
        self.film_genes = Film(g, code_width)
        self.encode = nn.Sequential(
            nn.Linear(g if axes is None else axes.shape[1], sizes.hidden), nn.Dropout(sizes.dropout), ScaledLeakyReLU(),
            nn.Linear(sizes.hidden, half), ScaledLeakyReLU(),
            nn.Linear(half, sizes.latent), nn.Tanh(),
        )  # fmt: skip
        self.film_latent = Film(sizes.latent, code_width)

    def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor | None]:
        """Code of each cell (n, latent), and what attention says of each gene (n, g)."""
        mixed = None
        h = x - self.centre
        if self.mix is not None:
            h, mixed = self.mix(h, code)
        h = self.film_genes(h, code)
        h = h if self.axes is None else h @ self.axes
        return self.film_latent(self.encode(h), code), mixed


class Generator(nn.Module):
    """Says by how much each gene of a cell is scaled and shifted on the way from one condition to another.

    Without a start gamma is 1 and beta 0 at first: the cell stays as it is (S000-02, R35). gamma is bounded and never
    negative.
    Attention counts twice: in what the encoder reads, and directly in beta, so that a gene's shift can hang on the
    level of another gene of the same cell.

    A cell's change is that which its context starts with, plus that of the condition, the same for every cell, plus
    what the networks make of the cell's own profile. That last part and gamma can be held small in training, so that a
    cell unlike all treated ones still gets a sober answer: neither a wild extrapolation nor the gain of a gene that no
    treated cell showed.

    centre      (g,)  mean of the training cells, taken off before they are read
    axes        (g, k)  directions that the encoder reads; None: all genes
    code_width  numbers of a condition's code
    start       what training begins from; None: no change
    """

    def __init__(
        self,
        sizes: FilmGanSizes,
        *,
        centre: Tensor,
        axes: Tensor | None,
        code_width: int,
        start: ContextStart | None = None,
    ) -> None:
        super().__init__()
        self.sizes, self.start = sizes, start
        self.trunk = _Trunk(sizes, centre=centre, axes=axes, code_width=2 * code_width, heads=sizes.heads)
        self.latent_noise = InjectNoise(sizes.latent)
        self.of_condition = nn.Linear(code_width, 2 * len(centre), bias=False)
        nn.init.zeros_(self.of_condition.weight)
        self.decode_gamma = _decoder(sizes, len(centre))
        self.decode_beta = _decoder(sizes, len(centre))
        self.attention_gate = nn.Parameter(torch.zeros(len(centre))) if sizes.heads else None
        if sizes.noise:
            self.spread = nn.Linear(sizes.latent, len(centre))
            nn.init.zeros_(self.spread.weight)
            nn.init.constant_(self.spread.bias, SPREAD_START)

    def forward(
        self, x: Tensor, source: Tensor, target: Tensor, noise: Tensor | None = None, home: Tensor | None = None
    ) -> Modulation:
        """Modulate cells x (n, g) of conditions `source` into `target`, codes (n, c) each.

        noise  (n, latent) standard normal, of the cell as a whole; None: none
        home   (n,) int64  contexts, as `ContextStart` takes them
        """
        latent, mixed = self.trunk(x, torch.cat([source, target], dim=1))
        latent = self.latent_noise(latent, noise)
        speed = SPEED if self.start is None else 1.0
        gain, shift = (speed * self.of_condition(target - source)).chunk(2, dim=1)  # (n, g) each
        own_gain, own_shift = self.decode_gamma(latent), self.decode_beta(latent)
        if mixed is not None:
            own_shift = own_shift + self.attention_gate * mixed
        most = self.sizes.most_gain
        gamma = most * torch.sigmoid(gain + own_gain - math.log(most - 1))
        spread = functional.softplus(self.spread(latent)) if self.sizes.noise else None
        own = (own_shift.square() + own_gain.square() + gain.square()).sum(dim=1)
        if self.start is not None:
            first_gain, first_shift = self.start(x, source, target, home)
            gamma, shift = gamma * first_gain, shift + first_shift
        return Modulation(gamma, shift + own_shift, spread, own)

    def generate(
        self, x: Tensor, source: Tensor, target: Tensor, *, sample: bool, home: Tensor | None = None
    ) -> Tensor:
        """Cells under the target: drawn if `sample` and noise is on, else their mean over genes' noise: (n, g)."""
        if not (sample and self.sizes.noise):
            return self(x, source, target, home=home).apply(x)
        latent = torch.randn(len(x), self.sizes.latent, device=x.device)
        return self(x, source, target, latent, home).apply(x, torch.randn_like(x))


class Critic(nn.Module):
    """Scores how real a cell looks under a condition, no sigmoid: (n, g), (n, c) -> (n,)."""

    def __init__(self, sizes: FilmGanSizes, *, centre: Tensor, code_width: int) -> None:
        super().__init__()
        self.trunk = _Trunk(sizes, centre=centre, axes=None, code_width=code_width, heads=sizes.critic_heads)
        self.score = nn.Linear(sizes.latent, 1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return self.score(self.trunk(x, code)[0])[:, 0]


def detect(x: Tensor, least: Tensor) -> Tensor:
    """Replace what a measurement could not have shown by 0 or the least it shows, the mean kept: (n, g) -> (n, g).

    A value v below `least` (n, 1), the value of a single count in that cell, becomes `least` with probability
    v / least, else 0. The slope passes as if nothing had happened (Bengio et al. 2013, arXiv:1308.3432).
    """
    shown = torch.where(torch.rand_like(x) * least < x, least, torch.zeros_like(x))
    seen = torch.where(x < least, shown, x)
    return x + (seen - x).detach()


def _decoder(sizes: FilmGanSizes, genes: int) -> nn.Sequential:
    """Three layers from code to genes; the last one starts at 0."""
    half = max(1, sizes.hidden // 2)
    last = nn.Linear(sizes.hidden, genes)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(sizes.latent, half), ScaledLeakyReLU(),
        nn.Linear(half, sizes.hidden), nn.Dropout(sizes.dropout), ScaledLeakyReLU(), last,
    )  # fmt: skip
