"""What follows when genes of a cell are changed step by step: a path of states, always beside the path without change.

All values are log1p of counts per 10,000, or the log1p values that the cells came with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from pertcast.cells.log_scale import as_log1p
from pertcast.errors import InputError, several, unknown
from pertcast.types import Cells, Floats, Ints, Strings

MODES = ("set", "add", "fold")
MOST_NUMBERS = 300_000_000  # of states held at once: 1.2 GB
FEEDBACK = np.float32(0.5)  # share of what followed so far that further genes follow from
AT_TARGET = 1 - 1e-9  # ten steps of 0.1 are the whole way, whatever their sum is in binary


class VirtualCell(Protocol):
    """A model that says of every gene what the other genes of its cell let expect."""

    genes: tuple[str, ...]

    def describe(self, x: Floats, held: Ints) -> Any:
        """Note of observed cells (n, g) what a trajectory does not change, such as how deeply they were read.

        held  (k,)  columns that are always visible
        """
        ...

    def expected(self, x: Floats, told: Any) -> Floats:
        """Value (n, g) that is expected of every gene of cells x (n, g), told from other genes and never from itself.

        told  of `describe`; its held genes come back as they are
        """
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """One gene and what becomes of it: set to a value (0: knock-out), raised by an amount, or multiplied.

    `set` and `add` are in log1p units; `fold` multiplies expression itself, so that a gene at 0 stays there. Nothing
    falls below 0.
    """

    gene: str
    target: float
    mode: Literal["set", "add", "fold"] = "set"

    def fault(self) -> str | None:
        """Say what is wrong with it, apart from the gene's name."""
        if self.mode not in MODES:
            return f"mode '{self.mode}' of gene '{self.gene}' is none of {', '.join(MODES)}"
        if not np.isfinite(self.target):
            return f"target of gene '{self.gene}' must be a finite number, got {self.target}"
        if self.mode != "add" and self.target < 0:
            return f"target of gene '{self.gene}' must be at least 0, got {self.target:g}; 0 knocks it out"
        return None

    def end(self, x: Floats) -> Floats:
        """Where the gene's values (n,) go: (n,)."""
        if self.mode == "set":
            return np.full_like(x, self.target)
        if self.mode == "add":
            return np.maximum(x + np.float32(self.target), 0)
        return np.log1p(np.float32(self.target) * np.expm1(x))


@dataclass(frozen=True, slots=True)
class Trajectory:
    """States of n cells on the way from what was observed to what follows from the changes, and without them."""

    genes: tuple[str, ...]
    ids: Strings  # (n,)
    steps: Floats  # (s + 1,) share of the way that the changed genes have gone
    perturbed: Floats  # (s + 1, n, g) float32; the first state is the observed cells, imputed where that was asked for
    unperturbed: Floats  # (s + 1, n, g) the same roll-out without any change
    changes: tuple[Change, ...] = ()

    def effect(self) -> Floats:
        """Perturbed less unperturbed states: (s + 1, n, g)."""
        return self.perturbed - self.unperturbed

    def mean(self) -> Trajectory:
        """The mean over cells as a single one, called `mean`."""
        parts = (part.mean(axis=1, keepdims=True) for part in (self.perturbed, self.unperturbed))
        return Trajectory(self.genes, np.array(["mean"], dtype=object), self.steps, *parts, self.changes)

    def summary(self) -> pd.DataFrame:
        """Every gene over all cells at the last state (S001-16): a row per gene, in their order.

        gene, changed, before (mean of the first states), after (before plus effect), effect (mean), sd (of the
        effect over cells), rose and fell (share of cells whose effect is above and below 0)
        """
        effect, before = self.perturbed[-1] - self.unperturbed[-1], self.perturbed[0].mean(axis=0)
        mean, changed = effect.mean(axis=0), {change.gene for change in self.changes}
        return pd.DataFrame(
            {
                "gene": self.genes, "changed": [gene in changed for gene in self.genes], "before": before,
                "after": before + mean, "effect": mean, "sd": effect.std(axis=0), "rose": (effect > 0).mean(axis=0),
                "fell": (effect < 0).mean(axis=0),
            }
        )  # fmt: skip

    def top(self, k: int = 20, *, with_changed: bool = False) -> pd.DataFrame:
        """The k genes that rose most and the k that fell most (S001-14): columns as `summary`, and `direction`.

        with_changed  whether genes that were changed themselves are ranked as well
        Sorted from the largest rise to the deepest fall; genes without effect are not listed.
        """
        table = self.summary()
        table = table[with_changed | ~table["changed"]].sort_values("effect", ascending=False, kind="stable")
        up, down = table[table["effect"] > 0].head(k), table[table["effect"] < 0].tail(k)
        found = pd.concat([up.assign(direction="rose"), down.assign(direction="fell")], ignore_index=True)
        return found[["gene", "direction", *table.columns[1:]]]


