"""How the mean of a gene follows from other genes: one small class per kind of mechanism, each of them plain numbers.

A mechanism is called with the values of its parents (n, p) and gives the mean (n,) of the gene's counts before zero
inflation. It stands in a file as `as_dict`, and comes back by `mechanism_from_dict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar, Protocol

import numpy as np

from pertcast.errors import InputError, unknown
from pertcast.types import Floats

Numbers = tuple[float, ...]
MOST = 1e9  # larger means are no counts that anything measures, and their draws overflow
CANCELLED = 0.01  # weights whose sum is less than this share of their absolute sum leave no average


class Mechanism(Protocol):
    """Anything with a kind, a number of parents and a mean."""

    kind: ClassVar[str]

    @property
    def n_parents(self) -> int: ...

    def mean(self, parents: Floats, time: Floats | None = None) -> Floats: ...  # (n, p), (n,) -> (n,)


@dataclass(frozen=True, slots=True)
class Linear:
    """max(floor, intercept + sum of w_j x_j)."""

    kind: ClassVar[str] = "linear"
    weights: Numbers  # (p,)
    intercept: float = 0.0
    floor: float = 0.1  # a mean must stay above 0

    @property
    def n_parents(self) -> int:
        return len(self.weights)

    def mean(self, parents: Floats, time: Floats | None = None) -> Floats:
        return np.maximum(self.floor, self.intercept + parents @ np.array(self.weights))


@dataclass(frozen=True, slots=True)
class Polynomial:
    """max(floor, intercept + sum over parents j and powers d of c_jd x_j^d)."""

    kind: ClassVar[str] = "polynomial"
    coefficients: tuple[Numbers, ...]  # (p, degree): of x, x^2, ... of each parent
    intercept: float = 0.0
    floor: float = 0.1

    @property
    def n_parents(self) -> int:
        return len(self.coefficients)

    def mean(self, parents: Floats, time: Floats | None = None) -> Floats:
        table = np.array(self.coefficients)
        terms = sum(parents ** (d + 1) @ table[:, d] for d in range(table.shape[1]))
        return np.maximum(self.floor, self.intercept + terms)


@dataclass(frozen=True, slots=True)
class Hill:
    """Saturating: base + most * s^h / (half^h + s^h), with s = max(0, sum of w_j x_j)."""

    kind: ClassVar[str] = "hill"
    weights: Numbers  # (p,)
    most: float  # what is added where s is large
    half: float  # s at which half of it is reached; > 0
    exponent: float = 2.0  # h > 0: how steep
    base: float = 0.1

    @property
    def n_parents(self) -> int:
        return len(self.weights)

    def mean(self, parents: Floats, time: Floats | None = None) -> Floats:
        ratio = np.maximum(0, parents @ np.array(self.weights)) / self.half
        with np.errstate(divide="ignore"):  # at 0 the inverse power is infinite and the share 0
            return self.base + self.most / (1 + ratio**-self.exponent)


@dataclass(frozen=True, slots=True)
class Interaction:
    """max(floor, intercept + sum of w_j x_j + sum over pairs of w_ij x_i x_j)."""

    kind: ClassVar[str] = "interaction"
    weights: Numbers  # (p,)
    pairs: tuple[tuple[int, int, float], ...]  # positions of two parents, and the weight of their product
    intercept: float = 0.0
    floor: float = 0.1

    @property
    def n_parents(self) -> int:
        return len(self.weights)

    def mean(self, parents: Floats, time: Floats | None = None) -> Floats:
        products = sum(w * parents[:, int(i)] * parents[:, int(j)] for i, j, w in self.pairs)
        return np.maximum(self.floor, self.intercept + parents @ np.array(self.weights) + products)


@dataclass(frozen=True, slots=True)
class Threshold:
    """`high` where the sum of w_j x_j is above `cut`, else `low`."""

    kind: ClassVar[str] = "threshold"
    weights: Numbers  # (p,)
    cut: float
    low: float = 0.1
    high: float = 10.0

    @property
    def n_parents(self) -> int:
        return len(self.weights)

    def mean(self, parents: Floats, time: Floats | None = None) -> Floats:
        return np.where(parents @ np.array(self.weights) > self.cut, self.high, self.low)


@dataclass(frozen=True, slots=True)
class TimeDependent:
    """max(floor, (x_1 + x_2^2) * w * t): two parents and the time of the cell."""

    kind: ClassVar[str] = "time"
    weight: float
    floor: float = 0.1

    @property
    def n_parents(self) -> int:
        return 2

    def mean(self, parents: Floats, time: Floats | None = None) -> Floats:
        if time is None:
            raise InputError("A time-dependent mechanism needs the time of every cell. Give `time`.")
        return np.maximum(self.floor, (parents[:, 0] + parents[:, 1] ** 2) * self.weight * time)


@dataclass(frozen=True, slots=True)
class WeightedDispersion:
    """A dispersion that varies with the parents: max(floor, weighted average of their values)."""

    weights: Numbers  # (p,)
    floor: float = 0.1

    def __post_init__(self) -> None:
        total, absolute = sum(self.weights), sum(map(abs, self.weights))
        if abs(total) <= CANCELLED * absolute:
            raise InputError(
                f"Weights of the dispersion cancel: they sum to {total:.3g}, their absolute values to {absolute:.3g}, "
                "so their average is not defined. Take another seed or other weights."
            )

    def values(self, parents: Floats) -> Floats:
        """(n, p) -> (n,)."""
        weights = np.array(self.weights)
        return np.maximum(self.floor, parents @ weights / weights.sum())


KINDS: dict[str, type] = {kind.kind: kind for kind in (Linear, Polynomial, Hill, Interaction, Threshold, TimeDependent)}


def mechanism_as_dict(mechanism: Mechanism) -> dict[str, object]:
    """Return a mechanism in the form of JSON."""
    return {"kind": mechanism.kind, **asdict(mechanism)}


def mechanism_from_dict(facts: Mapping[str, object]) -> Mechanism:
    """Read what `mechanism_as_dict` gave. Raises InputError for an unknown kind, TypeError for unknown fields."""
    fields = {name: _tuples(value) for name, value in facts.items() if name != "kind"}
    if facts["kind"] not in KINDS:
        raise InputError(unknown("kind of mechanism", str(facts["kind"]), KINDS))
    return KINDS[facts["kind"]](**fields)


def mechanism_faults(mechanism: Mechanism) -> list[str]:
    """Say what is wrong with the numbers of a mechanism: not finite, out of range, of the wrong shape."""
    faults = []
    try:
        numbers = np.concatenate([np.ravel(np.array(value, float)) for value in asdict(mechanism).values()])
    except ValueError:
        return ["its parents have unequal numbers of coefficients"]
    if not np.isfinite(numbers).all():
        faults.append("its numbers must be finite")
    if getattr(mechanism, "floor", 0) < 0:
        faults.append(f"its floor must be at least 0, got {mechanism.floor}")
    if isinstance(mechanism, Hill) and not (mechanism.half > 0 and mechanism.exponent > 0):
        faults.append(f"half and exponent must be above 0, got {mechanism.half} and {mechanism.exponent}")
    if isinstance(mechanism, Interaction):
        outside = [(i, j) for i, j, _ in mechanism.pairs if not (0 <= min(i, j) and max(i, j) < mechanism.n_parents)]
        faults += [f"its pair {pair} names a parent beyond the {mechanism.n_parents}" for pair in outside]
    return faults


def checked_mean(name: str, mean: Floats) -> Floats:
    """Raise InputError where a mechanism gives a mean (n,) that counts cannot have."""
    if not (np.isfinite(mean) & (mean >= 0) & (mean <= MOST)).all():
        worst = mean[np.argmax(np.where(np.isfinite(mean), np.abs(mean), np.inf))]
        raise InputError(f"Gene '{name}': its mechanism gives a mean of {worst:g}; it must lie between 0 and {MOST:g}. "
                         "Choose smaller weights, or a floor above 0.")  # fmt: skip
    return mean


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
