"""Blend models: weights, scales and row strength are fitted on out-of-fold predictions only.

The blend of a row is `strength[row] * scale[cell type] * sum_m weight_m * prediction_m`, plus what `correction` says
that it leaves over, clipped to the range of the training targets. Weights are non-negative. Scales and strength are
used only where they help on folds that they were not fitted on; and the blend's own score comes from blends for which
all of this was decided without the row's fold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pertcast.correction import BAGS, Known, Said, Trust, fit_correction, trust
from pertcast.diversity import Diversity, diversity
from pertcast.errors import InputError
from pertcast.row_strength import RowStrength, compound_profiles, fit_row_strength, profiles_held_out
from pertcast.types import Floats, Fold, Ints, Predictions, Question, Strings
from pertcast.validation.cross_validate import OutOfFold
from pertcast.weights import Grams, averaged_weights, choose_ways, fit_weights, grams_of, splits, standard_error

MIN_ROWS = 20  # out-of-fold rows below which a cell type gets no scale of its own


@dataclass(frozen=True, slots=True)
class Step:
    """A refinement of a blend, and whether it is used: only if its gain exceeds twice its standard error."""

    name: str
    gain: float  # mean row-wise RMSE that it takes away on folds it was not fitted on
    error: float  # standard error of the gain

    @property
    def used(self) -> bool:
        return self.gain > 2 * self.error

    def text(self) -> str:
        """Say the gain or loss in words."""
        verb = "gains" if self.used else "not used: it would gain" if self.gain >= 0 else "not used: it would lose"
        return f"{self.name} {verb} {abs(self.gain):.4f} +- {self.error:.4f} on other folds"

    def as_dict(self) -> dict[str, object]:
        return {"used": self.used, "gain": self.gain, "standard_error": self.error, "text": self.text()}


@dataclass(frozen=True, slots=True)
class Blend:
    """The weights of a blend: data, kept with the submission."""

    names: tuple[str, ...]
    weights: Floats  # (m,)  non-negative
    scales: dict[str, float]  # by cell type; 1 where not listed
    strength: RowStrength | None = None  # factor of each row; None: 1
    ways: tuple[str, ...] = ()  # how the weights were fitted; of several ways, the average
    tried: dict[str, float] = field(default_factory=dict)  # mean error of every way, on folds it was not fitted on
    steps: tuple[Step, ...] = ()  # scales and strength: what they gain
    trust: Trust | None = None  # how much of a correction, gene by gene, is added; None: there is none

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            "weights": dict(zip(self.names, map(float, self.weights), strict=True)),
            "scale": float(self.weights.sum()),
            "ways": list(self.ways),
            "ways_tried": self.tried,
            "scales": self.scales,
            "row_strength": None if self.strength is None else self.strength.as_dict(),
            "steps": {step.name: step.as_dict() for step in self.steps},
            "correction": None if self.trust is None else self.trust.as_dict(),
        }

    def text(self) -> str:
        """Weights worth naming, largest first, and the scale that they amount to."""
        pairs = sorted(zip(self.weights, self.names, strict=True), reverse=True)
        shares = ", ".join(f"{weight:.2f} {name}" for weight, name in pairs if weight >= 0.005)
        scales = "".join(f", x {scale:.2f} for {cell_type}" for cell_type, scale in self.scales.items())
        how = f"average of {len(self.ways)} ways to weigh" if len(self.ways) > 1 else "".join(self.ways)
        why = "; ".join([how, *self._said()])
        return f"{shares}; sum {self.weights.sum():.2f}{scales} ({why})"

    def report(self) -> str:
        """A small table of the ways tried, and what scales and row strength gain."""
        lines = ["Ways to fit the weights, by error on folds that were not fitted on; the best ones are averaged:"]
        for name, error in self.tried.items():
            lines.append(f"  {error:.4f} {name}" + (" <- used" if name in self.ways else ""))
        return "\n".join([*lines, *(f"{said[0].upper()}{said[1:]}." for said in self._said())])

    def _said(self) -> list[str]:
        return [step.text() for step in self.steps] + ([] if self.trust is None else [self.trust.text()])

    def row_weights(self, grams: Grams, cell_type: Strings) -> Floats:
        """Weights of each row (n, m), scale and strength included."""
        weights = self.weights * self._scale(cell_type)
        if self.strength is not None:
            weights = weights * self.strength.factor(grams.blended(weights))[:, None]
        return weights

    def apply(self, members: dict[str, Floats], cell_type: Strings, *, profiles: Floats) -> Floats:
        """Blend (n, g) predictions.

        profiles  (n, g)  of each row's compound, as `row_strength.compound_profiles` makes them
        """
        total = sum(w * members[name].astype(np.float64) for name, w in zip(self.names, self.weights, strict=True))
        total = total * self._scale(cell_type)
        if self.strength is not None:
            inner = grams_of([total], np.zeros_like(profiles), profiles)
            total = total * self.strength.factor(inner)[:, None]
        return total

    def _scale(self, cell_type: Strings) -> Floats:
        return np.array([self.scales.get(c, 1.0) for c in cell_type])[:, None]  # (n, 1)


def fit_scales(grams: Grams, weights: Floats, cell_type: Strings) -> dict[str, float]:
    """Find each cell type's best factor on top of the weights, for cell types with enough rows."""
    blend = grams.blended(weights)
    names, counts = np.unique(cell_type.astype(str), return_counts=True)
    enough = names[counts >= MIN_ROWS]
    return {str(c): float(fit_weights(blend.take(np.flatnonzero(cell_type == c)))[0]) for c in enough}


