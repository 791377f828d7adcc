"""What the trainings of both GANs share: a loop that can be cut off, moves of a network, and the choice of weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pertcast.config import Config
from pertcast.errors import InputError
from pertcast.nn.fit import BestWeights, Progress, RunningWeights
from pertcast.nn.gan_state import load_state, save_state
from pertcast.nn.sample_losses import energy_loss, marginal_loss
from pertcast.nn.sparse_rows import SparseRows

AXES = 50  # principal axes in which the energy distance is taken
AXES_CELLS = 4000  # that place them, at most
SCORED = 400  # source cells of a pair of groups that are predicted to score the weights, at most
IDENTITY = 4  # one source cell in so many is also asked to stay what it is
NO_CHANGE_BATCHES = 8  # on which the distances are measured that no change would leave
STEP_SEEDS = 1_000_003  # steps of different seeds draw differently


@dataclass(frozen=True, slots=True)
class GanCells:
    """Training cells on the log1p scale, and what was done to them."""

    x: SparseRows  # (n, g)
    condition: Tensor  # (n,) int64  row of `table`
    context: Tensor  # (n,) int64
    least: Tensor  # (n, 1)  value of a single count; 0 where unknown
    table: Tensor  # (k, c)  codes of the conditions
    control: int  # row of `table`
    home: Tensor  # (n,) int64  number of each cell's context in the networks' start, see `ContextStart`

    def to(self, device: torch.device) -> GanCells:
        parts = (part.to(device) for part in (self.x, self.condition, self.context, self.least, self.table))
        return GanCells(*parts, self.control, self.home.to(device))


class GanTrainer(ABC):
    """Networks, optimisers and what is known so far of a run; a subclass says what a step is.

    The random state of a step follows from the seed and the step's number alone, so a run that was cut off and taken
    up from its checkpoint ends with the very weights of a run that was not.
    """

    generator: nn.Module
    critic: nn.Module
    optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer
    scored: bool  # whether cells are held out to choose weights by

    def __init__(self, cells: GanCells, settings: Config, *, seed: int) -> None:
        self.cells, self.settings, self.seed = cells, settings, seed
        self.step, self.history = 0, []
        self.best, self.running = BestWeights(), RunningWeights(settings.ema)
        self.no_change: dict[str, float] = {}  # what each distance would be if every cell stayed as it is

    def run(self, *, checkpoint: Path | None, digest: str, progress: Progress | None) -> list[dict[str, float]]:
        """Train to the end; return what was measured.

        checkpoint  folder whose state is taken up if there is one, and written every `checkpoint_every` steps
        digest      names settings and cells; a checkpoint of others is refused
        progress    called after every step
        """
        if checkpoint is not None:
            load_state(checkpoint, self, digest=digest)
        while self.step < self.settings.steps and not self.tired():
            torch.manual_seed(self.seed * STEP_SEEDS + self.step)
            self.take_step()
            if progress is not None:
                progress(self.step, self.settings.steps)
            if checkpoint is not None and self.step % self.settings.checkpoint_every == 0:
                save_state(checkpoint, self, digest=digest)
        self.finish()
        return self.history

    @abstractmethod
    def take_step(self) -> None:
        """Move all networks once."""

    @abstractmethod
    def held_out_energy(self) -> float:
        """Energy distance from held-out treated cells; no change costs 1."""

    def tired(self) -> bool:
        """Whether to stop before the last step."""
        return False

    def finish(self) -> None:
        """Put the best weights in place; where no cells are held out, the running mean of the last ones."""
        (self.best if self.scored else self.running).restore(self.generator)

    def move(self, whose: str, parameters: Iterable[Tensor], optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
        """Follow the slope of a loss in these parameters and no others; return the loss.

        Raises InputError where it is not finite.
        """
        value, free = float(loss.detach()), list(parameters)
        if not math.isfinite(value):
            what = f"Loss of the {whose} is {value} in step {self.step + 1}."
            raise InputError(f"{what} Lower the learning rates ({self.settings.lr}, {self.settings.critic_lr}).")
        optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=free)
        nn.utils.clip_grad_norm_(free, self.settings.clip)
        optimizer.step()
        return value

    def evaluate(self, facts: dict[str, float]) -> None:
        """Note where training stands; held-out cells, and no loss of a GAN, choose the weights (R29)."""
        facts = {"step": self.step, **facts}
        if self.scored:
            kept = {name: value.clone() for name, value in self.generator.state_dict().items()}
            self.running.restore(self.generator)
            facts["held_out_energy"] = self.held_out_energy()
            self.best.see(facts["held_out_energy"], self.generator)
            self.generator.load_state_dict(kept)
        self.history.append(facts)

    def set_no_change(self, moment: Tensor, groups: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Measure distances without any change.

        moment  ()  squared length of the changes of means
        groups  cells before and after (k, b, g) of a few batches
        """
        energy, marginal = [], []
        for before, after in groups:
            energy.append(energy_loss(before @ self.axes, after @ self.axes).mean())
            marginal.append(marginal_loss(before, after).mean())
        parts = {"moment": moment, "energy": torch.stack(energy).mean(), "marginal": torch.stack(marginal).mean()}
        self.no_change = {name: max(float(value), 1e-3) for name, value in parts.items()}

    def mean_of(self, rows: Tensor) -> Tensor:
        """Mean of some cells: (g,)."""
        parts = [self.cells.x[part].dense().sum(dim=0) for part in rows.split(1024)]
        return torch.stack(parts).sum(dim=0) / len(rows)


def principal_axes(x: SparseRows, count: int) -> tuple[Tensor, Tensor]:
    """First principal axes of cells (g, k), k at most `count`, and how far cells spread along each (k,)."""
    rows = torch.randperm(len(x))[:AXES_CELLS].to(x.device)
    dense = x[rows].dense()
    _, size, axes = torch.pca_lowrank(dense, q=min(count, *dense.shape), niter=4)
    return axes, size / math.sqrt(len(rows))
