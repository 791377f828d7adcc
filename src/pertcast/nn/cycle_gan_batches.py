"""How a cycle-GAN is trained, and its batches: which single cells are untreated, which perturbed, in equal groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pertcast.config import Config
from pertcast.errors import InputError
from pertcast.nn.cycle_gan import UNKNOWN
from pertcast.nn.gan_fit import GanCells


class CycleGanTraining(Config):
    """How the networks are trained, and what the translators are asked for.

    Moment, energy, marginal and sober terms are divided by what no change would cost, so a weight of 1 means the same
    everywhere.
    """

    steps: int = Field(200, ge=1)
    start: Literal["identity", "transferred"] = "transferred"  # where residual translators begin: see `ContextStart`
    groups: int = Field(4, ge=1)  # pairs (context, condition) a step
    cells: int = Field(32, ge=2)  # of each group and domain
    sampling: Literal["balanced", "proportional"] = "balanced"  # rare contexts count alike, or by their cells
    loss: Literal["lsgan", "wgan-gp"] = "lsgan"  # least squares and spectral norm, or Wasserstein and gradient penalty
    adversarial: float = Field(0.05, ge=0)  # weight
    cycle: float = Field(1.0, ge=0)  # weight: squared error of cells that were carried there and back
    recognise: float = Field(0.02, ge=0)  # weight: cross-entropy of condition and context of translated cells
    kl: float = Field(0.01, ge=0)  # weight: latents against the standard normal
    identity: float = Field(0.2, ge=0)  # weight: squared error of cells of the domain that a translator leads to
    moment: float = Field(1.0, ge=0)  # weight: squared error of gene means per condition and context
    energy: float = Field(1.0, ge=0)  # weight: energy distance in principal axes
    marginal: float = Field(1.0, ge=0)  # weight: energy distance of each gene on its own
    sober: float = Field(4.0, ge=0)  # weight: what a cell's own code adds to the change that all cells share
    context_dropout: float = Field(0.5, ge=0, le=1)  # share of groups that are not told their context
    detection: bool = True  # values below a single count are shown as 0 or as one count
    penalty_weight: float = Field(10.0, ge=0)  # of the gradient penalty
    lr: float = Field(5e-4, gt=0)
    critic_lr: float = Field(5e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.9)
    weight_decay: float = Field(1e-3, ge=0)
    schedule: Literal["constant", "cosine", "halving"] = "cosine"
    halve_every: int = Field(200, ge=1)  # steps, where the schedule is `halving`
    clip: float = Field(1.0, gt=0)  # largest norm of the translators' gradient
    ema: float = Field(0.98, ge=0, lt=1)  # of the translators' weights that are scored and kept; 0: the weights as is
    valid_share: float = Field(0.1, ge=0, lt=1)  # of each pair's treated cells that choose the weights; 0: last ones
    evaluate_every: int = Field(50, ge=1)  # steps
    patience: int | None = Field(None, ge=1)  # evaluations without a gain after which training ends
    checkpoint_every: int = Field(50, ge=1)  # steps, where a checkpoint is asked for
    device: Literal["auto", "cpu", "cuda"] = "auto"


class AdaptTraining(CycleGanTraining):
    """How a new context is learned by networks that know others: small steps, parts set free one after the other."""

    steps: int = Field(200, ge=1)
    lr: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    context_dropout: float = Field(0.0, ge=0, le=1)
    unfreeze_every: int = Field(50, ge=1)  # steps: context embedding, then outputs, decoder, encoder
    anchor: float = Field(100.0, ge=0)  # weight: squared distance of all other weights from where they were


@dataclass(frozen=True, slots=True)
class Pair:
    """A condition in a context: untreated cells that may carry it, and cells that do. Cells are not paired."""

    context: int
    condition: int
    source: Tensor  # (a,)  rows of untreated cells
    target: Tensor  # (b,)  rows of perturbed cells to train on; none where it was not measured
    held: Tensor  # (v,)  perturbed rows that only score
    told: bool  # whether the context has perturbed cells of any condition, so that its embedding was learned

    @property
    def key(self) -> tuple[int, int]:
        return self.context, self.condition

    @property
    def known(self) -> bool:
        """Whether the condition was measured in the context."""
        return len(self.target) > 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Equally many cells of both domains for each of k measured pairs, then u untreated cells of an unmeasured one."""

    x: Tensor  # (n + u, g)  untreated
    y: Tensor  # (n, g)  perturbed
    code: Tensor  # (n + u, c)  of the wanted condition
    context: Tensor  # (n + u,) int64
    told: Tensor  # (n + u,) int64  row of the translators' embedding
    least_x: Tensor  # (n + u, 1)  value of a single count
    least_y: Tensor  # (n, 1)
    home_x: Tensor  # (n + u,) int64  contexts in the translators' start
    home_y: Tensor  # (n,) int64
    keys: list[tuple[int, int]]  # (k,)  pairs


