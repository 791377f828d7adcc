"""Arrays and facts of a fitted model on disk: safetensors for numbers, JSON for words. Never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pertcast.errors import InputError
from pertcast.io.atomic import atomic_path, write_json
from pertcast.types import Ints

PIECE = 1 << 21  # numbers other than zero that are held at once


def save_arrays(folder: Path, name: str, arrays: Mapping[str, NDArray], facts: Mapping[str, object]) -> None:
    """Write `<name>.safetensors` and `<name>.json` into `folder`, which is created when needed.

    arrays      numbers or booleans of any shape; text belongs to `facts`
    facts       anything JSON can hold
    Same arrays and facts, same bytes, in whatever order they are given.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = save({key: np.asarray(array, order="C") for key, array in arrays.items()})  # sorted by the library
    with atomic_path(folder / f"{name}.safetensors") as temporary:
        temporary.write_bytes(content)
    write_json(folder / f"{name}.json", {"arrays_sha256": hashlib.sha256(content).hexdigest(), "facts": dict(facts)})


def load_arrays(folder: Path, name: str) -> tuple[dict[str, NDArray], dict]:
    """Read what `save_arrays` wrote: the arrays and the facts.

    Raises InputError when a file is missing or damaged, or the two do not belong together.
    """
    about, numbers = Path(folder) / f"{name}.json", Path(folder) / f"{name}.safetensors"
    try:
        saved = json.loads(_content(about))
        digest, facts = saved["arrays_sha256"], saved["facts"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{about}' is damaged: {error}. {_FIX}") from error
    content = _content(numbers)
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"'{numbers}' is damaged: its bytes are not those '{about.name}' knows. {_FIX}")
    try:
        return load(content), facts
    except SafetensorError as error:
        raise InputError(f"'{numbers}' is damaged: {error}. {_FIX}") from error


def row_pieces(ends: Ints, *, most: int | None = None) -> Iterator[slice]:
    """Cut rows, of which `ends` (n + 1,) says where each begins and ends, so that a piece has at most so many numbers.

    A row that has more is a piece of its own.
    """
    most = PIECE if most is None else most
    first, n = 0, len(ends) - 1
    while first < n:
        last = int(np.searchsorted(ends, ends[first] + most, side="right")) - 1
        last = min(max(last, first + 1), n)
        yield slice(first, last)
        first = last


_FIX = "Remove the folder and run the command again; what is finished elsewhere is kept."


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}. {_FIX}") from error
