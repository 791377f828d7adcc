"""Which cells train and which are held out: by cell, context, condition, or pair of both; and the manifest of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pertcast.errors import InputError, LeakError, shorten, unknown
from pertcast.io.atomic import write_json
from pertcast.types import Cells, Ints, Strings

PARTS = 5
FORMAT = 1  # of the manifest


@dataclass(frozen=True, slots=True)
class CellSplit:
    """One way to hold cells out. Row numbers refer to the cells that were split; cells in neither part are dropped."""

    name: str  # "context-0", ...
    train: Ints  # (n_train,)
    valid: Ints  # (n_valid,)  disjoint from train
    holds_out: str  # what the valid cells share, in words
    ids: Strings  # (n,) of all cells that were split; no id may stand on both sides

    def __post_init__(self) -> None:
        both = np.intersect1d(self.train, self.valid)
        if len(both):
            raise LeakError(f"Split '{self.name}' trains and validates on {len(both)} same cells, first row {both[0]}.")
        if not len(self.train) or not len(self.valid):
            sizes = f"{len(self.train)} cells to train on and {len(self.valid)} to hold out"
            raise InputError(
                f"Split '{self.name}' has {sizes}; both must be at least 1. Use fewer parts or more cells."
            )
        rows = np.concatenate([self.train, self.valid])
        if rows.min() < 0 or rows.max() >= len(self.ids):
            raise InputError(f"Split '{self.name}' names row {rows.max()}, but there are {len(self.ids)} cells.")
        shared = sorted(set(self.ids[self.train]) & set(self.ids[self.valid]))
        if shared:
            fix = "Make cell ids unique, or remove the copies, before splitting."
            raise LeakError(f"Split '{self.name}' has {len(shared)} cell ids on both sides: {shorten(shared)}. {fix}")

    def of(self, cells: Cells) -> tuple[Cells, Cells]:
        """Cut the training and the held-out cells. Raises InputError when these are not the cells that were split."""
        if not np.array_equal(cells.ids, self.ids):
            raise InputError(f"Split '{self.name}' was made of other cells, or in another order. Read it for these.")
        return cells.take(self.train), cells.take(self.valid)


def split_cells(
    strategy: str, cells: Cells, *, seed: int = 0, parts: int = PARTS, keep_untreated: bool = True
) -> list[CellSplit]:
    """Hold cells out by the named strategy: `cell`, `context`, `condition` or `pair`.

    cell        every cell is held out once, at random
    context     all treated cells of some contexts
    condition   all cells of some conditions, never the untreated ones
    pair        all treated cells of some pairs (condition, context)
    parts       into how many splits; a label, where there are fewer labels
    keep_untreated  with `context`: whether untreated cells of a held-out context train all the same, as they are known
                    when its response is asked for; if not, they are held out with the treated ones

    Same seed, same splits, whatever the order of the labels. Raises InputError for an unknown strategy or too few
    labels, LeakError when a cell id would stand on both sides.
    """
    if strategy not in STRATEGIES:
        raise InputError(unknown("way to split cells", strategy, STRATEGIES))
    if parts < 2:
        raise InputError(f"Cells are split into at least 2 parts, got {parts}.")
    labels = STRATEGIES[strategy](cells)  # (n,) None where a cell is never held out
    names = sorted({label for label in labels if label is not None})
    if len(names) < 2:
        found = f"found {len(names)} to hold out: {shorten(names) or 'none'}"
        raise InputError(f"Splits by {strategy} need at least 2 of them with treated cells, {found}.")
    order = np.random.default_rng(seed).permutation(np.array(names, dtype=object))
    splits = []
    for number, held in enumerate(np.array_split(order, min(parts, len(names)))):
        chosen = set(held)
        valid = np.array([label in chosen for label in labels])
        if strategy == "context" and not keep_untreated:
            valid |= np.isin(cells.context, list(chosen))
        said = f"{len(held)} cells" if strategy == "cell" else f"{strategy}: {shorten(sorted(held))}"
        splits.append(_holding(strategy, number, said, valid, cells))
    return splits


def hold_out_contexts(cells: Cells, contexts: Sequence[str]) -> list[CellSplit]:
    """Hold out all treated cells of one context after another: a split per context, in the order given.

    Untreated cells of the context train: they are known when its response is asked for.
    """
    return [
        _holding("context", number, f"context: {name}", ~cells.untreated & (cells.context == name), cells)
        for number, name in enumerate(contexts)
    ]


def rotate_pairs(cells: Cells, conditions: Sequence[str], contexts: Sequence[str]) -> list[CellSplit]:
    """Hold out every pair of a condition and a context once: as many splits as contexts, in each a pair per condition.

    Split k holds out condition i, of the sorted ones, in context (i + k) mod m of the m sorted ones, so that a held-out
    condition is always trained on in all other contexts, and every context trains on other conditions.
    """
    turned, splits = sorted(contexts), []
    for k in range(len(turned)):
        pairs = {condition: turned[(i + k) % len(turned)] for i, condition in enumerate(sorted(conditions))}
        held = np.array([pairs.get(one) == other for one, other in zip(cells.condition, cells.context, strict=True)])
        said = "pair: " + ", ".join(f"{one} / {other}" for one, other in pairs.items())
        splits.append(_holding("pair", k, said, held, cells))
    return splits


def _holding(strategy: str, number: int, said: str, held: NDArray[np.bool_], cells: Cells) -> CellSplit:
    return CellSplit(f"{strategy}-{number}", np.flatnonzero(~held), np.flatnonzero(held), said, cells.ids)


def _by_context(cells: Cells) -> list[str | None]:
    return [None if free else name for free, name in zip(cells.untreated, cells.context, strict=True)]


def _by_condition(cells: Cells) -> list[str | None]:
    return [None if name == cells.control else name for name in cells.condition]


def _by_pair(cells: Cells) -> list[str | None]:
    pairs = zip(cells.condition, cells.context, strict=True)
    return [None if one == cells.control else f"{one} / {other}" for one, other in pairs]


STRATEGIES: dict[str, Callable[[Cells], list[str | None]]] = {
    "cell": lambda cells: list(cells.ids),  # copies of an id stay together
    "context": _by_context,
    "condition": _by_condition,
    "pair": _by_pair,
}


def write_splits(path: Path, splits: Sequence[CellSplit], *, seed: int) -> None:
    """Write splits of the same cells as a JSON manifest: ids of all cells once, row numbers of each part."""
    first = splits[0].ids
    if any(not np.array_equal(split.ids, first) for split in splits):
        raise InputError("Splits of one manifest must be of the same cells in the same order.")
    listed = [
        {"name": s.name, "holds_out": s.holds_out, "train": s.train.tolist(), "valid": s.valid.tolist()} for s in splits
    ]
    write_json(Path(path), {"format": FORMAT, "seed": seed, "ids": [str(name) for name in first], "splits": listed})


def read_splits(path: Path, ids: Strings) -> list[CellSplit]:
    """Read a manifest for cells that may stand in another order; leaks are looked for again.

    ids     (n,)  of the cells at hand; cells that the manifest does not know are in neither part
    Raises InputError when the manifest is damaged or names cells that are not there, LeakError when a split leaks.
    """
    try:
        manifest = json.loads(Path(path).read_text())
        known, listed = manifest["ids"], manifest["splits"]
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
        parts = [(s["name"], s["holds_out"], np.array(s["train"], int), np.array(s["valid"], int)) for s in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"Splits '{path}' cannot be read: {error!r}. Write them again.") from None
    place = {name: row for row, name in enumerate(ids)}
    lost = [name for name in known if name not in place]
    if lost:
        raise InputError(f"Splits '{path}' name {len(lost)} cells that are not in the data: {shorten(lost)}.")
    at = np.array([place[name] for name in known], int)
    return [CellSplit(name, at[train], at[valid], holds_out, ids) for name, holds_out, train, valid in parts]