def find_pairs(cells: GanCells, *, valid_share: float) -> list[Pair]:
    """List every condition in every context, measured or not; a context without untreated cells starts from all.

    valid_share  of each measured pair's perturbed cells that are held out, where at least 2 remain on either side
    Raises InputError where nothing was treated or there is no untreated cell.
    """
    free = (cells.condition == cells.control).nonzero()[:, 0]
    treated = cells.condition != cells.control
    if not len(free) or not bool(treated.any()):
        found = f"{len(free)} untreated and {int(treated.sum())} perturbed cells"
        raise InputError(f"A cycle-GAN learns from cells of both domains; got {found}. Give at least one of each.")
    conditions = [number for number in cells.condition.unique().tolist() if number != cells.control]
    pairs = []
    for context in cells.context.unique().tolist():
        here = cells.context == context
        own = (here & ~treated).nonzero()[:, 0]
        told = bool((here & treated).any())
        for condition in conditions:
            rows = (here & (cells.condition == condition)).nonzero()[:, 0]
            if not len(rows) and not len(own):
                continue
            held = round(valid_share * len(rows))
            held = held if held >= 2 and len(rows) - held >= 2 else 0
            rows = rows[torch.randperm(len(rows)).to(rows.device)]
            source = own[torch.randperm(len(own)).to(own.device)] if len(own) else free
            pairs.append(Pair(context, condition, source, rows[held:], rows[:held], told))
    return pairs


def draw_batch(pairs: list[Pair], cells: GanCells, settings: CycleGanTraining) -> Batch:
    """Draw `groups` measured pairs with `cells` cells of each domain, and one unmeasured pair where there is any."""
    known, others = [pair for pair in pairs if pair.known], [pair for pair in pairs if not pair.known]
    k = min(settings.groups, len(known))
    if settings.sampling == "balanced":
        chosen = torch.randperm(len(known))[:k]
    else:
        chosen = torch.multinomial(torch.tensor([float(len(pair.target)) for pair in known]), k, replacement=True)
    measured = [known[number] for number in chosen.tolist()]
    every = measured + ([others[int(torch.randint(len(others), ()))]] if others else [])
    silent = (torch.rand(len(every)) < settings.context_dropout).tolist()
    told = [UNKNOWN if hush or not pair.told else pair.context + 1 for pair, hush in zip(every, silent, strict=True)]
    source = torch.cat([_some(pair.source, settings.cells) for pair in every])
    target = torch.cat([_some(pair.target, settings.cells) for pair in measured])

    def labels(numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=source.device).repeat_interleave(settings.cells)

    return Batch(
        cells.x[source].dense(), cells.x[target].dense(),
        cells.table[labels([pair.condition for pair in every])], labels([pair.context for pair in every]), labels(told),
        cells.least[source], cells.least[target],
        cells.home[source], cells.home[target], [pair.key for pair in measured],
    )  # fmt: skip


def _some(rows: Tensor, size: int) -> Tensor:
    """Draw rows, none twice while there are enough: resampling never leaves the training rows (S003-08)."""
    if len(rows) >= size:
        return rows[torch.randperm(len(rows))[:size].to(rows.device)]
    return rows[torch.randint(len(rows), (size,)).to(rows.device)]
