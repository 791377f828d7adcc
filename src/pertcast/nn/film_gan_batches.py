"""What a FiLM-GAN is trained on: its settings, cells before and after in groups, and balanced batches of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pertcast.config import Config
from pertcast.errors import InputError
from pertcast.nn.gan_fit import GanCells


class FilmGanTraining(Config):
    """How both networks are trained, and what the generator is asked for.

    Moment, energy and marginal terms are divided by what no change would cost, so a weight of 1 means the same
    everywhere. Defaults were chosen by holding out treated cells of two contexts of measured blood cells; `sober`
    decides most: with little of it, contexts unlike all treated ones are sent where the treated ones went.
    """

    steps: int = Field(250, ge=1)
    groups: int = Field(4, ge=1)  # pairs of groups (context, condition before and after) a step
    cells: int = Field(32, ge=2)  # of each group
    balanced: bool = True  # pairs of groups count alike, those of fewer than `cells` cells less; else by treated cells
    warm_start: Literal["none", "transferred"] = "transferred"  # begin at no change, or at the closed form's means
    directions: Literal["from-control", "any"] = "from-control"
    moment: float = Field(1.0, ge=0)  # weight: squared error of gene means per pair of groups
    energy: float = Field(1.0, ge=0)  # weight: energy distance in principal axes
    marginal: float = Field(1.0, ge=0)  # weight: energy distance of each gene on its own
    adversarial: float = Field(0.02, ge=0)  # weight: minus the critic's score
    sober: float = Field(30.0, ge=0)  # weight: squared size of all that is more than one shift for all cells
    identity: float = Field(0.1, ge=0)  # weight: what a cell loses on the way to its own condition
    cycle: float = Field(0.0, ge=0)  # weight: what a cell loses on the way to another condition and back
    detection: bool = True  # values below a single count are shown as 0 or as one count while training and drawing
    critic_steps: int = Field(1, ge=1)  # before each step of the generator
    penalty: Literal["gradient", "divergence"] = "gradient"
    penalty_weight: float = Field(10.0, ge=0)
    lr: float = Field(1e-3, gt=0)
    critic_lr: float = Field(5e-4, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    clip: float = Field(1.0, gt=0)
    ema: float = Field(0.98, ge=0, lt=1)  # of the generator's weights that are scored and kept; 0: the weights as is
    valid_share: float = Field(0.1, ge=0, lt=1)  # of the treated cells of each group that choose the weights; 0: last
    evaluate_every: int = Field(50, ge=1)  # steps
    checkpoint_every: int = Field(50, ge=1)  # steps, where a checkpoint is asked for
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True, slots=True)
class Pair:
    """Cells of one context before and after: unpaired, one by one."""

    source: Tensor  # (a,)  rows
    target: Tensor  # (b,)  rows to train on
    held: Tensor  # (v,)  treated rows that only score
    before: int  # conditions
    after: int
    context: int

    def weight(self, cells: int) -> float:
        """1 where both groups have so many cells, less where the mean of the smaller one is known less well."""
        return min(1.0, min(len(self.source), len(self.target)) / cells)


@dataclass(frozen=True, slots=True)
class Batch:
    """Equally many cells of each of k pairs of groups: rows, conditions and pairs."""

    source: Tensor  # (k b,)
    target: Tensor  # (k b,)
    before: Tensor  # (k b,)
    after: Tensor  # (k b,)
    pairs: Tensor  # (k,)


def make_pairs(cells: GanCells, settings: FilmGanTraining) -> list[Pair]:
    """Find which groups of cells turn into which; a context without control cells starts from all control cells.

    Of each treated group `valid_share` is held out to score the weights where at least 2 cells remain on either side.
    Raises InputError where nothing was treated or there is no control cell.
    """
    control = (cells.condition == cells.control).nonzero()[:, 0]
    treated = (cells.condition != cells.control).nonzero()[:, 0]
    if not len(control) or not len(treated):
        found = f"{len(control)} control cells and {len(treated)} treated ones"
        raise InputError(f"A FiLM-GAN learns from cells before and after; got {found}. Give at least one of each.")
    groups: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for context, condition in torch.stack([cells.context, cells.condition], 1).unique(dim=0).tolist():
        rows = ((cells.context == context) & (cells.condition == condition)).nonzero()[:, 0]
        held = 0 if condition == cells.control else round(settings.valid_share * len(rows))
        held = held if held >= 2 and len(rows) - held >= 2 else 0
        rows = rows[torch.randperm(len(rows)).to(rows.device)]
        groups[context, condition] = rows[held:], rows[:held]
    pairs = []
    for (context, after), (target, held) in groups.items():
        befores = [before for where, before in groups if where == context and before != after]
        if settings.directions == "from-control":
            befores = [cells.control] if after != cells.control else []
        for before in befores:
            source = groups[context, before][0] if (context, before) in groups else control
            pairs.append(Pair(source, target, held, before, after, context))
    return pairs


def draw_batch(pairs: list[Pair], settings: FilmGanTraining) -> Batch:
    """Draw a batch: each pair of groups gives `cells` cells before and as many after (S000-14)."""
    k = min(settings.groups, len(pairs))
    if settings.balanced:
        chosen = torch.multinomial(torch.tensor([pair.weight(settings.cells) for pair in pairs]), k)
    else:
        chosen = torch.multinomial(torch.tensor([float(len(pair.target)) for pair in pairs]), k, replacement=True)
    picked = [pairs[number] for number in chosen.tolist()]
    size, device = settings.cells, picked[0].source.device

    def labels(numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=device).repeat_interleave(size)

    return Batch(
        torch.cat([some_of(pair.source, size) for pair in picked]),
        torch.cat([some_of(pair.target, size) for pair in picked]),
        labels([pair.before for pair in picked]), labels([pair.after for pair in picked]), chosen,
    )  # fmt: skip


def some_of(rows: Tensor, size: int) -> Tensor:
    """Draw rows, none twice while there are enough."""
    if len(rows) >= size:
        return rows[torch.randperm(len(rows))[:size].to(rows.device)]
    return rows[torch.randint(len(rows), (size,)).to(rows.device)]
