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

    @classmethod
    def of(cls, codes: Floats, cells: Cells) -> LatentShift:
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
        return cls(tuple(centre), np.stack(list(centre.values())) if centre else empty, shifts)

    def apply(self, codes: Floats, context: Strings, *, condition: str) -> Floats:
        """Move codes (n, k) of untreated cells of the given contexts (n,) by a condition."""
        if condition not in self.shifts:
            raise InputError(
                f"{unknown('condition', condition, self.shifts)} A condition can be predicted once it was measured "
                "beside untreated cells of some context."
            )
        moved = np.array(codes, float)
        for name in sorted(set(context)):
            rows = context == name
            moved[rows] += self.delta(condition, name, codes[rows].mean(axis=0))
        return moved

    def delta(self, condition: str, context: str, centre: Floats) -> Floats:
        """Shift of a condition in a context: (k,).

        Where the condition was measured in that very context, the shift is that one. Elsewhere contexts whose untreated
        cells lie near weigh more, by a Gaussian kernel as wide as the median distance.
        centre  (k,)  mean code of the untreated cells asked about
        """
        measured, shifts = self.shifts[condition]
        if context in measured:
            return shifts[measured.index(context)]
        known = self.centre[[self.contexts.index(name) for name in measured]]  # (m, k)
        distance = np.square(known - centre).sum(axis=1)
        weight = np.exp(-0.5 * distance / max(float(np.median(distance)), 1e-12))
        return weight @ shifts / weight.sum()

    def parts(self) -> tuple[dict[str, Floats], dict[str, object]]:
        """Arrays and facts, for saving."""
        arrays = {f"shift.{number}": rows for number, (_, rows) in enumerate(self.shifts.values())}
        measured = [[condition, *contexts] for condition, (contexts, _) in self.shifts.items()]
        return {"centre": self.centre, **arrays}, {"contexts": self.contexts, "measured": measured}

    @classmethod
    def restored(cls, arrays: Mapping[str, Floats], facts: Mapping[str, list]) -> LatentShift:
        """Rebuild what `parts` gave."""
        shifts = {
            condition: (tuple(contexts), arrays[f"shift.{number}"])
            for number, (condition, *contexts) in enumerate(facts["measured"])
        }
        return cls(tuple(facts["contexts"]), arrays["centre"], shifts)


def _mean(codes: Floats, rows: np.ndarray) -> Floats:
    """Mean of rows, the same in whatever order they come, to the last digit that matters."""
    return codes[rows].astype(np.float64).mean(axis=0)
