"""What a reference model notes of its training cells, and how it checks the cells it is asked about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from pertcast.errors import InputError, NotFittedError, unknown
from pertcast.types import Cells


@dataclass(frozen=True, slots=True)
class Seen:
    """Genes, unit and conditions of training, and the model's name for messages."""

    name: str
    genes: tuple[str, ...]
    unit: str
    conditions: tuple[str, ...]  # that can be predicted

    @classmethod
    def of(cls, name: str, cells: Cells, conditions: Iterable[str]) -> Seen:
        """Note what training cells are. Raises InputError where there are none."""
        if not len(cells):
            raise InputError(f"Model '{name}' was given no cells. Give at least one.")
        return cls(name, cells.genes, cells.unit, tuple(conditions))

    @classmethod
    def restored(cls, facts: dict[str, object]) -> Seen:
        """Read what `as_dict` gave."""
        return cls(facts["name"], tuple(facts["genes"]), facts["unit"], tuple(facts["conditions"]))

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def asked(self, cells: Cells, condition: str) -> Cells:
        """Return the cells with the genes of training, in its order.

        Raises InputError for another unit, no cells, genes that are missing, or a condition that training did not show
        beside untreated cells.
        """
        if cells.unit != self.unit:
            fix = "Give the same, or fit again."
            raise InputError(f"Model '{self.name}' was fitted to {self.unit} values, got {cells.unit} values. {fix}")
        if not len(cells):
            raise InputError(f"Model '{self.name}' was given no cells. Give at least one.")
        if condition not in self.conditions:
            need = "It must have been measured beside untreated cells of some context."
            raise InputError(f"{unknown('condition', condition, self.conditions)} {need}")
        return cells.select(self.genes)


def fitted(seen: Seen | None, name: str, verb: str) -> Seen:
    """Refuse to use a model that was never fitted."""
    if seen is None:
        raise NotFittedError(f"Model '{name}' was asked to {verb} before `fit`. Call `fit` or `load` first.")
    return seen


def measured_contexts(cells: Cells) -> dict[str, list[str]]:
    """Return the contexts in which each condition stands beside untreated cells; none: the condition is left out."""
    untreated = set(cells.context[cells.untreated])
    found = {name: sorted(set(cells.context[cells.condition == name]) & untreated) for name in cells.conditions}
    return {name: contexts for name, contexts in found.items() if contexts}
