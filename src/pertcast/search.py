"""Which fields of a recipe may be tuned, and over which values: `field=low:high[:log]` or `field=x,y,z`.

A model's own space is the file `recipes/search/<model>.toml`, in the same words; a new model joins by adding one.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pertcast.config import Recipe, load_space, set_field, validated
from pertcast.errors import InputError, several, unknown
from pertcast.features.assemble import BLOCKS
from pertcast.features.fitted import wanted_statistics
from pertcast.models.registry import build, entry

if TYPE_CHECKING:
    from optuna import Trial

FORMS = "Expected 'field=low:high', 'field=low:high:log' or 'field=x,y,z', such as settings.width=16:128:log."

DIGITS = 3  # of a number that is searched: more say nothing, and recipes are read


@dataclass(frozen=True, slots=True)
class Dimension:
    """One field and the values it may take: a range of numbers, or a list."""

    field: str  # such as settings.width
    low: int | float = 0
    high: int | float = 0
    log: bool = False  # whether equal ratios count alike
    choices: tuple[str, ...] = ()  # as JSON; empty for a range

    @property
    def corners(self) -> list[Any]:
        """Values that must be allowed for all to be."""
        return [json.loads(choice) for choice in self.choices] or [self.low, self.high]

    def suggest(self, trial: Trial) -> Any:
        """Let a trial choose."""
        if self.choices:
            return json.loads(trial.suggest_categorical(self.field, self.choices))
        if isinstance(self.low, int):
            return trial.suggest_int(self.field, self.low, self.high, log=self.log)
        value = trial.suggest_float(self.field, self.low, self.high, log=self.log)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {"field": self.field, "values": list(self.choices) or [self.low, self.high], "log": self.log}


def make_space(recipe: Recipe, given: Sequence[str] = ()) -> list[Dimension]:
    """Read the space to search: the fields given, or those declared for the recipe's model.

    Raises InputError where a field cannot be read, or its end values are not allowed for this recipe.
    """
    texts = list(given) or [f"{field}={values}" for field, values in load_space(recipe.model).items()]
    if not given and not wanted_statistics(recipe.features):  # then nothing depends on how statistics are made
        texts = [text for text in texts if not text.startswith("features.")]
    if not texts:
        fix = "Name fields with --search, such as --search settings.components=20:200:log."
        raise InputError(f"No fields to tune are declared for model '{recipe.model}'. {fix}")
    space = [parse(text) for text in texts]
    fields = [dimension.field for dimension in space]
    repeated = sorted({field for field in fields if fields.count(field) > 1})
    if repeated:
        raise InputError(f"Fields are given to search more than once: {', '.join(repeated)}. Give each once.")
    for dimension in space:
        for value in dimension.corners:
            changed = with_values(recipe, {dimension.field: value})
            for block in changed.features.blocks:
                if block not in BLOCKS:
                    raise InputError(unknown("feature block", block, BLOCKS))
            build(changed.model, changed.settings)
    return space


def parse(text: str) -> Dimension:
    """Read one field and its values."""
    field, sign, values = (part.strip() for part in text.partition("="))
    if not sign or not field or not values:
        raise InputError(f"Cannot read what to search from '{text}'. {FORMS}")
    if field.split(".")[0] not in ("settings", "features", "space", "degrees_of_freedom"):
        raise InputError(f"Field '{field}' cannot be searched. Name one of the model's settings or of the features.")
    if ":" in values and not values.startswith(("[", '"')):
        return _range(field, values, text)
    choices = _choices(values)
    if len(set(choices)) < 2:
        raise InputError(f"Only one value of '{field}' is given to search: '{text}'. {FORMS}")
    return Dimension(field, choices=choices)


def _range(field: str, values: str, text: str) -> Dimension:
    low, high, *rest = values.split(":")
    numbers = [_value(low), _value(high)]
    if rest not in ([], ["log"]) or not all(type(number) in (int, float) for number in numbers):
        raise InputError(f"Cannot read what to search from '{text}'. {FORMS}")
    if float in map(type, numbers):
        numbers = [float(number) for number in numbers]
    problems = []
    if not numbers[0] < numbers[1]:
        problems.append(f"its low end {low} is not below its high end {high}")
    if rest and numbers[0] <= 0:
        problems.append(f"its low end {low} must be above 0 on a log scale")
    if problems:
        raise InputError(several(f"The range '{text}'", problems, fix=FORMS))
    return Dimension(field, *numbers, log=bool(rest))


def _choices(values: str) -> tuple[str, ...]:
    """Read values as a TOML list, else as words between commas: each as JSON."""
    try:
        found = tomllib.loads(f"v = [{values}]")["v"]
    except tomllib.TOMLDecodeError:
        found = [_value(word.strip()) for word in values.split(",")]
    return tuple(json.dumps(value) for value in found)


def _value(word: str) -> Any:
    try:
        return tomllib.loads(f"v = {word}")["v"]
    except tomllib.TOMLDecodeError:
        return word


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return the recipe with other values of some fields.

    Raises InputError where a field does not exist or a value is not allowed.
    """
    data = recipe.model_dump(mode="json")
    for field, value in values.items():
        set_field(data, field, value)
    return validated(Recipe, data, subject=f"Recipe '{recipe.name}'")


def value_of(recipe: Recipe, field: str) -> Any:
    """Look up what a recipe sets a field to, defaults included; None where the model has no such field."""
    config = validated(entry(recipe.model).config, recipe.settings, subject=f"Settings of model '{recipe.model}'")
    found: Any = {**recipe.model_dump(mode="json"), "settings": config.model_dump(mode="json")}
    for part in field.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
