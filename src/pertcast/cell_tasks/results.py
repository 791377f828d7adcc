"""What the finished units of a benchmark of models of cells say together, and the files that keep it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pertcast.cell_tasks.units import CellUnit, Pair, Scored
from pertcast.errors import shorten
from pertcast.io.atomic import atomic_path, write_json
from pertcast.metrics.bootstrap import centred_interval
from pertcast.metrics.calibrated import calibrated
from pertcast.metrics.treated import CARDS, COLUMNS, MEANS
from pertcast.stories.story import Line, Role, Table
from pertcast.types import Floats

JUDGED = "skill DE"  # models are ranked by it
COMPARED = ("skill", JUDGED, "energy distance", "Wasserstein")  # with the best floor of each
NO_CHANGE = "no-change"
NOTE = "Held-out treated cells against predicted ones, log1p of counts per 10,000."
HARM = 1e-9  # of the squared change: a skill this little below 0 is rounding


@dataclass(frozen=True, slots=True)
class Benchmark:
    """All scores: mean, by hold-out, and how sure they are."""

    mean: Table  # over hold-outs, seeds averaged
    parts: tuple[Table, ...]  # one per pair of condition and context, seeds averaged
    intervals: Mapping[str, Mapping[str, tuple[float, float]]]  # label -> column of MEANS -> 95 %, over held-out cells
    spread: Mapping[str, Mapping[str, float]]  # label -> column -> sd over seeds of the mean; only of several seeds
    calibrated: Mapping[str, Mapping[str, float | None]]  # label -> column: 0 no change, 1 ceiling
    harmless: Mapping[str, int]  # label -> pairs whose gene means are no worse than without change
    behind: tuple[str, ...]  # sentences: which model loses to which floor in what
    silent: tuple[str, ...]  # conditions without an effect that can be measured
    remarks: tuple[str, ...]
    rows: tuple[Mapping[str, object], ...]  # every score of every unit, for the CSV
    seconds: Mapping[str, float]  # label -> mean of fit, prediction and scores of a unit; no part of the result

    def as_dict(self) -> dict[str, object]:
        """Return all scores as one object for machines."""
        return {
            "mean": asdict(self.mean), "holdouts": [asdict(table) for table in self.parts],
            "intervals": self.intervals, "seed_sd": self.spread, "calibrated": self.calibrated,
            "harmless_pairs": self.harmless, "pairs": len(self.parts), "below_floors": list(self.behind),
            "no_measurable_effect": list(self.silent), "remarks": [*self.remarks, *self.behind],
            "columns": {card.name: {"reading": card.reading, "better": card.better} for card in CARDS},
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Contestant:
    """All units of one label, in order of pair and seed."""

    label: str
    role: Role
    values: Floats  # (pairs, seeds, columns)
    draws: Floats  # (pairs, seeds, draws, columns of MEANS)

    def mean(self, pair: int | None = None) -> dict[str, float | None]:
        """Scores of one pair or the mean over all; None where no pair has a number."""
        chosen = self.values if pair is None else self.values[[pair]]
        return {name: _mean(chosen[..., j].ravel()) for j, name in enumerate(COLUMNS)}

    def drawn(self) -> Floats:
        """Mean over pairs and seeds of every draw: (draws, columns of MEANS)."""
        return self.draws.mean(axis=(0, 1))


def collected(
    scored: Iterable[tuple[CellUnit, Sequence[Pair], Scored]],
    roles: Mapping[str, Role],
    *,
    silent: Sequence[str],
    remarks: Sequence[str],
) -> Benchmark:
    """Average the units of a benchmark over pairs and seeds, and say how sure the averages are.

    scored  each unit with the pairs (condition, context) that it was scored on
    roles   label -> "model", "floor" or "ceiling"
    silent  conditions without a measurable effect
    """
    scored = list(scored)
    pairs = list(dict.fromkeys(pair for _, held, _ in scored for pair in held))
    everyone = _ranked([_contestant(label, role, scored, pairs) for label, role in roles.items()])
    parts = [_table(f"{pair[0]} in {pair[1]}", everyone, number) for number, pair in enumerate(pairs)]
    took = {one.label: _mean([s.seconds for unit, _, s in scored if unit.label == one.label]) for one in everyone}
    return Benchmark(
        mean=_table(f"Mean over {len(pairs)} hold-outs", everyone),
        parts=tuple(parts),
        intervals={one.label: _intervals(one) for one in everyone if one.role != "ceiling"},
        spread={one.label: _spread(one) for one in everyone if one.values.shape[1] > 1},
        calibrated=_calibrated(everyone),
        harmless={one.label: _harmless(one) for one in everyone if one.role != "ceiling"},
        behind=tuple(_behind(everyone)),
        silent=tuple(silent),
        remarks=(*remarks, *_on_silence(silent, everyone, len(pairs))),
        rows=tuple(_rows(scored, roles)),
        seconds={label: seconds for label, seconds in took.items() if seconds is not None},
    )


def write_results(out: Path, found: Benchmark) -> None:
    """Write benchmark.json, and benchmark.csv with a row per model, pair and seed."""
    import pandas as pd

    write_json(out / "benchmark.json", found.as_dict())
    with atomic_path(out / "benchmark.csv") as draft:
        pd.DataFrame(found.rows).to_csv(draft, index=False)


def _contestant(
    label: str, role: Role, scored: Sequence[tuple[CellUnit, Sequence[Pair], Scored]], pairs: Sequence[Pair]
) -> _Contestant:
    values: dict[Pair, list[list[float]]] = {pair: [] for pair in pairs}
    draws: dict[Pair, list[Floats]] = {pair: [] for pair in pairs}
    for unit, held, found in scored:
        if unit.label == label:
            for pair, scores, drawn in zip(held, found.scores, found.draws, strict=True):
                values[pair].append([scores[name] for name in COLUMNS])
                draws[pair].append(drawn)
    return _Contestant(label, role, np.array(list(values.values())), np.array(list(draws.values())))


def _ranked(everyone: list[_Contestant]) -> list[_Contestant]:
    """Models first, then floors, then the ceiling; the best of each kind first."""
    order = {"model": 0, "floor": 1, "ceiling": 2}
    return sorted(everyone, key=lambda one: (order[one.role], -(one.mean()[JUDGED] or 0.0), one.label))


def _table(title: str, everyone: Sequence[_Contestant], pair: int | None = None) -> Table:
    lines = tuple(Line(one.label, one.role, one.mean(pair)) for one in everyone)
    return Table(title, NOTE, COLUMNS, lines)


def _intervals(one: _Contestant) -> dict[str, tuple[float, float]]:
    means, drawn = one.mean(), one.drawn()
    known = [(j, name) for j, name in enumerate(MEANS) if means[name] is not None and np.isfinite(drawn[:, j]).all()]
    return {name: centred_interval(means[name], drawn[:, j]) for j, name in known}


def _spread(one: _Contestant) -> dict[str, float]:
    by_seed = one.values.mean(axis=0)  # (seeds, columns)
    return {name: float(sd) for name, sd in zip(COLUMNS, by_seed.std(axis=0, ddof=1), strict=True) if np.isfinite(sd)}


def _calibrated(everyone: Sequence[_Contestant]) -> dict[str, dict[str, float | None]]:
    """Place every mean score between no change and the ceiling; nothing where no change was not asked."""
    known = {one.label: one.mean() for one in everyone}
    (ceiling,) = [one.label for one in everyone if one.role == "ceiling"]
    if NO_CHANGE not in known:
        return {}
    return {
        label: {
            card.name: _number(calibrated(
                value=_or_nan(scores[card.name]), floor=_or_nan(known[NO_CHANGE][card.name]),
                ceiling=_or_nan(known[ceiling][card.name]), better=card.better,
            ))
            for card in CARDS
        }
        for label, scores in known.items()
    }  # fmt: skip


def _harmless(one: _Contestant) -> int:
    skill = one.values[:, :, COLUMNS.index("skill")].mean(axis=1)  # 1 less squared error over that of no change
    return int((skill >= -HARM).sum())


def _behind(everyone: Sequence[_Contestant]) -> list[str]:
    """Say in which of COMPARED a model loses to the best floor of that column."""
    floors = [one for one in everyone if one.role == "floor"]
    told = []
    for one in (one for one in everyone if one.role == "model"):
        lost = [text for column in COMPARED if floors and (text := _loss(one, floors, column))]
        if lost:
            told.append(f"{one.label} is behind a floor in {'; '.join(lost)}")
    return told


def _loss(one: _Contestant, floors: Sequence[_Contestant], column: str) -> str | None:
    """Say by how much a model loses, with the paired interval over held-out cells where it is known."""
    (card,) = [card for card in CARDS if card.name == column]
    sign = 1 if card.better == "higher" else -1
    best = max(floors, key=lambda floor: sign * _or_nan(floor.mean()[column]))
    gap = sign * (_or_nan(best.mean()[column]) - _or_nan(one.mean()[column]))
    if not gap > 0:
        return None
    sure = ""
    if column in MEANS:
        drawn = sign * (best.drawn() - one.drawn())[:, MEANS.index(column)]
        sure = ", {:.3f} to {:.3f}".format(*centred_interval(gap, drawn))
    return f"{column} by {gap:.3f} ({best.label}{sure})"


def _on_silence(silent: Sequence[str], everyone: Sequence[_Contestant], pairs: int) -> list[str]:
    if not silent:
        return []
    counts = ", ".join(f"{one.label} {_harmless(one)}" for one in everyone if one.role != "ceiling")
    return [
        f"No measurable effect that contexts share: {shorten(silent, most=20)}. Shifts of their means agree no more "
        "than those between random parts of untreated cells; differences between models say nothing there, and "
        "correlations of change look large only because truth and prediction subtract the same untreated cells.",
        f"No harm done (gene means no worse than without change), of {pairs} pairs: {counts}.",
    ]


def _rows(
    scored: Sequence[tuple[CellUnit, Sequence[Pair], Scored]], roles: Mapping[str, Role]
) -> Iterable[dict[str, object]]:
    for unit, held, found in scored:
        for (condition, context), scores in zip(held, found.scores, strict=True):
            who = {"model": unit.label, "role": roles[unit.label], "condition": condition, "context": context}
            yield {**who, "split": unit.number, "seed": unit.seed, **scores}


def _mean(values: Floats | Sequence[float]) -> float | None:
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
