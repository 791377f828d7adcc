"""The whole state of a GAN's training on disk: numbers as safetensors, the rest as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pertcast.nn.training_state import optimizer_tensors, read_state, restore_optimizer, write_state

NAME = "gan-training"


def save_state(folder: Path, trainer: Any, *, digest: str) -> None:
    """Write networks, optimisers, best and running weights, step and history of a run."""
    parts = {"generator": trainer.generator.state_dict(), "critic": trainer.critic.state_dict()}
    parts |= {"best": trainer.best.weights or {}, "running": trainer.running.weights}
    parts |= {name: optimizer_tensors(optimizer) for name, optimizer in _optimizers(trainer).items()}
    facts = {
        "digest": digest, "step": trainer.step, "history": trainer.history,
        "best": [trainer.best.loss if trainer.best.weights else None, trainer.best.age],
        "running": trainer.running.steps,
    }  # fmt: skip
    write_state(folder, NAME, parts, facts)


def load_state(folder: Path, trainer: Any, *, digest: str) -> bool:
    """Take up what `save_state` wrote, if anything; whether there was something.

    Raises InputError for a checkpoint of other settings, another seed or other cells, and for a damaged one.
    """
    found = read_state(folder, NAME, digest)
    if found is None:
        return False
    (parts, facts), device = found, next(trainer.generator.parameters()).device
    trainer.generator.load_state_dict(parts["generator"])
    trainer.critic.load_state_dict(parts["critic"])
    for name, optimizer in _optimizers(trainer).items():
        restore_optimizer(optimizer, parts.get(name, {}))
    trainer.step, trainer.history, trainer.running.steps = facts["step"], facts["history"], facts["running"]
    trainer.running.weights = {name: value.to(device) for name, value in parts.get("running", {}).items()}
    if facts["best"][0] is not None:
        trainer.best.loss, trainer.best.age = facts["best"]
        trainer.best.weights = {name: value.to(device) for name, value in parts["best"].items()}
    return True


def _optimizers(trainer: Any) -> dict[str, torch.optim.Optimizer]:
    return {"optimizer": trainer.optimizer, "critic_optimizer": trainer.critic_optimizer}
