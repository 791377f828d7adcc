"""What all averaged networks share: how they are trained, where each member starts, how they are kept on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import nn

from pertcast.config import Config, validated
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.nn.encoding import Encoding, under
from pertcast.nn.fit import FitSettings
from pertcast.nn.fit_stack import members_at_once
from pertcast.types import Floats

MEMBER_SEEDS = 1000  # member m of seed s starts from seed 1000 s + m

C = TypeVar("C", bound=Config)


class EmbeddingTraining(FitSettings):
    """Rises fast to a high rate: learned embeddings of rarely seen compounds need it."""

    epochs: int = Field(40, ge=1)
    batch: int = Field(256, ge=1)
    least_batches: int = Field(10, ge=1)
    lr: float = Field(2e-2, gt=0)
    schedule: Literal["constant", "cosine", "one_cycle", "plateau"] = "one_cycle"
    warmup: float = Field(0.2, ge=0, lt=1)


def stacked_seeds(first: int, count: int, *, one: nn.Module, megabytes: int) -> Iterator[list[int]]:
    """Cut the members first, first + 1, ... into stacks within a memory budget: seeds of each stack.

    one   a stack of a single member, to be weighed
    """
    most = members_at_once(sum(p.numel() for p in one.parameters()), megabytes=megabytes)
    for start in range(0, count, most):
        yield [first + member for member in range(start, min(start + most, count))]


def numbered(nets: Sequence[nn.Module]) -> dict[str, nn.Module]:
    """Name networks by their place."""
    return {str(number): net for number, net in enumerate(nets)}


def save_members(
    folder: Path,
    name: str,
    nets: Mapping[str, nn.Module],
    encoding: Encoding,
    config: Config,
    *,
    more: Mapping[str, Floats] | None = None,
) -> None:
    """Write networks by name, what their rows were encoded with, and their settings. `more`: further arrays."""
    states = {f"{label}.{key}": value for label, net in nets.items() for key, value in net.state_dict().items()}
    arrays = {key: value.cpu().numpy() for key, value in states.items()} | encoding.arrays() | dict(more or {})
    save_arrays(folder, name, arrays, {**encoding.facts(), "config": config.model_dump(mode="json")})


def load_members(folder: Path, name: str, config: C) -> tuple[dict[str, Floats], dict[str, Any], C]:
    """Read what `save_members` wrote: arrays, facts and settings. Only the device stays that of `config`."""
    arrays, facts = load_arrays(folder, name)
    facts["config"]["training"]["device"] = config.training.device
    return arrays, facts, validated(type(config), facts["config"], subject=f"Settings in '{folder}'")


def restore_members(nets: Mapping[str, nn.Module], arrays: Mapping[str, Floats]) -> None:
    """Put saved weights into networks just built, by name, and make them ready to predict."""
    for label, net in nets.items():
        net.load_state_dict({key: torch.tensor(value) for key, value in under(label, arrays).items()})
        net.eval()
