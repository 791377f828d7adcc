"""Gene means of every group of cells, log1p scale, and references that add a change of them to each cell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array, vstack

from pertcast.cells.log_scale import as_log1p, from_log1p
from pertcast.cells.seen import Seen, fitted, measured_contexts
from pertcast.config import Config
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.types import Cells, Floats, Ints

LEAST_CELLS = 5  # untreated, and treated, of a context that is asked for its shift
BLOCK = 1000  # cells that are held densely at once


@dataclass(frozen=True, slots=True)
class GroupMeans:
    """Mean of log1p(counts per 10,000) of every group of cells of one context and one condition."""

    contexts: tuple[str, ...]
    conditions: tuple[str, ...]  # untreated first
    context: Ints  # (p,)  of each group
    condition: Ints  # (p,)  0: untreated
    cells: Ints  # (p,)  how many
    mean: Floats  # (p, g)

    @classmethod
    def of(cls, cells: Cells) -> GroupMeans:
        """Take the means of all groups that have a cell."""
        contexts, conditions = tuple(sorted(set(cells.context))), (cells.control, *cells.conditions)
        place = ({name: number for number, name in enumerate(names)} for names in (contexts, conditions))
        pair = np.array([[known[name] for name in labels] for known, labels in
                         zip(place, (cells.context, cells.condition), strict=True)])  # fmt: skip
        found, group, count = np.unique(pair, axis=1, return_inverse=True, return_counts=True)
        share = csr_array((1 / count[group], (group, np.arange(len(cells)))), shape=(len(count), len(cells)))
        return cls(contexts, conditions, *found, count, (share @ as_log1p(cells).astype(np.float64)).toarray())

    def centre(self, context: str) -> Floats | None:
        """Mean of the untreated cells of a context: (g,); None where there are none."""
        rows = [p for p in np.flatnonzero(self.condition == 0) if self.contexts[self.context[p]] == context]
        return self.mean[rows[0]] if rows else None

    def measured(self, condition: str) -> tuple[Floats, Floats, Ints]:
        """Where a condition stands beside untreated cells: their means (m, g), what it adds to them (m, g), and cells.

        Contexts count with LEAST_CELLS of both kinds; if no context has so many, all of them. Cells (m,): the fewer of
        the two kinds.
        """
        wanted = self.conditions.index(condition)
        before, after = ({c: p for p, c in enumerate(self.context) if self.condition[p] == n} for n in (0, wanted))
        pairs = [(before[c], after[c]) for c in sorted(set(before) & set(after))]
        enough = [pair for pair in pairs if self.cells[list(pair)].min() >= LEAST_CELLS] or pairs
        untreated, treated = np.array(enough).T
        fewer = np.minimum(self.cells[untreated], self.cells[treated])
        return self.mean[untreated], self.mean[treated] - self.mean[untreated], fewer

    def parts(self) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """Arrays and facts, for saving."""
        arrays = {name: getattr(self, name) for name in ("context", "condition", "cells", "mean")}
        return arrays, {"contexts": self.contexts, "groups": self.conditions}

    @classmethod
    def restored(cls, arrays: dict[str, np.ndarray], facts: dict[str, list]) -> GroupMeans:
        """Rebuild what `parts` gave."""
        return cls(tuple(facts["contexts"]), tuple(facts["groups"]), **arrays)


class LogShift(ABC):
    """Base of references that add a change of gene means to every cell, log1p scale, never below 0.

    A subclass says which change. The place of a cell is the mean of its context's untreated training cells; in a
    context that had none it is the cell's own profile, so that no answer hangs on which other cells are asked about.
    """

    NAME: ClassVar[str]

    def __init__(self, config: Config):
        self.config = config
        self.seen: Seen | None = None
        self.means: GroupMeans | None = None

    def fit(self, cells: Cells, *, seed: int) -> LogShift:  # noqa: ARG002 - nothing is drawn
        """Take the means of all groups. Raises InputError without cells."""
        self.seen = Seen.of(self.NAME, cells, measured_contexts(cells))
        self.means = GroupMeans.of(cells)
        return self

    def predict(self, control_cells: Cells, condition: str, *, seed: int, sample: bool = False) -> Cells:
        """Move these cells; with `sample`, counts are rounded by chance. Raises InputError as `Seen.asked`."""
        cells = fitted(self.seen, self.NAME, "predict").asked(control_cells, condition)
        by_context = {
            name: None if centre is None else self.change(condition, centre[None])
            for name, centre in ((name, self.means.centre(name)) for name in set(cells.context))
        }

        def change(y: Floats, part: Cells) -> Floats:
            found = np.empty(y.shape)
            for name in set(part.context):
                rows = part.context == name
                known = by_context[name]
                found[rows] = self.change(condition, y[rows]) if known is None else known
            return found

        return moved(cells, condition, change, seed=seed if sample else None)

    @abstractmethod
    def change(self, condition: str, profile: Floats) -> Floats:
        """What a condition adds at these places: log values (k, g) -> (k, g), or (1, g) where all get the same."""

    def save(self, folder: Path) -> None:
        seen, (arrays, facts) = fitted(self.seen, self.NAME, "save"), self.means.parts()
        save_arrays(folder, self.NAME, arrays, {**seen.as_dict(), **facts})

    def load(self, folder: Path) -> LogShift:
        arrays, facts = load_arrays(folder, self.NAME)
        self.seen, self.means = Seen.restored(facts), GroupMeans.restored(arrays, facts)
        return self


def moved(cells: Cells, condition: str, change: Callable[[Floats, Cells], Floats], *, seed: int | None) -> Cells:
    """Add to cells on the log1p scale, never below 0, and name them by the condition.

    change  of log values (n, g) and the cells they are of -> (n, g)
    seed    counts are rounded up or down by chance; None: expected counts
    """
    parts, rng = [], None if seed is None else np.random.default_rng(seed)
    for start in range(0, len(cells), BLOCK):
        part = cells.take(np.arange(start, min(start + BLOCK, len(cells))))
        y = as_log1p(part).toarray()
        parts.append(csr_array(from_log1p(np.maximum(y + change(y, part), 0.0), part, rng=rng)))
    return replace(cells, x=csr_array(vstack(parts)), condition=np.full(len(cells), condition, dtype=object))
