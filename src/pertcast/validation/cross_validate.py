"""Fit models x folds x seeds, each cell a unit of work with a directory of its own, and collect what they say.

A unit is a pure function of recipe, fold and seed. Done units are skipped by content, so an interrupted run, started
again, finishes with the same bytes and repeats nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pertcast.config import FeatureConfig, Recipe
from pertcast.engine.local import run_units
from pertcast.errors import InputError, LeakError, shorten
from pertcast.features.assemble import Assembled, assemble
from pertcast.features.fitted import check_told
from pertcast.features.target_space import learned_question, to_response
from pertcast.io.cache import Cache
from pertcast.models.registry import build, entries, entry
from pertcast.runs import (
    Run,
    Unit,
    inputs_of,
    is_done,
    mean_predictions,
    run_of,
    write_curves,
    write_manifest,
    write_unit,
)
from pertcast.schema import DE_ROWS
from pertcast.types import Examples, Floats, Fold, Ints, Model, Predictions, Question


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """The rows that some fold held out, with what each model said of them."""

    rows: Ints  # (n,)  of the training table, in order of fold
    fold: Ints  # (n,)  number of the fold that held the row out
    seen: np.ndarray  # (n,)  bool: whether that fold's training rows showed the row's compound
    members: dict[str, Floats]  # recipe name -> (n, g)


def cross_validate(
    question: Question,
    recipes: Sequence[Recipe],
    folds: list[Fold],
    *,
    strategy: str,
    seeds: int,
    out: Path,
    data_digest: str,
    refit_seeds: int | None = None,
    cache: Cache | None = None,
    jobs: int = 1,
) -> list[Run]:
    """Fit every recipe on every fold with every seed, and once more on all rows to predict the test rows.

    refit_seeds   seeds of the refits where more are wanted: they are averaged, and cost one fit each, not one a fold;
                  0 where held-out rows are all that is asked for
    jobs   processes side by side; a script that asks for more than one needs the `__main__` guard
    Raises InputError for a faulty recipe before anything is fitted.
    """
    for recipe in recipes:
        build(recipe.model, recipe.settings)
        check_told(question, recipe.features.blocks)
        _check_weights(recipe, question)
    refit_seeds = seeds if refit_seeds is None else refit_seeds
    runs = {recipe.name: run_of(recipe, out=out, data_digest=data_digest, folds=folds) for recipe in recipes}
    for run in runs.values():
        write_manifest(run, folds, strategy=strategy, data_digest=data_digest)
    units = [  # recipe by recipe: those that take longest are named first, so that no process waits for the last one
        Unit(recipe, fold, number, seed)
        for recipe in recipes
        for number, fold in enumerate([*folds, None])
        for seed in range(_seeds(recipe, seeds if fold else refit_seeds))
    ]
    open_units = [u for u in units if not is_done(runs[u.recipe.name].unit(u), inputs_of(u, data_digest=data_digest))]
    work = Work(question, {name: run.folder for name, run in runs.items()}, data_digest, cache)
    run_units(open_units, work, jobs=jobs, describe=lambda unit: unit.label)
    return [
        replace(run, seeds=_seeds(run.recipe, seeds), refit_seeds=_seeds(run.recipe, refit_seeds))
        for run in runs.values()
    ]


def _check_weights(recipe: Recipe, question: Question) -> None:
    """Refuse weights that nothing is known for, and those that the recipe's model would not read."""
    if recipe.row_weights == "equal":
        return
    if question.reliability is None:
        raise InputError(
            f"Recipe '{recipe.name}' weights rows by their reliability, but the data folder has no {DE_ROWS.file}. "
            "Write one with `pertcast de`, or set row_weights to equal."
        )
    if not entry(recipe.model).weighted:
        known = [one.name for one in entries().values() if one.weighted]
        raise InputError(
            f"Recipe '{recipe.name}': model '{recipe.model}' does not weight rows. Those that do: {shorten(known)}."
        )


def _seeds(recipe: Recipe, wanted: int) -> int:
    """One seed is enough for a model that draws nothing."""
    return wanted if entry(recipe.model).seeded else min(wanted, 1)


