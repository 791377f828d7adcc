"""Does a virtual cell know what a treatment does? Genes raised in measured untreated cells beside the treated ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from pertcast.cell_tasks.runs import Columns
from pertcast.cell_tasks.verbs import cell_recipe, read_for
from pertcast.cells.log_scale import as_log1p
from pertcast.cells.masked_autoencoder import NAME
from pertcast.cells.masked_scores import seen_genes
from pertcast.cells.registry import build
from pertcast.cells.seen import measured_contexts
from pertcast.cells.trajectory import Change, VirtualCell, roll_out
from pertcast.errors import InputError, several, unknown
from pertcast.io.atomic import write_json
from pertcast.nn.fit import Progress
from pertcast.stories.story import Line, Table
from pertcast.types import Cells, Floats, Ints

SETTINGS = ("hiding.zeros=true",)  # genes observed at 0 rise as well
LEAST_CELLS = 10  # untreated cells that a gene must be seen in
ASKED = 100  # untreated cells that genes are raised in, at most
HIGH = 0.95  # quantile of a gene's values above 0 that it is raised to
MOST_RAISED, MOST_CHANGED = 50, 100
BINS, DRAWS = 10, 1000  # of mean expression; permutations within them
STEPS = 6  # of a trajectory
NEAR, CONTROLS = 100, 3  # genes of like expression on either side that may stand in for one; how often they do
TOGETHER, OTHERS = "all together", "masked-autoencoder, other genes raised"
COLUMNS = (
    "rank correlation within bins",
    "p",
    f"AUC of the {MOST_RAISED} most raised",
    f"sign of the {MOST_CHANGED} most changed",
)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Scores of what was told, for every raised gene and all of them together."""

    scores: Mapping[str, Mapping[str, tuple[float, ...]]]  # raised gene -> who -> COLUMNS
    condition: str
    trained: int  # cells
    treated: int  # of them
    asked: int  # cells
    genes: int

    def table(self) -> Table:
        """Show the model beside co-expression, and what chance would give."""
        lines = [
            Line(f"{gene}: {who}", "model" if who == NAME else "floor", dict(zip(COLUMNS, values, strict=True)))
            for gene, found in self.scores.items()
            for who, values in found.items()
        ]
        note = (
            f"Genes raised in {self.asked} untreated cells by a model that was trained on {self.trained:,} cells, "
            f"{self.treated:,} of them treated. Its effects on {self.genes:,} other genes are compared with what "
            f"'{self.condition}' really changed, contexts balanced: rank correlation among genes of like expression, "
            f"its one-sided p over {DRAWS:,} permutations, area under the curve, sign (chance: 0, 0.5, 0.5). Effects "
            "are ranked in standard deviations of their gene. Co-expression is the correlation with the raised gene "
            f"over untreated cells; other genes are of like expression, drawn {CONTROLS} times: what the model says "
            "whatever is raised."
        )
        return Table(f"What follows from raised genes, and what {self.condition} does", note, COLUMNS, tuple(lines))


