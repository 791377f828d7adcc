"""How a condition moves codes, read off for the context that is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pertcast.errors import InputError, unknown
from pertcast.types import Cells, Floats, Strings


@dataclass(frozen=True, slots=True)
class LatentShift:
    """Mean codes of untreated cells per context, and what each condition adds to them where it was measured.

    Every context counts once, however many cells it has, and unpaired cells are all that is needed: means do not ask
    which cell became which (S002-10, R23).
    """

    contexts: tuple[str, ...]  # with untreated cells in training
    centre: Floats  # (c, k)  mean code of their untreated cells
    shifts: Mapping[str, tuple[tuple[str, ...], Floats]]  # condition -> contexts (m,), differences of means (m, k)
    near: bool = True  # contexts that are like the asked one count more; False: all the same, wherever it is asked

    @classmethod
    def of(cls, codes: Floats, cells: Cells, *, near: bool = True) -> LatentShift:
        """Measure the shifts in fitted cells: codes (n, k) and whose they are."""
        centre = {
            context: _mean(codes, cells.untreated & (cells.context == context))
            for context in sorted(set(cells.context[cells.untreated]))
        }
        shifts = {}
        for condition in cells.conditions:
            treated = cells.condition == condition
            measured = tuple(sorted(set(cells.context[treated]) & set(centre)))
            rows = [_mean(codes, treated & (cells.context == context)) - centre[context] for context in measured]
            if rows:
                shifts[condition] = (measured, np.stack(rows))
        empty = np.zeros((0, codes.shape[1]))
        return cls(tuple(centre), np.stack(list(centre.values())) if centre else empty, shifts, near)

    def apply(self, codes: Floats, context: Strings, *, condition: str) -> Floats:
        """Move codes (n, k) of untreated cells of the given contexts (n,) by a condition.

        A context that had no untreated cells in training is where each cell's own code is: no cell's answer hangs on
        which others are asked about.
        """
        if condition not in self.shifts:
            raise InputError(
                f"{unknown('condition', condition, self.shifts)} A condition can be predicted once it was measured "
                "beside untreated cells of some context."
            )
        moved = np.array(codes, float)
        for name in sorted(set(context)):
            rows = context == name
            known = name in self.contexts
            moved[rows] += self.delta(condition, name, self.centre[self.contexts.index(name)] if known else codes[rows])
        return moved

    def delta(self, condition: str, context: str, centre: Floats) -> Floats:
        """Shift of a condition in a context: (k,), or (n, k) for several centres.

        Where the condition was measured in that very context, the shift is that one. Elsewhere contexts whose untreated
        cells lie near weigh more, by a Gaussian kernel as wide as the median distance.
        centre  (k,) or (n, k)  where the untreated cells asked about are
        """
        measured, shifts = self.shifts[condition]
        if not self.near:
            return shifts.mean(axis=0)
        if context in measured:
            return shifts[measured.index(context)]
        known = self.centre[[self.contexts.index(name) for name in measured]]  # (m, k)
        distance = np.square(known - centre[..., None, :]).sum(axis=-1)  # (..., m)
        width = np.maximum(np.median(distance, axis=-1, keepdims=True), 1e-12)
        weight = np.exp(-0.5 * distance / width)
        return weight @ shifts / weight.sum(axis=-1, keepdims=True)

    def parts(self) -> tuple[dict[str, Floats], dict[str, object]]:
        """Arrays and facts, for saving."""
        arrays = {f"shift.{number}": rows for number, (_, rows) in enumerate(self.shifts.values())}
        measured = [[condition, *contexts] for condition, (contexts, _) in self.shifts.items()]
        return {"centre": self.centre, **arrays}, {"contexts": self.contexts, "measured": measured, "near": self.near}

    @classmethod
    def restored(cls, arrays: Mapping[str, Floats], facts: Mapping[str, list]) -> LatentShift:
        """Rebuild what `parts` gave."""
        shifts = {
            condition: (tuple(contexts), arrays[f"shift.{number}"])
            for number, (condition, *contexts) in enumerate(facts["measured"])
        }
        return cls(tuple(facts["contexts"]), arrays["centre"], shifts, facts["near"])


def _mean(codes: Floats, rows: np.ndarray) -> Floats:
    """Mean of rows, the same in whatever order they come, to the last digit that matters."""
    return codes[rows].astype(np.float64).mean(axis=0)
