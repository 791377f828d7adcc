"""Does a virtual cell know what a treatment does? Genes raised in measured untreated cells beside the treated ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata, spearmanr

from pertcast.cell_runs import Columns
from pertcast.cell_verbs import cell_recipe, read_for
from pertcast.cells.log_scale import as_log1p
from pertcast.cells.masked_autoencoder import NAME
from pertcast.cells.masked_scores import seen_genes
from pertcast.cells.registry import build
from pertcast.cells.seen import measured_contexts
from pertcast.cells.trajectory import Change, roll_out
from pertcast.errors import InputError, several, unknown
from pertcast.io.atomic import write_json
from pertcast.nn.fit import Progress
from pertcast.stories.story import Line, Table
from pertcast.types import Cells, Floats, Ints

SETTINGS = ("hiding.zeros=true",)  # genes observed at 0 rise as well
LEAST_CELLS = 10  # untreated cells that a gene must be seen in
ASKED = 200  # untreated cells that genes are raised in, at most
HIGH = 0.95  # quantile of a gene's values above 0 that it is raised to
MOST_RAISED, MOST_CHANGED = 50, 100
BINS, DRAWS = 10, 1000  # of mean expression; permutations within them
TOGETHER = "all together"
COLUMNS = ("rank correlation", "p", f"AUC of the {MOST_RAISED} most raised", f"sign of the {MOST_CHANGED} most changed")


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
            f"Genes raised in {self.asked} untreated cells; the model was trained on {self.trained:,} cells, "
            f"{self.treated:,} of them treated. Its effects on {self.genes:,} other genes are compared with what "
            f"'{self.condition}' really changed, contexts balanced: Spearman correlation, its one-sided p over "
            f"{DRAWS:,} permutations among genes of like expression, area under the curve and sign (chance: 0, 0.5, "
            "0.5). Co-expression is the correlation with the raised gene over untreated cells, together their mean."
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
    model: object, asked: Cells, untreated: Cells, true: Floats, genes: Sequence[str], *, seed: int
) -> dict[str, dict[str, tuple[float, ...]]]:
    columns = [untreated.genes.index(gene) for gene in genes]
    x = untreated.x.toarray()
    tops = [float(np.quantile(x[:, j][x[:, j] > 0], HIGH)) if (x[:, j] > 0).any() else 1.0 for j in columns]
    rises = [Change(gene, top) for gene, top in zip(genes, tops, strict=True)]
    others = np.setdiff1d(np.arange(x.shape[1]), columns)
    bins = np.minimum(BINS - 1, rankdata(x.mean(axis=0)[others]) * BINS // (len(others) + 1)).astype(int)
    with_gene = np.nan_to_num([_correlations(x, j) for j in columns])
    questions = {gene: ([rise], [k]) for k, (gene, rise) in enumerate(zip(genes, rises, strict=True))}
    if len(genes) > 1:
        questions[TOGETHER] = (rises, list(range(len(genes))))
    found = {}
    for name, (changes, which) in questions.items():
        said = roll_out(model, asked, changes, steps=10).effect()[-1].mean(axis=0)
        told = {NAME: said, "co-expression": with_gene[which].mean(axis=0)}
        found[name] = {who: scores(values[others], true[others], bins, seed=seed) for who, values in told.items()}
    return found


def scores(said: Floats, true: Floats, bins: Ints, *, seed: int) -> tuple[float, ...]:
    """Compare what is said of genes (g,) with what is true (g,): the numbers of COLUMNS.

    bins  (g,)  genes are permuted within
    """
    rank = float(spearmanr(said, true).statistic) if np.ptp(said) > 0 else 0.0
    rng, a, b = np.random.default_rng(seed), rankdata(said), rankdata(true)
    order, a = np.argsort(bins, kind="stable"), a - a.mean()
    norm = max(float(np.linalg.norm(a) * np.linalg.norm(b - b.mean())), 1e-12)
    sizes = np.cumsum(np.bincount(bins))[:-1]
    above = 0
    for _ in range(DRAWS):
        mixed = np.concatenate([rng.permutation(part) for part in np.split(b[order], sizes)])
        above += float(a[order] @ mixed) / norm >= rank
    raised = np.zeros(len(true), bool)
    raised[np.argsort(-true, kind="stable")[:MOST_RAISED]] = True
    inside, outside = int(raised.sum()), int((~raised).sum())
    auc = (rankdata(said)[raised].sum() - inside * (inside + 1) / 2) / max(inside * outside, 1)
    top = np.argsort(-np.abs(true), kind="stable")[:MOST_CHANGED]
    return rank, (1 + above) / (1 + DRAWS), float(auc), float((np.sign(said[top]) == np.sign(true[top])).mean())


def _correlations(x: Floats, j: int) -> Floats:
    """Pearson correlation of every gene with gene j: (g,); NaN for constant genes."""
    centred = x - x.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return centred.T @ centred[:, j] / (np.linalg.norm(centred, axis=0) * np.linalg.norm(centred[:, j]))