def roll_out(
    model: VirtualCell,
    cells: Cells,
    changes: Sequence[Change],
    *,
    steps: int = 20,
    fraction: float | None = None,
    imputed: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Trajectory:
    """Move genes of cells towards their targets, and all other genes after them (S001-07 to -10).

    changes   at least one; each gene once
    steps     states after the first one
    fraction  share of the way that a step takes, above 0 and at most 1; None: half of the steps reach the target. What
              is left of the way after the last whole step is the last move; then changed genes stay, others settle
    imputed   both roll-outs start from the cell whose genes at 0 stand where the model expects them (S001-09);
              a gene to be changed starts there as well. Such a cell is denser than any that the model learned from
    progress  called with (steps done, steps in all)

    A state is the observed cell plus the difference between what the model expects of the genes with the changed genes
    held at their scheduled value, and what it expects of them given the observed cell. So nothing moves unless a gene
    is moved: what the model would change of an untouched cell is subtracted at every step. Genes that followed are read
    at half of their way in the next step: read at the whole of it, two genes that tell each other would raise an error
    of the model's without end. Cells and their order stay as they are. Raises InputError naming all faults at once.
    """
    shares = schedule(steps, fraction)
    columns = _checked(model, cells, changes, steps)
    observed = as_log1p(cells.select(model.genes)).toarray()
    if imputed:
        observed = impute(model, observed)
    held = np.array(columns, dtype=np.int64)
    told = model.describe(observed, held)
    start = observed[:, held]
    end = np.stack([change.end(start[:, i]) for i, change in enumerate(changes)], axis=1)
    expected = model.expected(observed, told)
    paths = []
    for number, goal in enumerate((end, start)):
        states = np.empty((steps + 1, *observed.shape), np.float32)
        states[0] = observed
        for step, share in enumerate(shares[1:], start=1):
            state = observed + FEEDBACK * (states[step - 1] - observed)
            state[:, held] = goal if share == 1 else start + np.float32(share) * (goal - start)
            same = np.array_equal(state, observed)  # then what is expected is known
            moved = 0 if same else model.expected(state, told) - expected
            states[step] = np.maximum(observed + moved, 0)
            states[step][:, held] = state[:, held]
            if progress is not None:
                progress(number * steps + step, 2 * steps)
        paths.append(states)
    return Trajectory(model.genes, cells.ids.copy(), shares, *paths, tuple(changes))


def impute(model: VirtualCell, x: Floats) -> Floats:
    """Put every gene that was observed at 0 where the model expects it: (n, g) -> (n, g), nothing below 0.

    Raises InputError where the model says nothing of such genes.
    """
    said = np.maximum(model.expected(x, model.describe(x, np.array([], dtype=np.int64))), 0)
    filled = np.where(x == 0, said, x).astype(np.float32)
    if (x == 0).any() and np.array_equal(filled, x):
        fix = "Fit one with `--set hiding.zeros=true`, or start from the observed cell."
        raise InputError(f"The model says nothing of genes observed at 0, so none can be imputed. {fix}")
    return filled


def schedule(steps: int, fraction: float | None = None) -> Floats:
    """Share of the way at every state, from 0: (steps + 1,). It never falls, and never passes 1 (R12).

    fraction  of the way that a step takes; None: so much that half of the steps reach the target
    """
    if steps < 1:
        raise InputError(f"A trajectory has at least 1 step, got {steps}.")
    fraction = min(1.0, 2 / steps) if fraction is None else fraction
    if not 0 < fraction <= 1:
        raise InputError(f"A step takes a share of the way above 0 and at most 1, got {fraction:g}.")
    shares = np.arange(steps + 1) * fraction
    return np.where(shares >= AT_TARGET, 1.0, shares)


def _checked(model: VirtualCell, cells: Cells, changes: Sequence[Change], steps: int) -> list[int]:
    """Columns of the changed genes. Raises InputError naming all faults."""
    place = {gene: column for column, gene in enumerate(model.genes)}
    problems = [unknown("gene", change.gene, place) for change in changes if change.gene not in place]
    problems += [fault for change in changes if (fault := change.fault()) is not None]
    names = [change.gene for change in changes]
    problems += [f"gene '{name}' is changed twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if not changes:
        problems.append("no gene is changed; name at least one")
    if not len(cells):
        problems.append("no cell is given; select at least one")
    numbers = 2 * (steps + 1) * len(cells) * len(model.genes)
    if numbers > MOST_NUMBERS:
        most = MOST_NUMBERS // (2 * (steps + 1) * len(model.genes))
        problems.append(f"{len(cells)} cells are too many to hold all states of; take {most} at most, or fewer steps")
    if problems:
        raise InputError(several("Trajectory", problems))
    return [place[name] for name in names]
