"""What can be found out before any model is fitted: names, devices, blocks, and places that cannot be written to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pertcast.config import Recipe, load_recipe
from pertcast.errors import InputError, several, shorten, unknown
from pertcast.features.assemble import BLOCKS
from pertcast.features.fitted import check_told
from pertcast.io.atomic import make_folder
from pertcast.runs import Run
from pertcast.scoring import BLEND, FLOORS, ORACLE
from pertcast.types import Question

FORMATS = {"kaggle": ".csv", "openproblems": ".h5ad"}  # and how their files end
DEVICES = ("auto", "cpu", "cuda")


def check_device(device: str) -> None:
    if device not in DEVICES:
        raise InputError(unknown("device", device, DEVICES))
    if device == "cuda":
        from pertcast.nn.fit import choose_device

        choose_device(device)


def check_recipes(recipes: Sequence[Recipe]) -> None:
    """Refuse names that would hide another run or another line of the table, and blocks that do not exist."""
    counts = Counter(recipe.name for recipe in recipes)
    faults = [f"{count} recipes have the name '{name}'" for name, count in counts.items() if count > 1]
    for name, recipe in {recipe.name: recipe for recipe in recipes}.items():
        if name in (BLEND, ORACLE) or (name in FLOORS and name != recipe.model):
            faults.append(f"the name '{name}' stands for something else in the score table")
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            faults.append(f"the name '{name}' is not made of letters, digits, '-', '_' and '.'")
        faults += [unknown("feature block", block, BLOCKS) for block in recipe.features.blocks if block not in BLOCKS]
    if faults:
        raise InputError(several("Recipes", faults, fix="Change `name` or `features.blocks` in the TOML file."))


def is_told(question: Question, recipe: Recipe) -> bool:
    """Whether the data tell all that a recipe reads of untreated cells and of compounds."""
    try:
        check_told(question, recipe.features.blocks)
    except InputError:
        return False
    return True


def check_against(name: str, recipes: Sequence[str], changes: Sequence[str] = ()) -> None:
    """Raise InputError unless a recipe to compare with is one of those that are fitted, or a floor."""
    known = [*(load_recipe(recipe, changes).name for recipe in recipes), *FLOORS]
    if name not in known:
        raise InputError(unknown("recipe to compare with", name, known))


def prepare_place(out: Path, style: str) -> None:
    """Find out before any model is fitted whether the submission can be written where it shall go."""
    if style not in FORMATS:
        raise InputError(unknown("format", style, FORMATS))
    ending = FORMATS[style]
    if not is_folder(out) and out.suffix != ending:
        other = out.with_suffix(ending)
        raise InputError(f"A submission in the form '{style}' must end in '{ending}', got '{out}'. Write to '{other}'.")
    make_folder(out if is_folder(out) else out.parent)


def is_folder(out: Path) -> bool:
    return out.is_dir() or not out.suffix


def told_apart(runs: list[Run]) -> list[Run]:
    """Call runs of the same recipe name by their folders, so that none stands for another."""
    repeated = [f"{path}" for path, count in Counter(run.folder.resolve() for run in runs).items() if count > 1]
    if repeated:
        raise InputError(f"Runs are given more than once: {shorten(repeated)}. Name each once.")
    counts = Counter(run.recipe.name for run in runs)
    return [
        run if counts[run.recipe.name] == 1 else replace(run, recipe=run.recipe.model_copy(update={"name": name}))
        for run, name in ((run, run.folder.resolve().name) for run in runs)
    ]


def placed(recipe: Recipe, device: str) -> Recipe:
    """Say where a recipe's model is trained, if it is one that has a choice."""
    from pertcast.models.registry import entry

    return recipe.on_device(device) if "training" in entry(recipe.model).config.model_fields else recipe