def virtual_cell_knows(
    data: Path,
    columns: Columns,
    *,
    condition: str,
    genes: Sequence[str],
    out: Path,
    treated: bool = False,
    changes: Sequence[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Knowledge:
    """Train a virtual cell, raise genes in untreated cells, and compare with what a condition did; keep knows.json.

    treated  whether treated cells train as well, so that what is asked for was seen; without it only untreated ones do
    Raises InputError naming all unknown names at once.
    """
    recipe = cell_recipe(NAME, changes=(*SETTINGS, *changes))
    cells = read_for(data, columns, need_treated=True)
    contexts = measured_contexts(cells)
    problems = [unknown("gene", gene, cells.genes) for gene in genes if gene not in cells.genes]
    problems += [] if genes else ["no gene is named"]
    if condition not in contexts:
        problems.append(f"{unknown('condition', condition, contexts)} It must stand beside untreated cells")
    if problems:
        raise InputError(several("Question to the virtual cell", problems))
    logs = replace(cells, x=as_log1p(cells), unit="log1p")
    untreated = logs.take(logs.untreated)
    kept = set(seen_genes(untreated, LEAST_CELLS)) | set(genes)
    logs = logs.select(tuple(gene for gene in logs.genes if gene in kept))
    untreated = logs.take(logs.untreated)
    train = logs if treated else untreated
    model = build(NAME, recipe.settings).fit(train, seed=seed, progress=progress)
    asked = untreated.take(np.sort(np.random.default_rng(seed).permutation(len(untreated))[:ASKED]))
    scores = _compared(model, asked, untreated, true_change(logs, condition, contexts[condition]), genes, seed=seed)
    counts = (len(train), int((~train.untreated).sum()), len(asked), len(logs.genes) - len(genes))
    found = Knowledge(scores, condition, *counts)
    Path(out).mkdir(parents=True, exist_ok=True)
    write_json(Path(out) / "knows.json", {**asdict(found), "columns": COLUMNS, "seed": seed})
    return found


def true_change(logs: Cells, condition: str, contexts: Sequence[str]) -> Floats:
    """Mean over contexts of the mean of treated less untreated cells: (g,)."""
    changes = []
    for name in contexts:
        here = logs.context == name
        after, before = (logs.x[here & rows].mean(axis=0) for rows in (logs.condition == condition, logs.untreated))
        changes.append(after - before)
    return np.mean(changes, axis=0)


def _compared(
    model: VirtualCell, asked: Cells, untreated: Cells, true: Floats, genes: Sequence[str], *, seed: int
) -> dict[str, dict[str, tuple[float, ...]]]:
    """Score every raised gene, all of them together, and in their place genes of like expression drawn at random."""
    x = untreated.x.toarray()
    columns = [untreated.genes.index(gene) for gene in genes]
    others, mean = np.setdiff1d(np.arange(x.shape[1]), columns), x.mean(axis=0)
    bins = np.minimum(BINS - 1, (rankdata(mean[others]) - 1) * BINS // len(others)).astype(int)
    spread, with_gene = np.maximum(x.std(axis=0), 1e-6), np.nan_to_num([_correlations(x, j) for j in columns])
    questions = {gene: [k] for k, gene in enumerate(genes)}
    if len(genes) > 1:
        questions[TOGETHER] = list(range(len(genes)))
    like = _like(mean, columns, np.random.default_rng(seed))
    found = {}
    for name, which in questions.items():
        said = {NAME: [columns[k] for k in which], **{f"{OTHERS} {n}": [one[k] for k in which] for n, one in like}}
        told = {who: _effect(model, asked, x, raised) / spread for who, raised in said.items()}
        told["co-expression"] = with_gene[which].mean(axis=0)
        scored = {who: scores(values[others], true[others], bins, seed=seed) for who, values in told.items()}
        drawn = [scored.pop(f"{OTHERS} {n}") for n, _ in like]
        found[name] = {**scored, OTHERS: tuple(np.mean(drawn, axis=0).tolist())}
    return found


def _effect(model: VirtualCell, asked: Cells, x: Floats, columns: Sequence[int]) -> Floats:
    """Mean effect on every gene of raising some columns to a high value of theirs: (g,)."""
    changes = []
    for j in columns:
        expressed = x[:, j][x[:, j] > 0]
        changes.append(Change(asked.genes[j], float(np.quantile(expressed, HIGH)) if len(expressed) else 1.0))
    return roll_out(model, asked, changes, steps=STEPS).effect()[-1].mean(axis=0)


def _like(mean: Floats, columns: Sequence[int], rng: np.random.Generator) -> list[tuple[int, list[int]]]:
    """In place of each column another one of like mean, several times: (number, columns)."""
    order = np.argsort(mean, kind="stable")
    place, taken = np.argsort(order), set(columns)
    near = [[j for j in order[max(0, place[c] - NEAR) : place[c] + NEAR + 1] if j not in taken] for c in columns]
    return [(n, [int(rng.choice(one)) for one in near]) for n in range(CONTROLS)]


def scores(said: Floats, true: Floats, bins: Ints, *, seed: int) -> tuple[float, ...]:
    """Compare what is said of genes (g,) with what is true (g,): the numbers of COLUMNS.

    bins  (g,)  genes are ranked, and permuted, within
    """
    order = np.argsort(bins, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(bins))[:-1])
    a, b = (np.concatenate([_centred_ranks(values[part]) for part in parts]) for values in (said, true))
    norm, rng = max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12), np.random.default_rng(seed)
    rank, sizes = float(a @ b) / norm, np.cumsum([len(part) for part in parts])[:-1]
    mixed = (np.concatenate([rng.permutation(part) for part in np.split(b, sizes)]) for _ in range(DRAWS))
    above = sum(float(a @ one) / norm >= rank for one in mixed)
    raised = np.zeros(len(true), bool)
    raised[np.argsort(-true, kind="stable")[:MOST_RAISED]] = True
    inside, outside = int(raised.sum()), int((~raised).sum())
    auc = (rankdata(said)[raised].sum() - inside * (inside + 1) / 2) / max(inside * outside, 1)
    top = np.argsort(-np.abs(true), kind="stable")[:MOST_CHANGED]
    return rank, (1 + above) / (1 + DRAWS), float(auc), float((np.sign(said[top]) == np.sign(true[top])).mean())


def _centred_ranks(values: Floats) -> Floats:
    ranks = rankdata(values)
    return ranks - ranks.mean()


def _correlations(x: Floats, j: int) -> Floats:
    """Pearson correlation of every gene with gene j: (g,); NaN for constant genes."""
    centred = x - x.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return centred.T @ centred[:, j] / (np.linalg.norm(centred, axis=0) * np.linalg.norm(centred[:, j]))
