"""Models of cells held to contexts whose treated cells they never saw, beside references and a ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from pertcast.cell_runs import Columns
from pertcast.cell_verbs import DEFAULT, read_for
from pertcast.cells.detection import is_detected
from pertcast.cells.log_scale import TOTAL, as_log1p, total_counts
from pertcast.cells.registry import build, entries
from pertcast.cells.variable_genes import variable_genes
from pertcast.errors import InputError, shorten, unknown
from pertcast.io.atomic import write_json
from pertcast.metrics.distribution import energy_distance, variance_ratio, wasserstein, zero_share_error
from pertcast.metrics.structure import r2_of_means, skill_of_means, welch_t
from pertcast.stories.story import Line, Panel, Series, Table
from pertcast.types import Cells, Floats

LEAST_CELLS = 10  # untreated, and treated, of a context that is held out
GENES, TOP, AXES = 2000, 100, 50  # scored genes; of them those that differ most; axes of the energy distance
REFERENCES = ("no-change", "mean-shift", "quantile-map")
CEILING = "half of the truth"
COLUMNS = ("skill", "skill DE", "R2", "energy distance", "Wasserstein", "variance ratio", "zero share error")
NOTE = (
    "Held-out treated cells against predicted ones, log1p of counts per 10,000. Skill: share of the change of gene "
    f"means that is right (1 best, 0 no change), over all genes and over the {TOP} that differ most; R2 of means; "
    f"energy distance over {AXES} principal axes; Wasserstein distance per gene; ratio of variances (1 best); error in "
    "shares of zeros."
)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Scores, hold-out by hold-out."""

    mean: Table
    parts: tuple[Table, ...]
    panel: Panel
    remarks: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Return all scores as one object for machines."""
        return {"mean": asdict(self.mean), "holdouts": [asdict(t) for t in self.parts], "remarks": list(self.remarks)}


def benchmark_cells(
    data: Path,
    columns: Columns,
    *,
    out: Path,
    models: Sequence[str] = (),
    holdouts: Sequence[str] = (),
    conditions: Sequence[str] = (),
    seeds: int = 1,
) -> Benchmark:
    """Hold out the treated cells of one context after another, fit every model on all else, and score it.

    columns     its `context_key` names the contexts
    models      registered names; default: the references and the default model
    holdouts    contexts; default: all with enough cells
    conditions  what was done; default: all
    seeds       fits of each seeded model, whose scores are averaged
    out         folder; `benchmark.json` is written there
    Raises InputError for names that do not exist, or where no context has enough cells of both kinds.
    """
    if columns.context_key is None:
        raise InputError("A benchmark holds out contexts. Name their column with --holdout-key, such as cell_type.")
    cells = read_for(data, columns)
    names = tuple(models) or (*REFERENCES, DEFAULT)
    for name in set(names) - set(entries()):
        raise InputError(unknown("model of cells", name, entries()))
    pairs = _pairs(cells, holdouts, conditions)
    y = as_log1p(cells)
    remarks, parts = list(_effects(y, cells, sorted({condition for condition, _ in pairs}))), []
    for condition, context in pairs:
        parts.append(_hold_out(cells, y, condition, context, names, seeds))
    whole = _averaged(parts)
    found = Benchmark(whole, tuple(parts), _panel(whole), tuple(remarks))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "benchmark.json", found.as_dict())
    return found


def _pairs(cells: Cells, holdouts: Sequence[str], conditions: Sequence[str]) -> list[tuple[str, str]]:
    """Conditions and contexts to hold out."""
    for kind, asked, known in (("context", holdouts, set(cells.context)), ("condition", conditions, cells.conditions)):
        for name in asked:
            if name not in known:
                raise InputError(unknown(kind, name, known))
    pairs = [
        (condition, context)
        for condition in conditions or cells.conditions
        for context in holdouts or sorted(set(cells.context))
        if min(_count(cells, condition, context), _count(cells, cells.control, context)) >= LEAST_CELLS
    ]
    if not pairs:
        counts = shorten(
            f"{name}: {_count(cells, cells.control, name)} untreated" for name in sorted(set(cells.context))
        )
        raise InputError(f"No context has {LEAST_CELLS} untreated and as many treated cells. {counts}.")
    return pairs


def _count(cells: Cells, condition: str, context: str) -> int:
    return int(((cells.condition == condition) & (cells.context == context)).sum())


def _effects(y: csr_array, cells: Cells, conditions: list[str]) -> list[str]:
    """Say of which conditions there is no effect to predict."""
    silent = []
    for condition in conditions:
        rows = [
            (np.flatnonzero(cells.untreated & here), np.flatnonzero((cells.condition == condition) & here))
            for here in (cells.context == name for name in sorted(set(cells.context)))
        ]
        known = [pair for pair in rows if min(map(len, pair)) >= LEAST_CELLS]
        if known and not is_detected(y, [c for c, _ in known], [t for _, t in known], seed=0):
            silent.append(condition)
    if not silent:
        return []
    return [
        f"No measurable effect that contexts share: {shorten(silent, most=20)}. Shifts of their means agree no more "
        "than those between random parts of untreated cells; differences between models say nothing there."
    ]


def _hold_out(cells: Cells, y: csr_array, condition: str, context: str, names: Sequence[str], seeds: int) -> Table:
    held = (cells.condition == condition) & (cells.context == context)
    asked = np.flatnonzero(cells.untreated & (cells.context == context))
    train = cells.take(np.flatnonzero(~held))
    genes = variable_genes(y[np.flatnonzero(~held)], GENES)
    scorer = _Scorer(y[np.flatnonzero(held)][:, genes].toarray(), y[asked][:, genes].toarray())
    control = cells.take(asked)
    lines = []
    for name in names:
        entry = entries()[name]
        rounds = []
        for seed in range(seeds if entry.seeded else 1):
            predicted = build(name).fit(train, seed=seed).predict(control, condition, seed=seed, sample=True)
            rounds.append(scorer.score(_log_of(predicted, control)[:, genes].toarray()))
        scores = {column: float(np.mean([one[column] for one in rounds])) for column in COLUMNS}
        lines.append(Line(name, "floor" if entry.floor else "model", scores))
    lines.append(Line(CEILING, "ceiling", scorer.ceiling()))
    return Table(f"{condition} in {context}", NOTE, COLUMNS, tuple(lines))


def _log_of(predicted: Cells, control: Cells) -> csr_array:
    """Log values of predicted cells, per total of the cell that each was made from."""
    if predicted.unit == "log1p":
        return predicted.x
    x = csr_array(predicted.x, dtype=np.float64)
    x.data = np.log1p(x.data * np.repeat(TOTAL / total_counts(control), np.diff(x.indptr)))
    return x


class _Scorer:
    """Metrics against one set of treated cells: (n, g), with the untreated ones of the same context."""

    def __init__(self, truth: Floats, control: Floats):
        from sklearn.decomposition import PCA

        self.truth, self.control = truth, control
        self.top = np.argsort(-welch_t(truth, control), kind="stable")[:TOP]
        real = np.vstack([truth, control])
        self.axes = PCA(min(AXES, *real.shape), random_state=0).fit(real)

    def score(self, predicted: Floats, truth: Floats | None = None) -> dict[str, float]:
        truth = self.truth if truth is None else truth
        top = {"y_true": truth[:, self.top], "y_pred": predicted[:, self.top], "y_control": self.control[:, self.top]}
        pair = {"y_true": truth, "y_pred": predicted}
        on_axes = {name: self.axes.transform(values) for name, values in pair.items()}
        found = (
            skill_of_means(**pair, y_control=self.control),
            skill_of_means(**top),
            r2_of_means(**pair),
            energy_distance(**on_axes),
            wasserstein(**pair),
            variance_ratio(**pair),
            zero_share_error(**pair),
        )
        return dict(zip(COLUMNS, map(float, found), strict=True))

    def ceiling(self) -> dict[str, float]:
        """One random half of the truth against the other."""
        order = np.random.default_rng(0).permutation(len(self.truth))
        half = len(order) // 2
        return self.score(self.truth[order[:half]], self.truth[order[half:]])


def _averaged(parts: Sequence[Table]) -> Table:
    lines = [
        replace(line, scores={c: float(np.mean([part.lines[i].scores[c] for part in parts])) for c in COLUMNS})
        for i, line in enumerate(parts[0].lines)
    ]
    return Table(f"Mean over {len(parts)} hold-outs", NOTE, COLUMNS, tuple(lines))


def _panel(table: Table) -> Panel:
    """Shape against mean: who is right in both stands at the lower right."""
    series = tuple(
        Series(line.name, np.array([line.scores["skill DE"]]), np.array([line.scores["Wasserstein"]]))
        for line in table.lines
    )
    return Panel(table.title, f"skill on the {TOP} genes that differ most", "Wasserstein per gene", "points", series)
