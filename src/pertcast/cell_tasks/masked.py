"""A masked autoencoder scored on held-out cells, from a file of cells to a table: what `pertcast cells masked` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np

from pertcast.cell_tasks.runs import Columns
from pertcast.cell_tasks.verbs import cell_recipe, read_for
from pertcast.cells.log_scale import as_log1p
from pertcast.cells.masked_autoencoder import NAME, MaskedAutoencoder
from pertcast.cells.masked_scores import GeneMeans, MaskedScores, masked_scores, seen_genes
from pertcast.cells.registry import build
from pertcast.errors import InputError
from pertcast.io.atomic import atomic_folder, write_json
from pertcast.nn.fit import Progress
from pertcast.nn.masked_fit import fixed_hidden
from pertcast.stories.story import Line, Role, Table
from pertcast.types import Cells
from pertcast.validation.cell_parts import part_cells

SHARES = {"train": 0.6, "valid": 0.2, "test": 0.2}
LEAST_CELLS = 10  # training cells that a gene must be seen in
ROLES: dict[str, Role] = {"gene mean": "floor", "gene mean + cell effect": "floor", NAME: "model"}
COLUMNS = ("masked MSE", "share of gene mean", "by cell", "share by cell", "non-zero MSE", "zero MSE")
NOTE = (
    "Mean squared error of hidden genes on the log1p scale, over all hidden entries and as the mean over cells, and as "
    "a share of what the gene's mean over non-zero training values leaves: lower is better. Of each cell {low:.0%} to "
    "{high:.0%} of the expressed genes are hidden, drawn once. Non-zero: seen genes too. Zero: genes observed at 0."
)


@dataclass(frozen=True, slots=True)
class MaskedResult:
    """A fitted model, its scores on every part of the cells beside the floors, and how long it trained."""

    model: MaskedAutoencoder
    scores: dict[str, dict[str, MaskedScores]]  # part -> who -> scores
    cells: dict[str, int]  # of each part
    parted_by: str
    seconds: float

    def share(self, part: str = "test", *, by_cell: bool = False) -> float:
        """The model's masked error as a share of the gene mean's."""
        name = "masked_by_cell" if by_cell else "masked"
        found, floor = (getattr(self.scores[part][who], name) for who in (NAME, "gene mean"))
        return found / floor

    def tables(self) -> list[Table]:
        """One table for each part of the cells."""
        note = NOTE.format(low=self.model.config.hiding.low, high=self.model.config.hiding.high)
        tables = []
        for part, scores in self.scores.items():
            floor, lines = scores["gene mean"], []
            for who, one in scores.items():
                shares = one.masked / floor.masked, one.masked_by_cell / floor.masked_by_cell
                values = (one.masked, shares[0], one.masked_by_cell, shares[1], one.nonzero, one.zero)
                lines.append(Line(who, ROLES[who], dict(zip(COLUMNS, values, strict=True))))
            title = f"{part}: {self.cells[part]:,} cells x {len(self.model.genes):,} genes, parted by {self.parted_by}"
            tables.append(Table(title, note if part == "test" else "", COLUMNS, tuple(lines)))
        return tables

    def facts(self) -> dict[str, object]:
        """One object for machines."""
        scores = {part: {who: asdict(one) for who, one in found.items()} for part, found in self.scores.items()}
        shares = {"masked": self.share(), "masked_by_cell": self.share(by_cell=True)}
        return {
            "scores": scores, "test_share_of_gene_mean": shares, "cells": self.cells, "genes": len(self.model.genes),
            "parted_by": self.parted_by, "epochs": len(self.model.history), "seconds": round(self.seconds, 1),
        }  # fmt: skip


def score_masked(
    cells: Cells,
    model: MaskedAutoencoder,
    *,
    seed: int = 0,
    by: Literal["auto", "batch", "cell"] = "auto",
    progress: Progress | None = None,
) -> MaskedResult:
    """Part cells 60/20/20, fit to the first part, stop by the second, and score all three on fixed hidden genes.

    by   whole batches (donors) or cells; auto: batches where there are enough
    Genes are those that at least 10 training cells express; log1p values are taken over all genes of the file before.
    Raises InputError for a model that hides zeros: its errors are not those of expressed genes.
    """
    if model.config.hiding.zeros:
        raise InputError("Masked errors are those of expressed genes, but hiding.zeros is set. Leave it unset.")
    rows = dict(zip(SHARES, part_cells(cells, tuple(SHARES.values()), seed=seed, by=by), strict=True))
    logs = replace(cells, x=as_log1p(cells), unit="log1p")
    logs = logs.select(seen_genes(logs.take(rows["train"]), LEAST_CELLS))
    if not logs.genes:
        raise InputError(f"No gene is seen in {LEAST_CELLS} of {len(rows['train'])} training cells. Give more cells.")
    parts = {name: logs.take(at) for name, at in rows.items()}
    start = perf_counter()
    model.fit(parts["train"], seed=seed, valid=parts["valid"], progress=progress)
    seconds = perf_counter() - start
    means, scores = GeneMeans.of(parts["train"].x), {}
    for number, (name, part) in enumerate(parts.items()):
        own = seed if name == "valid" else seed + 1 + number  # validation cells hide what training was stopped by
        hidden = fixed_hidden(part.x, model.config.hiding, own).toarray() > 0
        scores[name] = _scores(part, hidden, model, means)
    sizes = {name: len(part) for name, part in parts.items()}
    whole = len(set(cells.batch)) > 1 and not _split_batches(cells, rows)
    return MaskedResult(model, scores, sizes, "batch" if whole else "cell", seconds)


def masked_benchmark(
    data: Path,
    columns: Columns,
    *,
    out: Path,
    preset: str | None = None,
    changes: Sequence[str] = (),
    seed: int = 0,
    by: Literal["auto", "batch", "cell"] = "auto",
    progress: Progress | None = None,
) -> MaskedResult:
    """Score a masked autoencoder on a file of cells; keep masked.json and the fitted model in a folder of their own.

    Raises InputError naming all faults of the file at once, and where the folder exists.
    """
    recipe = cell_recipe(NAME, preset=preset, changes=changes)
    cells = read_for(data, columns)
    with atomic_folder(Path(out)) as draft:
        found = score_masked(cells, build(NAME, recipe.settings), seed=seed, by=by, progress=progress)
        write_json(draft / "masked.json", {**found.facts(), "recipe": recipe.model_dump(mode="json"), "seed": seed})
        found.model.save(draft / "checkpoint")
    return found


def _scores(part: Cells, hidden: np.ndarray, model: MaskedAutoencoder, means: GeneMeans) -> dict[str, MaskedScores]:
    x = part.x.toarray()
    visible = np.where(hidden, 0, x)
    said = (means.tell(visible), means.tell_with_cell(visible), model.reconstruct(x, hidden))
    return {who: masked_scores(x=x, hidden=hidden, said=one) for who, one in zip(ROLES, said, strict=True)}


def _split_batches(cells: Cells, rows: dict[str, np.ndarray]) -> bool:
    """Whether some batch has cells in two parts."""
    found = [set(cells.batch[at]) for at in rows.values()]
    return sum(map(len, found)) > len(set().union(*found))
