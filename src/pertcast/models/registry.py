"""Find models by name. A model is one file of this folder that registers itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar

import pertcast.models
from pertcast.config import Config, validated
from pertcast.errors import InputError, unknown
from pertcast.types import Model

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered model: how to build it, and what a reader should know of it."""

    name: str
    model: type[Model]
    config: type[Config]
    floor: bool  # a score every other model must beat
    seeded: bool  # whether the seed changes anything; if not, one seed is enough
    summary: str  # first line of the class's docstring


_ENTRIES: dict[str, Entry] = {}


def register(
    name: str, *, config: type[Config] = Config, floor: bool = False, seeded: bool = False
) -> Callable[[type[M]], type[M]]:
    """Put a model class under a name. The class takes its config as the only constructor argument."""

    def add(model: type[M]) -> type[M]:
        if name in _ENTRIES and _ENTRIES[name].model.__module__ != model.__module__:
            files = f"{_ENTRIES[name].model.__module__} and {model.__module__}"
            raise InputError(f"Two models are called '{name}': {files}. Rename one.")
        summary = (model.__doc__ or "").strip().split("\n")[0]
        _ENTRIES[name] = Entry(name, model, config, floor, seeded, summary)  # type: ignore[arg-type]
        return model

    return add


def entries() -> dict[str, Entry]:
    """All models, by name, after importing every file of the folder."""
    for module in iter_modules(pertcast.models.__path__):
        import_module(f"pertcast.models.{module.name}")
    return dict(sorted(_ENTRIES.items()))


def entry(name: str) -> Entry:
    known = entries()
    if name not in known:
        raise InputError(unknown("model", name, known))
    return known[name]


def build(name: str, settings: dict[str, Any] | None = None) -> Model:
    """Construct an unfitted model from plain settings; every fault of the settings in one message."""
    found = entry(name)
    return found.model(validated(found.config, settings or {}, subject=f"Settings of model '{name}'"))
