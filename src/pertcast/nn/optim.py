"""Optimisers by name, Lion among them, and how the learning rate moves during training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from pertcast.errors import InputError, unknown

START_DIVISOR = 25.0  # one_cycle begins at lr / 25 ...
END_DIVISOR = 25.0 * 1e4  # ... and ends at lr / 250000, the defaults of torch's OneCycleLR
IMPROVEMENT = 1e-4  # a relative gain below this counts as none for plateau, the default of torch's ReduceLROnPlateau

OPTIMIZERS = ("adam", "adamw", "lion")
SCHEDULES = ("constant", "cosine", "one_cycle", "plateau")


class Lion(torch.optim.Optimizer):
    """Steps of one size: the sign of an interpolated momentum, with decoupled weight decay.

    Use a learning rate 3 to 10 times smaller and a weight decay as much larger than with AdamW.
    Source: Chen et al. 2023, arXiv:2302.06675, algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or not all(0 <= beta < 1 for beta in betas):
            raise InputError(f"Lion needs lr >= 0 and betas in [0, 1); got lr {lr} and betas {betas}.")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, group["lr"], group["betas"], group["weight_decay"])
        return loss

    def _move(self, p: Tensor, lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        if "momentum" not in self.state[p]:
            self.state[p]["momentum"] = torch.zeros_like(p)
        m = self.state[p]["momentum"]
        p.mul_(1 - lr * weight_decay)
        p.add_(torch.lerp(p.grad, m, betas[0]).sign(), alpha=-lr)
        m.lerp_(p.grad, 1 - betas[1])


def make_optimizer(
    name: str, params: Iterable[nn.Parameter], *, lr: float, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Build an optimiser by name (S004-08). Adam adds the decay to the gradient; AdamW and Lion decouple it.

    Fused steps take a third of the time where networks are small.
    """
    if name == "adam":
        return torch.optim.Adam(params, lr=lr, weight_decay=weight_decay, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, fused=True)
    if name == "lion":
        return Lion(params, lr=lr, weight_decay=weight_decay)
    raise InputError(unknown("optimizer", name, OPTIMIZERS))


class Schedule:
    """Sets the learning rate of an optimiser: call `before_step` before each step, `after_epoch` with each loss.

    name             constant, cosine (to zero), one_cycle (up, then down), plateau (down when the loss stands still)
    steps            number of steps that training will take in all
    warmup           share of the steps in which the rate rises linearly to its full value; the rise of one_cycle
    plateau_factor   the rate is multiplied by this when `plateau_patience` epochs have passed without a gain
    """

    def __init__(
        self,
        name: str,
        optimizer: torch.optim.Optimizer,
        *,
        steps: int,
        warmup: float = 0.0,
        plateau_factor: float = 0.1,
        plateau_patience: int = 10,
    ) -> None:
        if name not in SCHEDULES:
            raise InputError(unknown("schedule", name, SCHEDULES))
        self.name, self.optimizer = name, optimizer
        self.steps, self.warmup = steps, warmup
        self.plateau_factor, self.plateau_patience = plateau_factor, plateau_patience
        self.base = [group["lr"] for group in optimizer.param_groups]
        self.taken = 0  # steps so far
        self.scale = 1.0  # product of all plateau reductions
        self.best, self.waited = math.inf, 0

    def before_step(self) -> None:
        factor = self.factor(self.taken) * self.scale
        for group, lr in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = lr * factor
        self.taken += 1

    def after_epoch(self, loss: float) -> None:
        """Tell the loss of an epoch; only `plateau` listens."""
        if self.name != "plateau":
            return
        if loss < self.best * (1 - IMPROVEMENT):
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        if self.waited > self.plateau_patience:
            self.scale *= self.plateau_factor
            self.waited = 0

    def factor(self, step: int) -> float:
        """Share of the full learning rate at a step, counted from 0."""
        if self.name == "one_cycle":
            return _one_cycle(step, self.steps, self.warmup)
        rise = round(self.warmup * self.steps)
        if step < rise:
            return (step + 1) / (rise + 1)
        if self.name == "cosine":
            return (1 + math.cos(math.pi * (step - rise) / (self.steps - rise))) / 2
        return 1.0


def _one_cycle(step: int, steps: int, rise: float) -> float:
    """Cosine from lr / 25 up to lr in the share `rise` of the steps, then down.

    Source: Smith and Topin 2017, arXiv:1708.07120.
    """
    top, last = rise * steps - 1, steps - 1
    if step <= top:
        return _between(1 / START_DIVISOR, 1.0, step / top if top > 0 else 1.0)
    return _between(1.0, 1 / END_DIVISOR, (step - top) / (last - top))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
