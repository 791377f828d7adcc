"""What does a drug do? Treated cells predicted from untreated ones, none of them paired, some of a new population."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pertcast.cells.registry import build
from pertcast.metrics.distribution import evaluate
from pertcast.simulate.base import BaseSettings, simulate_base
from pertcast.simulate.cells import SimulatedCells
from pertcast.simulate.interventions import Do, Perturbed, drug, intervene
from pertcast.simulate.names import gene_names
from pertcast.stories.story import Line, Panel, Role, Series, Story, Table, as_cells
from pertcast.types import CellModel, Cells, Floats

CELLS, GENES, ZERO_SHARE, SIMULATION_SEED = 10_000, 20, 0.8, 42  # the published benchmark
ADDED = 10  # counts, to every gene of every treated cell
HELD_OUT = 0.5  # of untreated and of treated cells
POPULATIONS, FOLD = 4, 3.0  # of the second experiment; what its drug multiplies or divides a gene's mean by
DRUG = "drug"
MINIMUM = "below the least possible"
METRICS = ("mae_of_means", "wasserstein", "energy_distance", "variance_ratio", "zero_share_error")
EFFECTS = "ZINB-VAE with effects, drawn"


@dataclass(frozen=True, slots=True)
class Predictor:
    """Who predicts, and how."""

    name: str
    role: Role
    model: str  # registered
    settings: tuple[tuple[str, bool], ...] = ()
    sample: bool = True  # draw counts; else expected ones


CODES = (("library", False),)  # simulated cells have no library sizes
PREDICTORS = (
    Predictor("no change", "floor", "no-change"),
    Predictor("mean shift", "floor", "mean-shift"),
    Predictor("quantile map", "model", "quantile-map"),
    Predictor("ZINB-VAE, codes shifted, expected", "model", "zinb-vae", CODES, sample=False),
    Predictor("ZINB-VAE, codes shifted, drawn", "model", "zinb-vae", CODES),
    Predictor(EFFECTS, "model", "zinb-vae", (*CODES, ("effects", True))),
)
NOTE = (
    "Predicted against truly treated cells: mean absolute error of gene means, Wasserstein distance per gene and "
    "energy distance in counts, ratio of variances (1 is best), error in the share of zeros."
)


def tell(*, seed: int = 0, cells: int = CELLS) -> Story:
    """Treat some cells, predict others.

    Treated and untreated cells are different cells throughout, as in any experiment. The last part asks about a
    population whose treated cells nobody has seen (S002-12).
    """
    added, shown = _added(cells, seed=seed)
    return Story(
        name="drug",
        title="A drug, predicted",
        data=(
            f"SIMULATED: {cells:,} untreated and as many treated cells x {GENES} independent genes; a drug that adds "
            f"{ADDED} counts to every gene, "
            f"and one that multiplies or divides means by {FOLD:g} in {POPULATIONS} populations"
        ),
        tables=(added, _held_out(cells, seed=seed)),
        panels=(shown,),
        remarks=(
            f"Treated cells of the first drug have at least {ADDED} counts of every gene; '{MINIMUM}' is the share of "
            "predicted counts that are fewer. The quantile map is recommended there: it moves whole distributions, "
            "where a decoder draws from a negative binomial that begins at zero.",
            "Codes of cells with many zeros say little of the cell's population; a shift of codes then carries little "
            "over to a new population. Factors per gene of population and drug do, as the drug's own are factors.",
        ),
    )


def _added(cells: int, *, seed: int) -> tuple[Table, Panel]:
    """Predict the published drug: +10 counts to every gene, zeros included."""
    simulated = simulate_base(2 * cells, GENES, ZERO_SHARE, seed=SIMULATION_SEED, fixture=True)
    parts = np.array_split(np.random.default_rng(seed).permutation(2 * cells), 2)  # never treated, and treated
    controls = [simulated.take(rows) for rows in _cut(parts[0])]
    do = drug(simulated.genes, add=ADDED)
    treated = [_done(simulated.take(rows), do, seed=seed) for rows in _cut(parts[1])]
    train = _cells(controls[0]).join(_treated(treated[0]))
    asked, truth = _cells(controls[1]), treated[1].drawn.astype(float)
    oracle = _done(controls[1], do, seed=seed + 1).drawn.astype(float)
    said = _predictions(train, asked, seed=seed)
    scores = {
        name: {**_scores(values, truth, seed), MINIMUM: float((values < ADDED).mean())} for name, values in said.items()
    }
    scores["truth, on the same untreated cells"] = {**_scores(oracle, truth, seed), MINIMUM: 0.0}
    lines = _lines(scores)
    columns = (*METRICS, MINIMUM)
    return Table(f"A drug that adds {ADDED} counts", NOTE, columns, lines), _panel({**said, "truth": truth})


def _held_out(cells: int, *, seed: int) -> Table:
    """Predict each population's treated cells from the other populations' treated cells: means over populations."""
    settings = BaseSettings(populations=POPULATIONS, changed_share=0.4, clip=True)
    cells = cells // 2
    simulated = simulate_base(cells, GENES, ZERO_SHARE, seed=SIMULATION_SEED, settings=settings)
    genes = gene_names(GENES)
    up, down = genes[: GENES // 4], genes[GENES // 4 : GENES // 2]
    do = Do(scale={**dict.fromkeys(up, FOLD), **dict.fromkeys(down, 1 / FOLD)})
    treat = np.random.default_rng(seed).permutation(cells) < cells // 2
    controls, treated = simulated.take(np.flatnonzero(~treat)), simulated.take(np.flatnonzero(treat))
    done = _done(treated, do, seed=seed)
    rounds: dict[str, list[dict[str, float]]] = {}
    for population in range(POPULATIONS):
        new = treated.context.population == population
        train = _cells(controls).join(_treated(done).take(np.flatnonzero(~new)))
        here = np.flatnonzero(controls.context.population == population)
        asked, truth = _cells(controls).take(here), done.drawn[new].astype(float)
        said = _predictions(train, asked, seed=seed)
        said["truth, on the same untreated cells"] = _done(controls.take(here), do, seed=seed + 1).drawn.astype(float)
        for name, values in said.items():
            rounds.setdefault(name, []).append(_scores(values, truth, seed))
    scores = {
        name: {metric: float(np.mean([one[metric] for one in found])) for metric in METRICS}
        for name, found in rounds.items()
    }
    title = f"A population whose treated cells nobody has seen: mean of {POPULATIONS} hold-outs"
    return Table(title, NOTE, METRICS, _lines(scores))


def _predictions(train: Cells, asked: Cells, *, seed: int) -> dict[str, Floats]:
    """What every predictor says of the treated cells: (n, g) each."""
    fitted: dict[tuple, CellModel] = {}
    said = {}
    for one in PREDICTORS:
        key = (one.model, one.settings)
        if key not in fitted:
            fitted[key] = build(one.model, dict(one.settings)).fit(train, seed=seed)
        predicted = fitted[key].predict(asked, DRUG, seed=seed, sample=one.sample)
        said[one.name] = predicted.x.toarray().astype(float)
    return said


def _scores(values: Floats, truth: Floats, seed: int) -> dict[str, float]:
    scored = evaluate(y_true=truth, y_pred=values, seed=seed).as_dict()
    return {metric: scored[metric] for metric in METRICS}


def _lines(scores: dict[str, dict[str, float]]) -> tuple[Line, ...]:
    roles = {one.name: one.role for one in PREDICTORS}
    return tuple(Line(name, roles.get(name, "ceiling"), values) for name, values in scores.items())


def _cut(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    held = round(HELD_OUT * len(rows))
    return rows[:-held], rows[-held:]


def _done(cells: SimulatedCells, do: Do, *, seed: int) -> Perturbed:
    return intervene(cells.model, cells.dense, do, context=cells.context, seed=seed)


def _cells(simulated: SimulatedCells) -> Cells:
    return as_cells(simulated.dense, simulated.genes, context=simulated.context.population)


def _treated(done: Perturbed) -> Cells:
    first = 10 * len(done.drawn)  # ids apart from those of the untreated cells
    return as_cells(done.drawn, done.oracle.genes, condition=DRUG, context=done.context.population, first=first)


def _panel(said: dict[str, Floats]) -> Panel:
    """Counts of the first gene after the drug, as each predictor has them."""
    x = np.arange(0, 41)
    shown = [name for name in said if "expected" not in name and name != "no change"]
    series = tuple(Series(name, x, (np.round(said[name][:, 0])[:, None] == x).mean(0)) for name in shown)
    return Panel("counts of the first gene in treated cells", "count", "share of cells", "steps", series)