def fit_blend(
    names: tuple[str, ...], grams: Grams, *, cell_type: Strings, fold: Ints, target_types: list[str]
) -> tuple[Blend, Floats]:
    """Fit a blend on all rows, and one without each fold.

    cell_type  (n,)  of each out-of-fold row
    fold       (n,)  its fold
    returns    the blend, and for each row the weights (n, m) that were decided and fitted on the other folds: what the
               blend's own honest score is made with
    """
    if not len(fold):
        raise InputError("An ensemble needs out-of-fold rows, got none. Run `pertcast cv` first.")
    rows = Rows(names, grams, cell_type, fold, target_types)
    return _fit(rows), _nested(rows, _fit)


@dataclass(frozen=True, slots=True)
class Rows:
    """Out-of-fold rows that a blend is fitted on."""

    names: tuple[str, ...]
    grams: Grams  # of n rows
    cell_type: Strings  # (n,)
    fold: Ints  # (n,)
    target_types: list[str]

    def take(self, rows: Ints) -> Rows:
        return replace(self, grams=self.grams.take(rows), cell_type=self.cell_type[rows], fold=self.fold[rows])


def _fit(rows: Rows) -> Blend:
    """Choose ways to fit the weights, then add scales and strength if they help on other folds."""
    chosen, tried = choose_ways(rows.grams, rows.fold)

    def plain(some: Rows) -> Blend:
        return Blend(some.names, averaged_weights(some.grams, chosen), {}, ways=chosen)

    def scaled(some: Rows) -> Blend:
        blend = plain(some)
        return replace(blend, scales=fit_scales(some.grams, blend.weights, some.cell_type))

    scales = _step("a scale by cell type", rows, scaled, plain)
    before = scaled if scales.used else plain

    def strengthened(some: Rows) -> Blend:
        blend = before(some)
        inner = some.grams.blended(blend.row_weights(some.grams, some.cell_type))
        return replace(blend, strength=fit_row_strength(inner))

    strength = _step("row strength", rows, strengthened, before)
    blend = (strengthened if strength.used else before)(rows)
    own = {c: s for c, s in blend.scales.items() if c in rows.target_types}
    return replace(blend, scales=own, tried=tried, steps=(scales, strength))


def _step(name: str, rows: Rows, after: Callable[[Rows], Blend], before: Callable[[Rows], Blend]) -> Step:
    """Measure what a refinement gains on folds that it was not fitted on."""
    difference = rows.grams.row_rmse(_nested(rows, before)) - rows.grams.row_rmse(_nested(rows, after))
    return Step(name, float(difference.mean()), standard_error(difference))


def _nested(rows: Rows, fit: Callable[[Rows], Blend]) -> Floats:
    """Weights of each row (n, m) from a blend that was fitted on the other folds."""
    weights = np.empty((len(rows.fold), len(rows.names)))
    for inside, own in splits(rows.fold):
        weights[own] = fit(rows.take(inside)).row_weights(rows.grams.take(own), rows.cell_type[own])
    return weights


