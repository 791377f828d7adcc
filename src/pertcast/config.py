"""Settings: frozen, complete, refusing what they do not know. A recipe is a short difference from its defaults."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pertcast.errors import InputError, several, unknown

C = TypeVar("C", bound=BaseModel)


class Config(BaseModel):
    """Base of every group of settings: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureConfig(Config):
    """Which feature blocks a recipe's models see, and how they are made."""

    blocks: tuple[str, ...] = ("cell_type", "compound")  # names as `pertcast.features.assemble.BLOCKS` lists them
    components: int = Field(64, ge=1)  # principal scores in which target statistics are taken
    smooth: float = Field(2.0, ge=0)  # pseudo-count of rows that draws a statistic towards the overall one


class Recipe(Config):
    """One named run: a model, its settings, its features, and why it is worth running."""

    name: str
    model: str  # a name of `pertcast models`
    reason: str  # why this difference from the default exists
    source: str = ""  # paper, write-up or system it follows
    space: Literal["response", "t"] = "response"  # what models learn: t-scores are recovered from signed -log10 p
    degrees_of_freedom: float | None = Field(None, gt=0)  # of those t-scores; None takes them as normal
    row_weights: Literal["equal", "reliability"] = "equal"  # whether unreliable training rows count less
    row_noise: Literal["kept", "removed"] = "kept"  # whether training rows are cleaned of what each strays by itself
    features: FeatureConfig = FeatureConfig()
    settings: dict[str, Any] = Field(default_factory=dict)  # fields of the model's own Config that differ

    def on_device(self, device: str) -> Recipe:
        """Return the same recipe, to be trained on `auto`, `cpu` or `cuda`."""
        training = {**self.settings.get("training", {}), "device": device}
        return self.model_copy(update={"settings": {**self.settings, "training": training}})

    def digest(self) -> str:
        """Eight hex digits that name this recipe's content, wherever its file lies and wherever it is trained."""
        content = self.model_dump(mode="json", exclude={"reason", "source"})
        training = content["settings"].get("training", {})
        training.pop("device", None)
        if not training:
            content["settings"].pop("training", None)
        for name, plain in (("row_weights", "equal"), ("row_noise", "kept")):
            if content[name] == plain:
                content.pop(name)  # runs that know nothing of it keep their names
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


class CellRecipe(Config):
    """One named way to fit a model of cells, and why it is worth having."""

    name: str
    model: str  # a name of `pertcast cells models`
    reason: str
    source: str = ""  # paper, write-up or system it follows
    settings: dict[str, Any] = Field(default_factory=dict)  # fields of the model's own Config that differ


class Preset(Config):
    """What `pertcast submission` trains: recipes, how rows are held out, how many seeds."""

    name: str
    reason: str
    recipes: tuple[str, ...]
    unseen: tuple[str, ...] = ()  # further recipes, where compounds are asked for that training never saw
    described: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # recipe -> those that read more than it
    folds: str = "task"
    seeds: int = Field(1, ge=1)  # of each fold
    refit_seeds: int = Field(1, ge=1)  # of the refits on all rows, averaged
    correction_bags: int | None = Field(None, ge=0)  # of trees that learn what the blend leaves over; 0: it is left


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.name.removesuffix(".toml") for path in _files("recipes") if path.name.endswith(".toml"))


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(path.name.removesuffix(".toml") for path in _files("recipes", "presets"))


