"""Find classes by name: a model is one file of a folder that registers itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar

from pertcast.config import Config, validated
from pertcast.errors import InputError, unknown

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered model: how to build it, and what a reader should know of it."""

    name: str
    model: type[Any]
    config: type[Config]
    floor: bool  # a score every other model must beat
    seeded: bool  # whether the seed changes anything; if not, one seed is enough
    weighted: bool  # whether `fit` reads the weights of training rows
    summary: str  # first line of the class's docstring


@dataclass(frozen=True, slots=True)
class Registry:
    """The models of one folder."""

    kind: str  # what messages call one of them
    package: str  # "pertcast.models"
    found: dict[str, Entry] = field(default_factory=dict)

    def register(
        self,
        name: str,
        *,
        config: type[Config] = Config,
        floor: bool = False,
        seeded: bool = False,
        weighted: bool = False,
    ) -> Callable[[type[M]], type[M]]:
        """Put a model class under a name. The class takes its config as the only constructor argument."""

        def add(model: type[M]) -> type[M]:
            known = self.found.get(name)
            if known and known.model.__module__ != model.__module__:
                files = f"{known.model.__module__} and {model.__module__}"
                raise InputError(f"Two {self.kind}s are called '{name}': {files}. Rename one.")
            summary = (model.__doc__ or "").strip().split("\n")[0]
            self.found[name] = Entry(name, model, config, floor, seeded, weighted, summary)
            return model

        return add

    def entries(self) -> dict[str, Entry]:
        """All models, by name, after importing every file of the folder."""
        for module in iter_modules(import_module(self.package).__path__):
            import_module(f"{self.package}.{module.name}")
        return dict(sorted(self.found.items()))

    def described(self) -> list[dict[str, str]]:
        """Name each model, its kind and what it is."""
        kinds = {True: "floor", False: "model"}
        return [{"name": e.name, "kind": kinds[e.floor], "summary": e.summary} for e in self.entries().values()]

    def entry(self, name: str) -> Entry:
        """Return the model of a name; an unknown one is an InputError that offers the nearest."""
        known = self.entries()
        if name not in known:
            raise InputError(unknown(self.kind, name, known))
        return known[name]

    def build(self, name: str, settings: dict[str, Any] | None = None) -> Any:
        """Construct an unfitted model from plain settings; every fault of the settings in one message."""
        found = self.entry(name)
        return found.model(validated(found.config, settings or {}, subject=f"Settings of {self.kind} '{name}'"))
