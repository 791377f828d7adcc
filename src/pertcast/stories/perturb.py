"""What follows when a gene is turned up? Curves of a mechanistic gene, predicted for cells that nobody measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import spearmanr

from pertcast.cells.gene_regression import GeneRegression, GeneRegressionConfig
from pertcast.cells.zinb_vae import ZinbVae, ZinbVaeConfig
from pertcast.metrics.distribution import evaluate
from pertcast.simulate.cells import SimulatedCells
from pertcast.simulate.interventions import (
    Do,
    Levels,
    Perturbed,
    default_target,
    intervene,
    perturbation_grid,
)
from pertcast.stories.mechanism import CELLS, GENES, HELD_OUT, fixture
from pertcast.stories.story import Line, Panel, Role, Series, Story, Table, as_cells
from pertcast.types import Cells, Floats

SHOWN = 1  # gene of the published curve
REFERENCES = 10  # held-out cells that every gene is turned up in; the first is the published one
PAIR = Levels(0, 30, 10)  # of each of two genes, together
SET_TO = 20  # of the shown gene, in many cells at once
ROLES: dict[str, Role] = {
    "no change: its own old count": "floor",
    "mean of the training cells": "floor",
    "ZINB-VAE, which sees the old count": "model",
    "gene regression": "model",
}


def tell(*, seed: int = 0, cells: int = CELLS) -> Story:
    """Turn genes up from 0 to 29 in held-out cells, and compare predicted means with the recomputed truth.

    The cells whose genes are turned up are never trained on. The old count of the mechanistic gene is no longer true
    after an intervention: models that read it are said to.
    """
    simulated = fixture(cells)
    held = round(HELD_OUT * cells)  # the first ones, so that the published reference cell is among them
    trained = as_cells(simulated.dense[held:], simulated.genes, first=held)
    target = simulated.genes[-1]
    models = _Models(
        GeneRegression(GeneRegressionConfig(targets=(target,))).fit(trained, seed=seed),
        ZinbVae(ZinbVaeConfig(library=False)).fit(trained, seed=seed),
        float(trained.x[:, [-1]].toarray().mean()),
    )
    named = {f"{simulated.genes[SHOWN]}, as published": SHOWN, f"{simulated.genes[0]}, the first": 0}
    for effect in ("suppress", "activate"):
        gene = default_target(simulated.model, effect)
        named[f"{gene}, to {effect}"] = simulated.genes.index(gene)
    curves = {who: _grid(simulated, {gene: Levels()}, range(REFERENCES)) for who, gene in named.items()}
    pair = _grid(simulated, {SHOWN: PAIR, 0: PAIR}, range(REFERENCES))
    return Story(
        name="perturb",
        title="A gene turned up, and what follows",
        data=f"SIMULATED: {cells:,} cells x {GENES} independent genes and a linear one; curves in held-out cells",
        tables=(
            _published(curves, models),
            _errors({**curves, "two genes on a grid": pair}, models),
            _distributions(simulated, held, models, seed=seed),
        ),
        panels=tuple(_panel(who, grid, models) for who, grid in curves.items()),
        remarks=(
            "Means are those before zero inflation. The truth is recomputed through the mechanism for every cell.",
            "Noise of its own makes the mechanistic gene vary around its curve; no predictor of a mean can know that.",
        ),
    )


class _Models:
    """Everyone who says something of the mechanistic gene in changed cells."""

    def __init__(self, regression: GeneRegression, vae: ZinbVae, mean: float):
        self.regression, self.vae, self.mean = regression, vae, mean

    def curves(self, changed: Perturbed, old: Floats) -> dict[str, Floats]:
        """Mean before zero inflation of the mechanistic gene, by predictor: (n,) each; `old` are its old counts."""
        stale = _with_last(changed, old)
        said = (
            old,
            np.full(len(old), self.mean),
            self.vae.parameters(stale).mean[:, -1],
            self.regression.parameters(_with_last(changed, np.zeros(len(old)))).mean[:, 0],
        )
        return dict(zip(ROLES, said, strict=True))


def _with_last(changed: Perturbed, values: Floats) -> Cells:
    """Changed cells with these counts of the mechanistic gene, which is masked in them: (n, g)."""
    counts = np.column_stack([changed.counts[:, :-1], values])
    return as_cells(counts, changed.oracle.genes)


def _grid(simulated: SimulatedCells, levels: Mapping[int, Levels], references: range) -> tuple[Perturbed, Floats]:
    """Perturbed copies of the reference cells, and the old counts of the mechanistic gene in them."""
    changed = perturbation_grid(simulated.model, simulated.dense[list(references)], levels, references=references)
    return changed, simulated.dense[changed.source, -1].astype(float)


def _truth(changed: Perturbed) -> Floats:
    return changed.curve(changed.oracle.genes[-1])


def _published(curves: Mapping[str, tuple[Perturbed, Floats]], models: _Models) -> Table:
    """The published question: one gene, one cell, 30 values."""
    who, (changed, old) = next(iter(curves.items()))
    first = changed.source == 0
    truth = _truth(changed)[first]
    flat = truth == truth.min()
    columns = ("curve MSE", "Spearman", "mean where flat", "mean at the end")
    lines = []
    for name, curve in {**models.curves(changed, old), "truth": _truth(changed)}.items():
        values = curve[first]
        rank = float(spearmanr(values, truth).statistic) if np.ptp(values) > 0 else None
        scores = (float(np.mean((values - truth) ** 2)), rank, float(values[flat].mean()), float(values[-1]))
        lines.append(Line(name, ROLES.get(name, "ceiling"), dict(zip(columns, scores, strict=True))))
    note = (
        "Predicted means against the true ones (error: lower is better; rank correlation: 1 is best), and what is said "
        "where the truth is flat and at the last value. System 002's own model, read correctly: error 3.256."
    )
    return Table(f"One cell, {who}", note, columns, tuple(lines))


def _errors(grids: Mapping[str, tuple[Perturbed, Floats]], models: _Models) -> Table:
    """Mean squared error over ten cells, for every gene that is turned up."""
    scores: dict[str, dict[str, float]] = {name: {} for name in ROLES}
    for who, (changed, old) in grids.items():
        truth = _truth(changed)
        for name, curve in models.curves(changed, old).items():
            scores[name][who] = float(np.mean((curve - truth) ** 2))
    lines = tuple(Line(name, ROLES[name], values) for name, values in scores.items())
    note = f"Mean squared error of predicted means over {REFERENCES} held-out cells and all values. Lower is better."
    return Table("Several genes, several cells", note, tuple(grids), lines)


def _distributions(simulated: SimulatedCells, held: int, models: _Models, *, seed: int) -> Table:
    """Whole distributions of the mechanistic gene when one gene is set to one value in all held-out cells."""
    before = simulated.take(slice(held))
    gene = simulated.genes[SHOWN]
    done = intervene(simulated.model, before.dense, Do(set={gene: SET_TO}), context=before.context, seed=seed)
    again = intervene(simulated.model, before.dense, Do(set={gene: SET_TO}), context=before.context, seed=seed + 1)
    controls = as_cells(before.dense, simulated.genes)
    condition = f"{gene}={SET_TO}"
    stale = replace(
        controls, x=csr_array(np.column_stack([done.counts[:, :-1], before.dense[:, -1]]), dtype=np.float32)
    )
    old = before.dense[:, -1:].astype(float)
    shift = np.maximum(old + (models.mean - old.mean()), 0)
    said: dict[str, tuple[Role, Floats]] = {
        "no change": ("floor", old),
        "shifted to the training mean": ("floor", shift),
        "ZINB-VAE, drawn": ("model", models.vae.reconstruct(stale, seed=seed).x[:, [-1]].toarray()),
        "gene regression, expected": ("model", _last(models.regression.predict(controls, condition, seed=seed))),
        "gene regression, drawn": (
            "model",
            _last(models.regression.predict(controls, condition, seed=seed, sample=True)),
        ),
        "truth, drawn again": ("ceiling", again.drawn[:, -1:].astype(float)),
    }
    truth = done.drawn[:, -1:].astype(float)
    scored = {name: evaluate(y_true=truth, y_pred=values, seed=seed).as_dict() for name, (_, values) in said.items()}
    columns = tuple(next(iter(scored.values())))
    lines = tuple(Line(name, role, scored[name]) for name, (role, _) in said.items())
    note = f"The mechanistic gene in {held:,} held-out cells after {condition}. Variance ratio: 1 is best; else 0."
    return Table("Whole distributions", note, columns, lines)


def _last(cells: Cells) -> Floats:
    return cells.x[:, [-1]].toarray()


def _panel(who: str, grid: tuple[Perturbed, Floats], models: _Models) -> Panel:
    changed, old = grid
    first = changed.source == 0
    x = changed.values[first, 0]
    said = {**models.curves(changed, old), "truth": _truth(changed)}
    series = tuple(Series(name, x, curve[first]) for name, curve in said.items())
    return Panel(who, f"count that {changed.perturbed[0]} is set to", "mean of the mechanistic gene", "lines", series)
