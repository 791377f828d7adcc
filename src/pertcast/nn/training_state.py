"""State of a training by epochs on disk: numbers as safetensors, the rest as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pertcast.errors import InputError
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.io.atomic import atomic_folder
from pertcast.nn.optim import Schedule

NAME = "training"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the state of a training is kept on the way."""

    folder: Path
    digest: str  # names all that its numbers follow from; the state of another training is refused
    every: int  # epochs


@dataclass(slots=True)
class EpochState:
    """All that the epochs to come follow from; the random state aside, which is torch's own."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    best: Any  # BestWeights
    average: Any  # AverageWeights
    running: Any  # RunningWeights
    loss_fn: Any  # where it counts its steps, `step` is one of its attributes
    epoch: int = 0  # that are done
    log: list[dict[str, float]] = field(default_factory=list)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the state as it is between two epochs."""
        parts = {"net": self.net.state_dict(), "optimizer": optimizer_tensors(self.optimizer)}
        parts |= {"best": self.best.weights or {}, "average": self.average.weights, "running": self.running.weights}
        parts["random"] = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            parts["random"]["cuda"] = torch.cuda.get_rng_state(self._device)
        schedule = {name: _finite(getattr(self.schedule, name)) for name in ("taken", "scale", "best", "waited")}
        facts = {
            "digest": checkpoint.digest, "epoch": self.epoch, "log": self.log, "schedule": schedule,
            "best": [_finite(self.best.loss), self.best.age], "average": self.average.count,
            "running": self.running.steps, "step": getattr(self.loss_fn, "step", None),
        }  # fmt: skip
        write_state(checkpoint.folder, NAME, parts, facts)

    def load(self, checkpoint: Checkpoint) -> bool:
        """Take up what `save` wrote, if anything; whether there was something.

        Raises InputError for the state of another training, and for a damaged one.
        """
        found = read_state(checkpoint.folder, NAME, checkpoint.digest)
        if found is None:
            return False
        (parts, facts), device = found, self._device
        self.net.load_state_dict(parts["net"])
        restore_optimizer(self.optimizer, parts.get("optimizer", {}))
        for name in ("best", "average", "running"):
            weights = {key: value.to(device) for key, value in parts.get(name, {}).items()}
            setattr(getattr(self, name), "weights", weights or (None if name == "best" else {}))  # noqa: B010
        self.best.loss, self.best.age = _infinite(facts["best"][0]), facts["best"][1]
        self.average.count, self.running.steps = facts["average"], facts["running"]
        for name, value in facts["schedule"].items():
            setattr(self.schedule, name, _infinite(value))
        if facts["step"] is not None:
            self.loss_fn.step = facts["step"]
        self.epoch, self.log = facts["epoch"], facts["log"]
        torch.set_rng_state(parts["random"]["cpu"])
        if device.type == "cuda" and "cuda" in parts["random"]:
            torch.cuda.set_rng_state(parts["random"]["cuda"], device)
        return True

    @property
    def _device(self) -> torch.device:
        return next(self.net.parameters()).device


def write_state(folder: Path, name: str, parts: Mapping[str, Mapping[str, Tensor]], facts: dict[str, Any]) -> None:
    """Write a state, whole or not at all, over the one before; `facts` hold the `digest` that names the training."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    arrays = {f"{part}/{key}": t.detach().cpu().numpy() for part, held in parts.items() for key, t in held.items()}
    with atomic_folder(Path(folder) / name, replace=True) as draft:
        save_arrays(draft, name, arrays, facts)


def read_state(folder: Path, name: str, digest: str) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """Read what `write_state` wrote; None where there is nothing.

    Raises InputError where it is the state of another training, or damaged.
    """
    place = Path(folder) / name
    if not place.exists():
        return None
    arrays, facts = load_arrays(place, name)
    if facts["digest"] != digest:
        what = "is of other settings, another seed or other cells"
        raise InputError(f"Checkpoint '{folder}' {what}. Remove the folder, or choose another.")
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in arrays.items():
        part, _, rest = key.partition("/")
        parts.setdefault(part, {})[rest] = torch.tensor(np.asarray(value))
    return parts, facts


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers of each parameter, named `number.field`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{key}": value for number, held in state.items() for key, value in held.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Undo `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return None if math.isinf(value) else value


def _infinite(value: float | None) -> float:
    return math.inf if value is None else value
