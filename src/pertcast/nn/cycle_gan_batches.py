"""Batches of unpaired single cells for the cycle-GAN: which cells are untreated, which perturbed, in equal groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pertcast.errors import InputError
from pertcast.nn.cycle_gan import UNKNOWN
from pertcast.nn.film_gan_fit import GanCells


class Drawing(Protocol):
    """Settings of training that batches are drawn by."""

    groups: int
    cells: int
    sampling: str
    context_dropout: float


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


def draw_batch(pairs: list[Pair], cells: GanCells, settings: Drawing) -> Batch:
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
        cells.least[source], cells.least[target], [pair.key for pair in measured],
    )  # fmt: skip


def _some(rows: Tensor, size: int) -> Tensor:
    """Draw rows, none twice while there are enough: resampling never leaves the training rows (S003-08)."""
    if len(rows) >= size:
        return rows[torch.randperm(len(rows))[:size].to(rows.device)]
    return rows[torch.randint(len(rows), (size,)).to(rows.device)]
