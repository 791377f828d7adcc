"""The whole state of a GAN's training on disk: numbers as safetensors, the rest as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pertcast.errors import InputError
from pertcast.io.arrays import load_arrays, save_arrays

NAME = "gan-training"


def save_state(folder: Path, trainer: Any, *, digest: str) -> None:
    """Write networks, optimisers, best and running weights, step and history of a run."""
    parts = {"generator": trainer.generator.state_dict(), "critic": trainer.critic.state_dict()}
    parts |= {"best": trainer.best.weights or {}, "running": trainer.running.weights}
    for name, optimizer in _optimizers(trainer).items():
        state = optimizer.state_dict()["state"]
        parts[name] = {f"{number}.{key}": value for number, held in state.items() for key, value in held.items()}
    arrays = {
        f"{part}/{key}": value.detach().cpu().numpy() for part, held in parts.items() for key, value in held.items()
    }
    facts = {
        "digest": digest, "step": trainer.step, "history": trainer.history,
        "best": [trainer.best.loss if trainer.best.weights else None, trainer.best.age],
        "running": trainer.running.steps,
    }  # fmt: skip
    save_arrays(folder, NAME, arrays, facts)


def load_state(folder: Path, trainer: Any, *, digest: str) -> bool:
    """Take up what `save_state` wrote, if anything; whether there was something.

    Raises InputError for a checkpoint of other settings, another seed or other cells, and for a damaged one.
    """
    if not (Path(folder) / f"{NAME}.json").exists():
        return False
    arrays, facts = load_arrays(folder, NAME)
    if facts["digest"] != digest:
        what = "is of other settings, another seed or other cells"
        raise InputError(f"Checkpoint '{folder}' {what}. Remove the folder, or choose another.")
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in arrays.items():
        part, _, key = name.partition("/")
        parts.setdefault(part, {})[key] = torch.tensor(np.asarray(value))
    device = next(trainer.generator.parameters()).device
    trainer.generator.load_state_dict(parts["generator"])
    trainer.critic.load_state_dict(parts["critic"])
    for name, optimizer in _optimizers(trainer).items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in parts.get(name, {}).items():
            number, _, field = key.partition(".")
            state.setdefault(int(number), {})[field] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    trainer.step, trainer.history, trainer.running.steps = facts["step"], facts["history"], facts["running"]
    trainer.running.weights = {name: value.to(device) for name, value in parts.get("running", {}).items()}
    if facts["best"][0] is not None:
        trainer.best.loss, trainer.best.age = facts["best"]
        trainer.best.weights = {name: value.to(device) for name, value in parts["best"].items()}
    return True


def _optimizers(trainer: Any) -> dict[str, torch.optim.Optimizer]:
    return {"optimizer": trainer.optimizer, "critic_optimizer": trainer.critic_optimizer}