class Work:
    """What is done with a unit: a pure function of recipe, fold and seed, given the question.

    A fold's rows are assembled once for all recipes with the same features; only the fold at work is kept.
    """

    def __init__(self, question: Question, folders: dict[str, Path], data_digest: str, cache: Cache | None):
        self.question, self.folders, self.data_digest, self.cache = question, folders, data_digest, cache
        self.number: int | None = None
        self.kept: dict[tuple[FeatureConfig, str, float | None, str, str], Assembled] = {}

    def __call__(self, unit: Unit) -> None:
        """Fit one model on one fold with one seed, and write its directory."""
        rows = self.rows(unit)
        model, predictions = self.fitted(unit)
        run, log = Run(self.folders[unit.recipe.name], unit.recipe), list(getattr(model, "history", []))
        if log:
            write_curves(run, unit, log)
        write_unit(
            run.unit(unit),
            unit,
            model=model,
            features=rows.features,
            predictions=predictions,
            log=log,
            inputs=inputs_of(unit, data_digest=self.data_digest),
        )

    def fitted(self, unit: Unit) -> tuple[Model, Predictions]:
        """Fit one model on one fold with one seed, and predict the rows that it asks for."""
        rows = self.rows(unit)
        model = build(unit.recipe.model, unit.recipe.settings).fit(rows.train, seed=unit.seed)
        asked = rows.valid if unit.fold else rows.test
        values = predict_held_out(model, asked, fitted_on=rows.train if unit.fold else None)
        return model, Predictions(asked.ids, asked.genes, to_response(values, unit.recipe))

    def rows(self, unit: Unit) -> Assembled:
        """Return the fold's rows with the recipe's features."""
        if unit.number != self.number:
            self.number, self.kept = unit.number, {}
        recipe = unit.recipe
        key = (recipe.features, recipe.space, recipe.degrees_of_freedom, recipe.row_weights, recipe.row_noise)
        if key not in self.kept:
            everything, nothing = np.arange(len(self.question)), np.arange(0)
            train, valid = (unit.fold.train, unit.fold.valid) if unit.fold else (everything, nothing)
            question = learned_question(self.question, recipe, train=train, cache=self.cache)
            self.kept[key] = assemble(question, recipe.features, train=train, valid=valid, cache=self.cache)
        return self.kept[key]


def predict_held_out(model: Model, rows: Examples, *, fitted_on: Examples | None, in_sample: bool = False) -> Floats:
    """Predict rows that were not fitted on: (n, g).

    fitted_on   the rows that the model learned from, or None where `rows` are of another table
    in_sample   allow fitted rows, for looking at a fit; such a score must be called in-sample
    Raises LeakError where a (cell type, compound) pair was fitted on and `in_sample` is not given; InputError where
    the model's predictions are not finite or of the wrong shape.
    """
    if fitted_on is not None and not in_sample:
        fitted = set(zip(fitted_on.cell_type, fitted_on.compound, strict=True))
        both = [pair for pair in zip(rows.cell_type, rows.compound, strict=True) if pair in fitted]
        if both:
            first = " / ".join(both[0])
            raise LeakError(
                f"{len(both)} of {len(rows)} rows to be scored were fitted on, first {first}. "
                "Score held-out rows, or say in_sample=True and call the score in-sample."
            )
    values = model.predict(rows)
    shape = (len(rows), len(rows.genes))
    if values.shape != shape or not np.isfinite(values).all():
        kind = "values that are not finite" if values.shape == shape else f"shape {values.shape} instead of {shape}"
        name = type(model).__name__
        raise InputError(f"Model {name} predicts {kind}. Lower its learning rate or check its settings.")
    return values


def collect(runs: Sequence[Run], question: Question, folds: list[Fold]) -> OutOfFold:
    """Gather the out-of-fold predictions of finished runs, seeds averaged."""
    rows = np.concatenate([fold.valid for fold in folds])
    seen = [np.isin(question.compound[fold.valid], question.compound[fold.train]) for fold in folds]
    number = np.concatenate([np.full(len(fold.valid), k) for k, fold in enumerate(folds)])
    members = {}
    for run in runs:
        parts = [_seed_mean(run, f"fold{k}", "oof.parquet").values for k in range(len(folds))]
        members[run.recipe.name] = np.concatenate(parts)
    return OutOfFold(rows, number, np.concatenate(seen), members)


def fit_on_all(question: Question, names: Sequence[str]) -> dict[str, Floats]:
    """Fit models that need no features on all training rows, and predict the test rows: {name: (m, g)}."""
    rows = assemble(question, FeatureConfig(), train=np.arange(len(question)), valid=np.arange(0))
    return {name: build(name).fit(rows.train, seed=0).predict(rows.test) for name in names}


def test_predictions(runs: Sequence[Run]) -> dict[str, Predictions]:
    """Gather the test predictions of the refits on all rows, seeds averaged."""
    return {run.recipe.name: _seed_mean(run, "refit", "test.parquet") for run in runs}


def _seed_mean(run: Run, part: str, name: str) -> Predictions:
    units = run.units(part)
    if not units:
        raise InputError(f"Run '{run.folder}' has no finished unit '{part}'. Run `pertcast cv` again to finish it.")
    return mean_predictions([unit / name for unit in units])
