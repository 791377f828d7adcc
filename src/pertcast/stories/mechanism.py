"""Can a gene be told from the others? A mechanistic gene predicted from the genes that its mean is computed from."""

from __future__ import annotations

import numpy as np

from pertcast.cells.gene_regression import GeneRegression, GeneRegressionConfig
from pertcast.metrics.count_fit import fit_zinb
from pertcast.metrics.count_likelihood import CountParameters, zinb_log_likelihood
from pertcast.simulate.base import simulate_base
from pertcast.simulate.cells import SimulatedCells, draw_cells
from pertcast.simulate.planted import add_mechanistic_gene, mechanism_model, with_mechanistic_gene
from pertcast.stories.story import Line, Panel, Series, Story, Table, as_cells
from pertcast.types import Ints

CELLS, GENES, ZERO_SHARE, SIMULATION_SEED = 10_000, 20, 0.8, 42  # the published benchmark
HELD_OUT = 0.2
KINDS = ("polynomial", "hill", "interaction", "threshold")  # beside the published linear one
COLUMNS = ("held-out NLL", "mean MSE", "mean correlation")
NOTE = (
    "Of the mechanistic gene on held-out cells, given the other genes: negative log-likelihood in nats per count "
    "(lower is better), error and correlation of the predicted mean against the true one."
)


def fixture(cells: int = CELLS) -> SimulatedCells:
    """Return the published benchmark: 20 independent genes and a linear mechanistic one, the last column."""
    base = simulate_base(cells, GENES, ZERO_SHARE, seed=SIMULATION_SEED, fixture=True)
    return with_mechanistic_gene(base, add_mechanistic_gene(base.dense, seeds=(43, 11), zero_share=ZERO_SHARE))


def tell(*, seed: int = 0, cells: int = CELLS) -> Story:
    """Compare what can be said of a mechanistic gene, for the published mechanism and for one of every other kind."""
    published, panel = _table("linear, as published", fixture(cells), seed=seed)
    base = simulate_base(1, GENES, ZERO_SHARE, seed=SIMULATION_SEED).model.base
    tables, panels = [published], [panel]
    for number, kind in enumerate(KINDS):
        model = mechanism_model(base, [kind], seed=number)
        table, panel = _table(kind, draw_cells(model, cells // 2, seed=seed), seed=seed)
        tables.append(table)
        panels.append(panel)
    return Story(
        name="mechanism",
        title="A gene told from the others",
        data=f"SIMULATED: {cells:,} cells x {GENES} independent genes and one that follows from them, five mechanisms",
        tables=tuple(tables),
        panels=tuple(panels),
    )


def _table(kind: str, simulated: SimulatedCells, *, seed: int) -> tuple[Table, Panel]:
    counts, target = simulated.dense, simulated.genes[-1]
    order = np.random.default_rng(0).permutation(len(counts))
    held = round(HELD_OUT * len(counts))
    train, test = order[:-held], order[-held:]
    cells = as_cells(counts, simulated.genes)
    model = GeneRegression(GeneRegressionConfig(targets=(target,), indices=_indices(kind)))
    model.fit(cells.take(train), seed=seed)
    found = {
        "one distribution for all cells": fit_zinb(counts[train][:, -1:]).tiled(len(test)),
        "gene regression": model.parameters(cells.take(test)),
        "truth": simulated.take(test).oracle().only(target).parameters,
    }
    roles = ("floor", "model", "ceiling")
    observed, true_mean = counts[test][:, -1:], found["truth"].mean[:, 0]
    lines = tuple(
        Line(name, role, _scores(parameters, observed, true_mean))
        for (name, parameters), role in zip(found.items(), roles, strict=True)
    )
    some = np.argsort(true_mean)[:: max(1, len(true_mean) // 400)]
    series = Series("gene regression", true_mean[some], found["gene regression"].mean[some, 0])
    panel = Panel(f"{kind}: mean in held-out cells", "true mean", "predicted mean", "identity", (series,))
    return Table(f"Mechanism: {kind}", NOTE, COLUMNS, lines), panel


def _indices(kind: str) -> int:
    """One weighted sum carries a linear gene; products and sums of curves need more."""
    return 1 if kind.startswith("linear") else 4


def _scores(parameters: CountParameters, observed: Ints, true_mean: np.ndarray) -> dict[str, float | None]:
    mean = np.asarray(parameters.mean)[:, 0]
    nll = -zinb_log_likelihood(observed, parameters.mean, parameters.dispersion, parameters.zero_inflation).mean()
    scores = [float(nll), float(np.mean((mean - true_mean) ** 2)), None]
    if np.ptp(mean) > 0:
        scores[2] = float(np.corrcoef(mean, true_mean)[0, 1])
    return dict(zip(COLUMNS, scores, strict=True))