@dataclass(frozen=True, slots=True)
class Blended:
    """Blends of a set of members, and what they say."""

    blends: dict[str, Blend]  # "seen" and "unseen": whether training shows the row's compound
    held_out: Floats  # (n, g)  out-of-fold rows, each by weights of the other folds
    test: Floats  # (m, g)
    diversity: Diversity

    def text(self) -> str:
        """Say the weights in words."""
        if len(self.blends) == 1:
            return next(iter(self.blends.values())).text()
        return "; ".join(f"compounds {seen} in training: {blend.text()}" for seen, blend in self.blends.items())

    def report(self) -> str:
        """What a reader who wants to know more is told: ways tried, gains, how different the members are."""
        heads = {seen: f"Compounds {seen} in training. " if len(self.blends) > 1 else "" for seen in self.blends}
        blends = [heads[seen] + blend.report() for seen, blend in self.blends.items()]
        return "\n".join([*blends, self.diversity.text()])


def blend_members(
    question: Question,
    held_out: OutOfFold,
    test: dict[str, Predictions],
    *,
    folds: Sequence[Fold],
    leave_out: tuple[str, ...] = (),
    bags: int = BAGS,
) -> Blended:
    """Fit blends on out-of-fold rows and apply them to the test rows.

    Rows whose compound training never showed are another question: they get weights of their own where enough
    out-of-fold rows ask it too.

    folds       that the out-of-fold rows come from, in their order
    leave_out   members that are no use in a blend, such as zeros
    bags        of trees that learn what the blend leaves over, where there are rows and folds enough; 0: it is left
    """
    names = tuple(name for name in held_out.members if name not in leave_out)
    y = question.y[held_out.rows]
    low, high = question.y.min(0), question.y.max(0)
    seen_test = np.isin(question.test_compound, question.compound)
    nested, asked = np.empty_like(y), np.empty((len(question.test_ids), y.shape[1]), np.float32)
    grams = grams_of([held_out.members[name] for name in names], y, profiles_held_out(question, folds))
    everything = Rows(names, grams, question.cell_type[held_out.rows], held_out.fold, question.target_types)
    blends = {}
    for label, seen in (("seen", True), ("unseen", False)):
        own, wanted = held_out.seen == seen, np.flatnonzero(seen_test == seen)
        if not own.any() and not len(wanted):
            continue
        rows = np.flatnonzero(own) if own.sum() >= MIN_ROWS else np.arange(len(y))
        part = everything.take(rows)
        blend, row_weights = fit_blend(
            names, part.grams, cell_type=part.cell_type, fold=part.fold, target_types=part.target_types
        )
        said = {name: held_out.members[name][rows] for name in names}
        out_of_fold = sum(w[:, None] * said[name] for name, w in zip(names, row_weights.T, strict=True))
        asked_rows = _asked(question, blend, {name: test[name].values[wanted] for name in names}, wanted)
        predicted = asked_rows.blend
        if bags and len(rows) >= MIN_ROWS and len(np.unique(part.fold)) > 1:
            correction, left = fit_correction(
                question, folds, rows=held_out.rows[rows], fold=part.fold, members=said, blend=out_of_fold, bags=bags
            )
            trusted, shares = trust(y[rows], out_of_fold, left, part.fold)
            out_of_fold = out_of_fold + shares[:, None] * left
            if trusted.share:
                predicted = predicted + trusted.share * correction.apply(asked_rows)
            blend = replace(blend, trust=replace(trusted, looks_at=correction.shares()))
        blends[label] = blend
        nested[rows[own[rows]]] = np.clip(out_of_fold, low, high)[own[rows]]
        asked[wanted] = np.clip(predicted, low, high)
    return Blended(blends, nested, asked, diversity(names, grams))


def _asked(question: Question, blend: Blend, members: dict[str, Floats], wanted: Ints) -> Said:
    """What members and their blend say of some of the rows to predict, beside all training rows."""
    everything = np.arange(len(question))
    cell_type, compound = question.test_cell_type[wanted], question.test_compound[wanted]
    blended = blend.apply(members, cell_type, profiles=compound_profiles(question, everything, compound))
    return Said(Known(question, everything), cell_type, compound, members, blended)
