"""Does a virtual cell know anything? Genes raised in simulated cells whose dependencies are known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import spearmanr

from pertcast.cells.log_scale import as_log1p
from pertcast.cells.masked_autoencoder import MaskedAutoencoder
from pertcast.cells.registry import build
from pertcast.cells.trajectory import Change, roll_out
from pertcast.simulate.base import BaseSettings, base_plan
from pertcast.simulate.cells import draw_cells
from pertcast.simulate.interventions import Do, intervene
from pertcast.simulate.mechanisms import StructuralModel
from pertcast.simulate.planted import mechanism_model
from pertcast.simulate.toy import Toy, toy_cells
from pertcast.stories.story import Line, Panel, Series, Story, Table, as_cells
from pertcast.types import Cells, Floats

CELLS = 10_000
ASKED = 100  # cells that genes are raised in
SPARE = 2000  # toy cells that are not trained on
RAISE, FROM = 0.15, (0.35, 0.5)  # toy: by how much a source is raised, and from which values of it
GRID = np.linspace(0.2, 0.8, 61, dtype=np.float32)  # toy: values of a source along its curve
FOLD = 2.0  # mechanism: by which a source is multiplied
BASE = BaseSettings(mean_range=(10.0, 40.0), dispersion_range=(0.2, 0.5), clip=True)
KINDS = ("linear", "hill", "polynomial", "interaction") * 3
GENES, PARENTS = 20, 2
HIDING = {"low": 0.2, "high": 0.8}
TOY_SETTINGS = {
    "hidden": [64, 32], "dropout": 0.05, "hiding": HIDING,
    "training": {"epochs": 20, "batch": 64, "lr": 3e-3, "patience": None, "average_last": 0.3},
}  # fmt: skip
COUNT_SETTINGS = {
    "hidden": [128], "dropout": 0.0, "hiding": {**HIDING, "zeros": True},
    "training": {"epochs": 25, "batch": 64, "lr": 3e-3},
}  # fmt: skip
TRUTH, MODEL, LINE = "truth", "masked-autoencoder", "regression on the raised gene"


def tell(*, seed: int = 0, cells: int = CELLS) -> Story:
    """Raise genes in cells that the model did not train on, and compare what it says follows with what does follow."""
    toy = toy_cells(cells + SPARE, seed=seed)
    curves, panels = _toy(toy, cells, seed=seed)
    return Story(
        name="knows",
        title="Does a virtual cell know anything?",
        data=f"SIMULATED: {cells:,} toy cells of sines, and {cells // 2:,} cells of {len(KINDS)} mechanisms",
        tables=(curves, _mechanisms(cells // 2, seed=seed)),
        panels=tuple(panels),
        remarks=(
            "Effects are those of a trajectory, perturbed less unperturbed, in cells that were not trained on.",
            "A regression on the raised gene alone is all that co-expression says. Sources are independent here, so "
            "that it is hard to beat where mechanisms are straight.",
        ),
    )


def toy_model(toy: Toy, rows: slice, *, seed: int) -> MaskedAutoencoder:
    """Fit a virtual cell to some toy cells."""
    return build(MODEL, TOY_SETTINGS).fit(toy.cells.take(np.r_[rows]), seed=seed)


def curve_of(model: MaskedAutoencoder, source: str, dependent: str) -> Floats:
    """What the model says of a gene along the values of its source, each grid point alone, all else unseen: (k,)."""
    i, j = (model.genes.index(name) for name in (source, dependent))
    said = []
    for value in GRID:
        x, hidden = np.zeros((2, 1, len(model.genes)), np.float32)
        x[0, i], hidden[0, j] = value, 1
        said.append(model.reconstruct(x, hidden > 0)[0, j])
    return np.array(said)


def influences(model: MaskedAutoencoder, cells: Cells, *, by: float) -> Floats:
    """Mean effect on every gene of raising every gene, over the cells that express both: (g raised, g)."""
    x, found = as_log1p(cells).toarray(), []
    for i, gene in enumerate(model.genes):
        rows = x[:, i] > 0
        effect = roll_out(model, cells.take(rows), [Change(gene, by, "add")], steps=4).effect()[-1]
        effect = np.where(x[rows] > 0, effect, np.nan)
        effect[:, i] = 0
        found.append(np.nanmean(effect, axis=0))
    return np.array(found)


def _toy(toy: Toy, trained: int, *, seed: int) -> tuple[Table, list[Panel]]:
    """Curves, sizes of effects, and where the true source stands among all genes by influence."""
    model, genes = toy_model(toy, slice(trained), seed=seed), toy.cells.genes
    asked = toy.cells.take(np.arange(trained, len(toy.cells)))
    x = asked.x.toarray()
    table = influences(model, asked, by=RAISE)
    columns = ("curve correlation", "effect", "true effect", "largest on others", "rank of the source")
    lines, panels = [], []
    for dependent, source in toy.sources.items():
        i, j = genes.index(source), genes.index(dependent)
        curve, true = curve_of(model, source, dependent), toy.expected(dependent, GRID)
        rows = np.flatnonzero((x[:, i] > FROM[0]) & (x[:, i] < FROM[1]) & (x[:, j] > 0))[:ASKED]
        effect = roll_out(model, asked.take(rows), [Change(source, RAISE, "add")], steps=20).effect()[-1]
        effect = np.where(x[rows] > 0, effect, np.nan)
        others = [k for k in range(len(genes)) if k not in (i, j)]
        happens = toy.expected(dependent, x[rows, i] + RAISE) - toy.expected(dependent, x[rows, i])
        rank = 1 + int((np.abs(table[:, j]) > np.abs(table[i, j])).sum())
        scores = (
            float(np.corrcoef(curve, true)[0, 1]), float(np.nanmean(effect[:, j])), float(happens.mean()),
            float(np.nanmax(np.abs(np.nanmean(effect[:, others], axis=0)))), float(rank),
        )  # fmt: skip
        lines.append(Line(f"{source} -> {dependent}", "model", dict(zip(columns, scores, strict=True))))
        series = (Series(MODEL, GRID, curve), Series(TRUTH, GRID, true))
        panels.append(Panel(f"{dependent} = sine of {source}", source, dependent, "lines", series))
    note = (
        "Correlation of the told curve with the sine (1 is best; system 001 reached 0.949); mean effect of raising the "
        f"source by {RAISE} beside the true one, and the largest mean effect on any other gene, which is 0 in truth; "
        "rank of the source among all genes by its influence (1 is best)."
    )
    return Table("Toy cells: three sines among ten genes", note, columns, tuple(lines)), panels


def _mechanisms(cells: int, *, seed: int) -> Table:
    """Sources doubled in cells of the mechanism simulator: effects on what hangs on them, and on what does not."""
    truth = mechanism_model(base_plan(GENES, 0.0, seed=seed, settings=BASE), KINDS, seed=seed, parents=PARENTS)
    simulated = draw_cells(truth, cells + ASKED, seed=seed)
    counts = simulated.dense
    train, asked = as_cells(counts[:cells], truth.genes), as_cells(counts[cells:], truth.genes, first=cells)
    model = build(MODEL, COUNT_SETTINGS).fit(train, seed=seed)
    slopes = _slopes(as_log1p(train).toarray())
    x, said = as_log1p(asked).toarray(), {LINE: [], MODEL: [], TRUTH: []}
    depends = []
    for source in sorted({parent for gene in truth.mechanistic for parent in gene.parents}):
        i = truth.genes.index(source)
        rolled = roll_out(model, asked, [Change(source, FOLD, "fold")], steps=20)
        moved = rolled.perturbed[-1, :, i] - x[:, i]
        said[MODEL].append(rolled.effect()[-1].mean(axis=0)[GENES:])
        said[LINE].append((moved.mean() * slopes[i])[GENES:])
        said[TRUTH].append(true_effect(truth, counts[cells:], source, FOLD, seed=seed)[GENES:])
        depends.append([source in gene.parents for gene in truth.mechanistic])
    return _scored({name: np.array(values) for name, values in said.items()}, np.array(depends))


def true_effect(truth: StructuralModel, counts: np.ndarray, source: str, fold: float, *, seed: int) -> Floats:
    """Mean change of every gene on the log1p scale when a source is multiplied, drawn through the equations: (g,).

    Both sides are drawn anew with the same random numbers, so that only what hangs on the source differs much.
    """
    i = truth.genes.index(source)
    values = counts[:, i].astype(float)
    sides = []
    for factor in (1.0, fold):
        parts = [
            intervene(truth, counts, Do(set={source: np.round(values * factor)}), seed=seed + k).drawn for k in range(8)
        ]
        sides.append(np.mean([as_log1p(as_cells(part, truth.genes)).mean(axis=0) for part in parts], axis=0))
    return sides[1] - sides[0]


def _slopes(x: Floats) -> Floats:
    """Slope of every gene on every gene alone: (g raised, g)."""
    centred = x - x.mean(axis=0)
    covariance = centred.T @ centred / len(x)
    return covariance / np.maximum(np.diag(covariance), 1e-9)[:, None]


def _scored(said: Mapping[str, Floats], depends: np.ndarray) -> Table:
    """Compare effects (sources, genes) on genes that hang on the source, and on genes that do not."""
    columns = ("correlation", "rank correlation", "sign agreement", "share of true size", "on others, share of size")
    true, lines = said[TRUTH], []
    size = np.abs(true[depends]).mean()
    for name, effects in said.items():
        mine = effects[depends]
        scores = (
            float(np.corrcoef(mine, true[depends])[0, 1]), float(spearmanr(mine, true[depends]).statistic),
            float((np.sign(mine) == np.sign(true[depends])).mean()),
            float((mine * true[depends]).sum() / np.square(true[depends]).sum()),
            float(np.abs(effects[~depends]).mean() / size),
        )  # fmt: skip
        role = {LINE: "floor", MODEL: "model", TRUTH: "ceiling"}[name]
        lines.append(Line(name, role, dict(zip(columns, scores, strict=True))))
    note = (
        f"{len(true)} sources doubled in {ASKED} cells: effects on the {int(depends.sum())} pairs of a source and a "
        "gene that hangs on it (1 is best in all four), and the mean size of effects on other genes as a share of the "
        "true size on dependent ones (the truth's own is noise of its draws and of shares of a cell's total)."
    )
    return Table("Mechanisms: sources doubled", note, columns, tuple(lines))