def load_recipe(name: str, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe by name or by the path of a TOML file, then apply changes such as `settings.width=64`."""
    data = _read(name, recipe_names(), kind="recipe", folder=("recipes",))
    data.setdefault("name", Path(name).stem)
    for change in changes:
        _set(data, change)
    return validated(Recipe, data, subject=f"Recipe '{name}'")


def cell_recipe_names() -> list[str]:
    """Names of the recipes for models of cells that come with the package."""
    return sorted(path.name.removesuffix(".toml") for path in _files("recipes", "cells"))


def load_cell_recipe(name: str, changes: Iterable[str] = (), *, model: str | None = None) -> CellRecipe:
    """Read a recipe for a model of cells by name or TOML file, then change settings, such as `training.epochs=30`.

    model   no file is read: the recipe is this model's defaults
    """
    if model is None:
        data = _read(name, cell_recipe_names(), kind="preset", folder=("recipes", "cells"))
    else:
        data = {"model": model, "reason": "the model's defaults"}
    data.setdefault("name", Path(name).stem)
    for change in changes:
        _set(data.setdefault("settings", {}), change)
    return validated(CellRecipe, data, subject=f"Preset '{name}'")


def load_preset(name: str) -> Preset:
    data = _read(name, preset_names(), kind="preset", folder=("recipes", "presets"))
    return validated(Preset, {"name": Path(name).stem, **data}, subject=f"Preset '{name}'")


def load_space(model: str) -> dict[str, str]:
    """Read which fields of a model's recipes are tuned, and over which values; none where nothing is declared."""
    path = resources.files("pertcast").joinpath("recipes", "search", f"{model}.toml")
    return tomllib.loads(path.read_text())["fields"] if path.is_file() else {}


def recipe_toml(recipe: Recipe) -> str:
    """Write a recipe as the TOML file that `load_recipe` reads: only what differs from defaults."""
    return "\n".join(_toml(recipe.model_dump(mode="json", exclude_defaults=True), ())) + "\n"


def _toml(data: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    """Values first, then a table for each group; TOML writes text, numbers and lists as JSON does."""
    groups = {key: value for key, value in data.items() if isinstance(value, dict)}
    values = {key: value for key, value in data.items() if key not in groups and value is not None}
    lines = [f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    for key, group in groups.items():
        inside = (*path, _key(key))
        lines += ["", f"[{'.'.join(inside)}]", *_toml(group, inside)]
    return lines


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)


def validated(kind: type[C], data: dict[str, Any], *, subject: str) -> C:
    """Build settings from plain data; all faults in one message."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        problems = [f"'{'.'.join(map(str, e['loc']))}': {e['msg']}, got {e['input']!r}" for e in error.errors()]
        fields = ", ".join(kind.model_fields)
        raise InputError(several(subject, problems, fix=f"Known fields: {fields}.")) from None


def _files(*folder: str) -> list[Any]:
    return list(resources.files("pertcast").joinpath(*folder).iterdir())


def _read(name: str, known: list[str], *, kind: str, folder: tuple[str, ...]) -> dict[str, Any]:
    if name in known:
        text = resources.files("pertcast").joinpath(*folder, f"{name}.toml").read_text()
    elif name.endswith(".toml") and Path(name).is_file():
        text = Path(name).read_text()
    else:
        raise InputError(unknown(kind, name, known) + f" Or give the path of a {kind}'s TOML file.")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{kind.capitalize()} '{name}' is not valid TOML: {error}.") from None


def _set(data: dict[str, Any], change: str) -> None:
    """Apply `a.b=3` to nested data; values are TOML values, bare words are text, no value at all is None."""
    path, sign, value = change.partition("=")
    if not sign or not path:
        raise InputError(f"Cannot read the change '{change}'. Expected 'group.field=value', such as settings.width=64.")
    if not value.strip():
        set_field(data, path.strip(), None)
        return
    try:
        set_field(data, path.strip(), tomllib.loads(f"v = {value}")["v"])
    except tomllib.TOMLDecodeError:
        set_field(data, path.strip(), value.strip())


def set_field(data: dict[str, Any], path: str, value: Any) -> None:
    """Set `a.b` of nested data."""
    *groups, last = path.split(".")
    for group in groups:
        data = data.setdefault(group, {})
        if not isinstance(data, dict):
            raise InputError(f"Cannot set '{path}': '{group}' is a single value, not a group of settings.")
    data[last] = value
