"""Tell a story by name, and keep it as a folder."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from pertcast.errors import InputError, unknown
from pertcast.io.atomic import write_json
from pertcast.stories.story import Story

NAMES = ("recover", "mechanism", "perturb", "drug", "knows")
LEAST_CELLS = 500  # with fewer, a fifth of them held out says nothing


def tell(name: str, *, seed: int = 0, cells: int | None = None) -> Story:
    """Simulate, fit and compare, as the named story goes.

    cells   how many; default: as published
    Raises InputError for an unknown story or too few cells.
    """
    if name not in NAMES:
        raise InputError(unknown("story", name, NAMES))
    if cells is not None and cells < LEAST_CELLS:
        raise InputError(f"A story needs at least {LEAST_CELLS} cells, got {cells}.")
    telling: Callable[..., Story] = import_module(f"pertcast.stories.{name}").tell
    return telling(seed=seed) if cells is None else telling(seed=seed, cells=cells)


def keep(story: Story, folder: Path) -> Path:
    """Write the tables as JSON into a folder, which is created when needed; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{story.name}.json"
    write_json(path, story.as_dict())
    return path
