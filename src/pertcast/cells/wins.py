"""Models of cells side by side on held-out cells, condition by condition: who wins, who loses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pertcast.cells.log_scale import as_log1p
from pertcast.errors import InputError, unknown
from pertcast.metrics.distribution import energy_distance
from pertcast.types import CellModel, Cells


@dataclass(frozen=True, slots=True)
class Wins:
    """Energy distance of every model's drawn cells from the measured ones, log1p scale; lower is better."""

    scores: Mapping[str, Mapping[str, float]]  # condition -> model -> mean over contexts

    def against(self, model: str, other: str) -> dict[str, list[str]]:
        """Return the conditions that a model wins and those it loses against another; equal ones are in neither."""
        for name in (model, other):
            known = next(iter(self.scores.values()))
            if name not in known:
                raise InputError(unknown("model", name, known))
        apart = {condition: row[model] - row[other] for condition, row in self.scores.items()}
        return {
            "wins": [condition for condition, gap in apart.items() if gap < 0],
            "losses": [condition for condition, gap in apart.items() if gap > 0],
        }

    def lines(self, model: str) -> list[str]:
        """Draw a table for people: a row per condition, then wins and losses of a model against each other one."""
        names = list(next(iter(self.scores.values())))
        width = max(map(len, [*self.scores, "condition"]))
        head = f"{'condition':{width}s}" + "".join(f"{name:>20s}" for name in names)
        rows = [
            f"{condition:{width}s}" + "".join(f"{row[name]:20.4g}" for name in names)
            for condition, row in self.scores.items()
        ]
        told = []
        for other in (name for name in names if name != model):
            found = {kind: len(held) for kind, held in self.against(model, other).items()}
            told.append(f"{model} against {other}: {found['wins']} wins, {found['losses']} losses")
        return [head, *rows, *told]


def compare_models(models: Mapping[str, CellModel], held: Cells, *, seed: int) -> Wins:
    """Score fitted models on held-out cells (S003-16).

    models  by the name to print; each predicts the untreated held-out cells of a context under its conditions
    held    untreated and perturbed cells that no model was fitted to; contexts with both are scored
    Raises InputError without models, and where no context has both kinds of cells.
    """
    if not models:
        raise InputError("No models were given to compare. Give at least one.")
    scores: dict[str, dict[str, float]] = {}
    for condition in held.conditions:
        both = sorted(set(held.context[held.condition == condition]) & set(held.context[held.untreated]))
        if not both:
            continue
        scores[condition] = {
            name: float(np.mean([_distance(model, held, condition, context, seed) for context in both]))
            for name, model in models.items()
        }
    if not scores:
        found = f"{len(held)} cells, {int(held.untreated.sum())} of them untreated"
        raise InputError(f"No context has untreated and perturbed cells to compare models on; got {found}.")
    return Wins(scores)


def _distance(model: CellModel, held: Cells, condition: str, context: str, seed: int) -> float:
    here = held.context == context
    made = model.predict(held.take(here & held.untreated), condition, seed=seed, sample=True)
    true = held.take(here & (held.condition == condition)).select(made.genes)
    return energy_distance(y_true=as_log1p(true), y_pred=as_log1p(made), seed=seed)
