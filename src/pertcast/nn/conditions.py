"""What was done to a cell as numbers: several factors at once, doses and times, and vectors that describe a factor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pertcast.errors import InputError, several, shorten, unknown
from pertcast.types import Floats


@dataclass(frozen=True, slots=True)
class ConditionSpace:
    """Maps the name of a condition to a code: (c,) float32.

    `A` is a factor, `A+B` two at once, `A@0.5` a factor with a dose, a time or any other number. The control is 0
    everywhere. A factor's code is its own unit vector, or the vector it is described by; with a number v, the vector
    stands there twice, as it is and times v / scale, or times log(1 + v) / log(1 + scale) for doses and times whose
    effect levels off. Codes of factors given together add up.
    """

    control: str
    factors: tuple[str, ...]
    vectors: Floats  # (f, d)
    scale: float | None  # largest number of any factor in training; None where no condition has a number
    described: bool = False  # factors have vectors of their own: new ones need one too
    log: bool = False  # numbers count by their logarithm

    @classmethod
    def of(
        cls, conditions: Iterable[str], *, control: str, vectors: Mapping[str, Floats] | None = None, log: bool = False
    ) -> ConditionSpace:
        """Learn the factors of conditions.

        vectors  factor -> (d,)  such as a compound's fingerprint; must name every factor, and may name further ones
        Raises InputError for numbers that are not finite and for factors without a vector.
        """
        parts = [part for name in sorted(set(conditions) - {control}) for part in _parts(name)]
        numbers = [abs(number) for _, number in parts if number is not None]
        scale = (max(numbers) or 1.0) if numbers else None
        seen = sorted({factor for factor, _ in parts})
        if not vectors:
            return cls(control, tuple(seen), np.eye(len(seen), dtype=np.float32), scale, log=log)
        lacking = [factor for factor in seen if factor not in vectors]
        widths = sorted({np.shape(vector) for vector in vectors.values()})
        problems = [f"no vector for {shorten(lacking)}"] if lacking else []
        if len(widths) > 1 or len(widths[0]) != 1:
            problems.append(f"vectors must be of one length, found shapes {shorten(widths)}")
        if problems:
            raise InputError(several("Vectors of conditions", problems))
        every = tuple(sorted(vectors))
        return cls(control, every, np.stack([vectors[name] for name in every]).astype(np.float32), scale, True, log)

    @property
    def width(self) -> int:
        """Numbers of a code; at least 1, so that a network can be built where nothing was done."""
        return max(1, self.vectors.shape[1] * (1 if self.scale is None else 2))

    def code(self, condition: str) -> Floats:
        """Code of one condition: (c,). Raises InputError for a factor that is not known."""
        d = self.vectors.shape[1]
        code = np.zeros(self.width, np.float32)
        if condition == self.control:
            return code
        for factor, number in _parts(condition):
            if factor not in self.factors:
                how = " Describe it by a vector before `fit`." if self.described else ""
                raise InputError(unknown("condition", factor, self.factors) + how)
            if number is not None and self.scale is None:
                raise InputError(f"Condition '{condition}' has a number, but no condition of the training cells had.")
            vector = self.vectors[self.factors.index(factor)]
            code[:d] += vector
            if number is not None:
                code[d:] += vector * np.float32(self._size(number) / self._size(self.scale))
        return code

    def _size(self, number: float) -> float:
        return float(np.sign(number) * np.log1p(abs(number))) if self.log else number

    def table(self, conditions: Iterable[str]) -> Floats:
        """Codes of conditions, one a row: (k, c)."""
        return np.stack([self.code(name) for name in conditions])

    def parts(self) -> tuple[dict[str, Floats], dict[str, object]]:
        """Arrays and facts, for saving."""
        facts = {
            "control": self.control,
            "factors": self.factors,
            "scale": self.scale,
            "described": self.described,
            "log": self.log,
        }
        return {"condition_vectors": self.vectors}, facts

    @classmethod
    def restored(cls, arrays: Mapping[str, Floats], facts: Mapping[str, object]) -> ConditionSpace:
        """Rebuild what `parts` gave."""
        return cls(vectors=arrays["condition_vectors"], **{**facts, "factors": tuple(facts["factors"])})


def other_condition(condition: Tensor, count: int) -> Tensor:
    """Draw for every cell a condition that is not its own, uniformly over the others: (n,) -> (n,) int64.

    condition  (n,) int64  row of a table of `count` distinct conditions, of whatever kind their codes are
    Raises InputError where there is no other.
    """
    if count < 2:
        raise InputError(f"No other condition can be drawn from {count}. Give cells of at least 2 conditions.")
    return (condition + torch.randint(1, count, condition.shape, device=condition.device)) % count


def other_code(code: Tensor, table: Tensor) -> Tensor:
    """Draw for every cell a code that is not its own, uniformly over the other rows: (n, c), (k, c) -> (n, c).

    code   rows of `table`: one-hot, several factors at once, or with doses and times (R36)
    Raises InputError for a code that is no row of the table, and where there is no other.
    """
    same = (code[:, None] == table).all(dim=2)  # (n, k)
    if not bool(same.any(dim=1).all()):
        lost = int((~same.any(dim=1)).sum())
        raise InputError(f"{lost} of {len(code)} codes are no row of the table of conditions. Encode both alike.")
    return table[other_condition(same.int().argmax(dim=1), len(table))]


def _parts(condition: str) -> list[tuple[str, float | None]]:
    """Factors of a condition, each with its number: `A+B@2` is A, and B at 2; `CD4+` and `a@home` are plain names."""
    names = condition.split("+")
    return [_number(part) for part in (names if all(names) else [condition])]


def _number(part: str) -> tuple[str, float | None]:
    factor, sign, number = part.rpartition("@")
    try:
        value = float(number) if sign and factor else None
    except ValueError:
        value = None
    if value is None:
        return part, None
    if not np.isfinite(value):
        raise InputError(f"Condition '{part}' cannot be read: what follows '@' must be finite, as in 'drug@0.5'.")
    return factor, value
