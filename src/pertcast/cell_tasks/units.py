"""Units of work of a benchmark of models of cells: a model x a split x a seed, fitted, scored and written whole.

A unit's folder holds scores.json (every score of every pair that the split holds out), draws (scores of gene means on
held-out cells drawn again), inputs.json (digests of all that the numbers follow from), seconds.json (how long it took,
no part of the result) and DONE.json. Same inputs, same bytes; a unit that is done by content is not done again.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from pertcast import __version__
from pertcast.cell_tasks.runs import code_digest, recipe_inputs
from pertcast.cell_tasks.verbs import with_all_genes
from pertcast.cells.log_scale import as_log1p, total_counts
from pertcast.cells.registry import build
from pertcast.cells.variable_genes import variable_genes
from pertcast.config import CellRecipe
from pertcast.errors import InputError
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.io.atomic import atomic_folder, digest_file, write_json
from pertcast.metrics.samples import drawn_cells
from pertcast.metrics.treated import AXES, MEANS, TreatedScorer
from pertcast.runs import is_done
from pertcast.types import Cells, Floats, Ints
from pertcast.validation.cell_splits import CellSplit

GENES = 2000  # that are scored: the most variable ones of the training cells
MOST_CELLS = 10_000  # that the axes of distances are fitted on
SECONDS = "seconds.json"

Pair = tuple[str, str]  # condition, context


@dataclass(frozen=True, slots=True)
class CellUnit:
    """One thing to fit and score."""

    label: str  # "film-gan", "film-gan:system-000"
    recipe: CellRecipe | None  # None: one half of the truth predicts the other
    number: int  # of the split
    seed: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a split holds out, as it is scored."""

    split: CellSplit
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a finished unit says."""

    scores: tuple[Mapping[str, float], ...]  # by pair, then by column; NaN where not defined
    draws: Floats  # (pairs, draws, columns of MEANS)
    seconds: float  # of fit, predictions and scores; NaN where it was not kept


class CellWork:
    """What is done with a unit: a pure function of recipe, split and seed, given the cells.

    Genes, axes and scorers of a split are made once for all its models; only those of the split at work are kept.
    """

    def __init__(
        self,
        cells: Cells,
        held: Sequence[HeldOut],
        *,
        out: Path,
        about: Mapping[str, Any],
        totals: Floats | None = None,
    ):
        self.cells, self.held, self.out, self.about, self.totals = cells, held, out, dict(about), totals
        self.y: csr_array | None = None
        self.number: int | None = None
        self.genes: Ints = np.arange(0)
        self.scorers: dict[Pair, TreatedScorer] = {}

    def __call__(self, unit: CellUnit) -> None:
        """Fit a model, score it, and write the unit."""
        start = time.perf_counter()
        try:
            scores, draws = self.scored(unit)
        except InputError as error:
            raise InputError(f"Model '{unit.label}', {self.held[unit.number].split.holds_out}: {error}") from None
        folder = self.folder(unit)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder, replace=True) as draft:
            told = [{name: None if math.isnan(value) else value for name, value in one.items()} for one in scores]
            write_json(draft / "scores.json", {"pairs": self.held[unit.number].pairs, "scores": told})
            save_arrays(draft, "draws", {"draws": draws}, {"columns": MEANS})
            write_json(draft / "inputs.json", self.inputs(unit))
            files = sorted(path.name for path in draft.iterdir())
            write_json(draft / "DONE.json", {"digests": {name: digest_file(draft / name) for name in files}})
            write_json(draft / SECONDS, round(time.perf_counter() - start, 2))

    def is_done(self, unit: CellUnit) -> bool:
        """Whether the unit is whole, unharmed, and made from the same inputs."""
        return is_done(self.folder(unit), self.inputs(unit))

    def folder(self, unit: CellUnit) -> Path:
        """Say where a unit lies; the same whatever else is held out or fitted."""
        said = self.held[unit.number].split.holds_out
        digest = hashlib.sha256(said.encode()).hexdigest()[:8]
        return self.out / "units" / _plain(unit.label) / f"{_plain(said)[:40]}-{digest}" / f"seed{unit.seed}"

    def read(self, unit: CellUnit) -> Scored:
        """Read a finished unit."""
        folder = self.folder(unit)
        told = json.loads((folder / "scores.json").read_text())["scores"]
        scores = tuple({name: math.nan if v is None else v for name, v in one.items()} for one in told)
        took = folder / SECONDS
        seconds = float(took.read_text()) if took.is_file() else math.nan
        return Scored(scores, load_arrays(folder, "draws")[0]["draws"], seconds)

    def inputs(self, unit: CellUnit) -> dict[str, Any]:
        """Collect everything the numbers of a unit follow from."""
        held = self.held[unit.number]
        recipe = unit.recipe and recipe_inputs(unit.recipe)
        return {
            **self.about, "recipe": recipe, "seed": unit.seed, "holds_out": held.split.holds_out,
            "pairs": [list(pair) for pair in held.pairs], "code": code_digest("metrics"), "pertcast": __version__,
        }  # fmt: skip

    def scored(self, unit: CellUnit) -> tuple[list[dict[str, float]], Floats]:
        """Fit the model to what the split trains on, and score it on every pair: scores, (pairs, draws, columns)."""
        held = self.held[unit.number]
        self._prepare(unit.number)
        if unit.recipe is None:
            halves = [self.scorers[pair].ceiling(seed=unit.seed) for pair in held.pairs]
            return halves, np.zeros((len(held.pairs), 0, len(MEANS)))
        train = self.cells.take(held.split.train)
        model = build(unit.recipe.model, unit.recipe.settings).fit(train, seed=unit.seed)
        scores, draws = [], []
        for condition, context in held.pairs:
            rows = np.flatnonzero(self.cells.untreated & (self.cells.context == context))
            control = self.cells.take(rows)
            found = model.predict(control, condition, seed=unit.seed, sample=True)
            whole = with_all_genes(found, control)[0]
            predicted = as_log1p(whole, self._totals(rows, whole))[:, self.genes].toarray().astype(float)
            scorer = self.scorers[condition, context]
            scores.append(scorer.score(predicted))
            draws.append(scorer.draws(predicted))
        return scores, np.array(draws)

    def _totals(self, rows: Ints, predicted: Cells) -> Floats:
        """Total counts by which predicted cells are divided: those of the cell that each was made from."""
        if len(predicted) != len(rows):
            raise InputError(f"It predicts {len(predicted)} cells from {len(rows)}; one for each is expected.")
        return self._given_totals()[rows]

    def _given_totals(self) -> Floats:
        if self.totals is None:
            self.totals = total_counts(self.cells)
        return self.totals

    def _prepare(self, number: int) -> None:
        """Choose genes on the training cells, fit axes on all measured ones, and make a scorer for every pair."""
        from sklearn.decomposition import PCA

        if number == self.number:
            return
        if self.y is None:
            self.y = as_log1p(self.cells, self._given_totals())
        held, cells = self.held[number], self.cells
        self.genes = variable_genes(self.y[held.split.train], GENES)
        if not len(self.genes):
            raise InputError("no gene varies and is seen in 10 training cells, so there is nothing to score.")
        y = self.y[:, self.genes].astype(float)
        real = drawn_cells(y, 0, MOST_CELLS)
        axes = PCA(min(AXES, *real.shape), svd_solver="covariance_eigh").fit(real)
        self.scorers = {}
        for condition, context in held.pairs:
            here = cells.context == context
            treated, control = (
                y[np.flatnonzero(rows & here)].toarray() for rows in (cells.condition == condition, cells.untreated)
            )
            self.scorers[condition, context] = TreatedScorer(treated, control, project=axes.transform)
        self.number = number


def _plain(text: str) -> str:
    """Make a name of a folder."""
    return re.sub(r"[^A-Za-z0-9.+_-]+", "-", text)
