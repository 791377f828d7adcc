"""Tune fields of a recipe on some of the folds, and score what was found on folds that tuning never saw.

The best of many trials looks better than it is on the folds that chose it. So a part of the folds is set aside: their
held-out rows neither score a trial nor train one. Only then are tuned and own settings compared on them, row by row.

Everything is drawn from a seed and kept by content: trials in SQLite, errors of every fitted fold in files. A study
that was interrupted goes on as if it had not been.
Source: Cawley and Talbot 2010 (bias of selection), jmlr.org/papers/v11/cawley10a.html.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pertcast import __version__
from pertcast.config import Recipe, recipe_toml
from pertcast.engine.local import run_units
from pertcast.errors import InputError
from pertcast.io.atomic import atomic_path, write_json
from pertcast.io.cache import Cache
from pertcast.metrics.bootstrap import grouped_standard_error
from pertcast.metrics.rowwise import per_row_mrrmse
from pertcast.preflight import placed
from pertcast.runs import Unit, code_digest, fold_digest
from pertcast.search import Dimension, value_of, with_values
from pertcast.types import Floats, Fold, Question
from pertcast.validation.cross_validate import Work

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

SET_ASIDE = 3  # one fold in so many of each kind, at least one of two
STARTUP = 10  # trials drawn at random before the sampler learns from them
UNPRUNED = 5  # trials that are finished whatever they score


@dataclass(frozen=True, slots=True)
class Compared:
    """Errors of own and tuned settings on the same rows."""

    folds: tuple[str, ...]
    rows: np.ndarray  # (n,)  of the training table
    own: Floats  # (n,)  RMSE of each row
    tuned: Floats  # (n,)
    standard_error: float  # of the mean difference, over compounds

    @property
    def difference(self) -> float:
        """MRRMSE of tuned minus own settings: below 0 where tuning helped."""
        return float((self.tuned - self.own).mean())

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            "folds": self.folds,
            "rows": len(self.rows),
            "own": float(self.own.mean()),
            "tuned": float(self.tuned.mean()),
            "difference": self.difference,
            "standard_error": self.standard_error,
        }


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning found, and what it is worth."""

    own: Recipe
    recipe: Recipe
    path: Path  # TOML file of `recipe`
    folder: Path  # of the study
    space: tuple[Dimension, ...]
    trials: int
    pruned: int
    best: int  # number of the best trial
    seen: Compared  # folds that chose the settings: optimistic
    unseen: Compared  # folds that tuning never saw

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Own and tuned value of every field that was searched."""
        fields = [dimension.field for dimension in self.space]
        return {field: (value_of(self.own, field), value_of(self.recipe, field)) for field in fields}

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        changes = {field: {"own": own, "tuned": tuned} for field, (own, tuned) in self.changes().items()}
        counts = {"trials": self.trials, "pruned": self.pruned, "best_trial": self.best}
        scores = {"seen": self.seen.as_dict(), "unseen": self.unseen.as_dict()}
        return {"recipe": str(self.path), "study": str(self.folder), "fields": changes, **counts, **scores}


def split_folds(folds: Sequence[Fold]) -> tuple[list[Fold], list[Fold]]:
    """Set the last folds of each kind aside: folds to tune on, and folds that tuning never sees.

    Rows that the latter hold out are dropped from the training rows of the former.
    Raises InputError where that leaves no fold, or no rows, to tune on.
    """
    aside: list[Fold] = []
    for _, group in groupby(folds, key=lambda fold: fold.name.rpartition("-")[0]):
        kind = list(group)
        aside += kind[len(kind) - (max(1, len(kind) // SET_ASIDE) if len(kind) > 1 else 0) :]
    hidden_names = {fold.name for fold in aside}
    tuning = [fold for fold in folds if fold.name not in hidden_names]
    if not aside or not tuning:
        names = ", ".join(fold.name for fold in folds)
        raise InputError(f"Tuning needs two folds of a kind, one of them never seen; got {names}. Use --folds random.")
    hidden = np.concatenate([fold.valid for fold in aside])
    return [replace(fold, train=np.setdiff1d(fold.train, hidden)) for fold in tuning], aside


class Scorer:
    """Row-wise errors of recipes on folds, each fitted once and kept by content."""

    def __init__(self, question: Question, *, data_digest: str, folder: Path, cache: Cache | None, device: str):
        self.question, self.data_digest, self.cache, self.device = question, data_digest, cache, device
        self.kept = Cache(folder)

    def errors(self, recipe: Recipe, fold: Fold) -> Floats:
        """Fit on the training rows of a fold with seed 0: RMSE of each held-out row (n,)."""

        def fit() -> dict[str, Floats]:
            work = Work(self.question, {}, self.data_digest, self.cache)
            predicted = work.fitted(Unit(placed(recipe, self.device), fold, number=0, seed=0))[1]
            return {"rmse": per_row_mrrmse(y_true=self.question.y[fold.valid], y_pred=predicted.values)}

        nameless = recipe.model_copy(update={"name": recipe.model})  # the same settings under another name are the same
        inputs = {"recipe": nameless.digest(), "fold": fold_digest(fold), **_versions(self.data_digest)}
        return self.kept.get_or_build("errors", inputs=inputs, build=fit)["rmse"]

    def compared(self, own: Recipe, tuned: Recipe, folds: Sequence[Fold]) -> Compared:
        """Score two recipes on the same rows of some folds."""
        errors = [np.concatenate([self.errors(recipe, fold) for fold in folds]) for recipe in (own, tuned)]
        rows = np.concatenate([fold.valid for fold in folds])
        error = grouped_standard_error(errors[1] - errors[0], self.question.compound[rows])
        return Compared(tuple(fold.name for fold in folds), rows, *errors, error)


def tune(
    recipe: Recipe,
    space: Sequence[Dimension],
    folds: Sequence[Fold],
    scorer: Scorer,
    *,
    trials: int,
    seed: int,
    out: Path,
) -> Tuned:
    """Search the space with `trials` trials in all, counting those of earlier calls, and write `<name>-tuned.toml`.

    folds   all of a strategy; some are set aside, see `split_folds`
    Raises InputError where the own settings cannot be fitted, or no trial could be.
    """
    tuning, aside = split_folds(folds)
    folder = out / f"{recipe.name}-{_digest(recipe, space, [*tuning, *aside], scorer, seed=seed)}"
    folder.mkdir(parents=True, exist_ok=True)
    with _study(folder / "trials.db") as study:
        done = len(_counted(study))
        numbers = list(range(done, trials))
        for fold in tuning if numbers else ():
            scorer.errors(recipe, fold)  # what is wrong with data or recipe is said before any trial
        run_units(
            numbers,
            lambda number: _trial(study, _sampler_seed(seed, number), recipe, space, tuning, scorer),
            jobs=1,
            describe=lambda number: f"{recipe.name} trial {number}{_best_so_far(study)}",
        )
        counted = _counted(study)
        finished = [number for number, trial in enumerate(counted) if _is_finished(trial)]
        if not finished:
            first = counted[0].user_attrs["error"] if counted else "none was asked for"
            raise InputError(f"No trial could be fitted: {first}\nSearch smaller ranges with --search.")
        best = min(finished, key=lambda number: counted[number].value)
        values = counted[best].user_attrs["values"]
    tuned = with_values(recipe, values)
    seen, unseen = (scorer.compared(recipe, tuned, part) for part in (tuning, aside))
    tuned = _named(tuned, recipe, unseen, trials=len(counted))
    path = out / f"{tuned.name}.toml"
    with atomic_path(path) as temporary:
        temporary.write_text(recipe_toml(tuned), encoding="utf-8")
    result = Tuned(
        recipe, tuned, path, folder, tuple(space), len(counted), len(counted) - len(finished), best, seen, unseen
    )
    write_json(folder / "tuned.json", result.as_dict())
    return result


def _trial(
    study: Study, sampler_seed: int, recipe: Recipe, space: Sequence[Dimension], folds: list[Fold], scorer: Scorer
) -> None:
    """Draw settings and score them fold by fold; stop where others were better by then."""
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    study.sampler = TPESampler(seed=sampler_seed, n_startup_trials=STARTUP)
    trial: Trial = study.ask()
    values = {dimension.field: dimension.suggest(trial) for dimension in space}
    trial.set_user_attr("values", values)
    errors: list[Floats] = []
    try:
        for step, fold in enumerate(folds):
            errors.append(scorer.errors(with_values(recipe, values), fold))
            trial.report(float(np.concatenate(errors).mean()), step)
            if step < len(folds) - 1 and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return
    except InputError as error:  # settings that do not go together, or training that does not converge
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=TrialState.PRUNED)
        return
    study.tell(trial, float(np.concatenate(errors).mean()))


@contextmanager
def _study(path: Path) -> Iterator[Study]:
    """Open the trials of a study, or begin it. A trial that an earlier call left unfinished is set aside.

    Raises InputError where the file is no study.
    """
    import optuna
    from optuna.trial import TrialState

    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT name FROM sqlite_master")
    except sqlite3.DatabaseError as error:
        fix = "Remove it and run the same command; folds that were fitted are not fitted again."
        raise InputError(f"Trials '{path}' cannot be read: {error}. {fix}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
    try:
        study = optuna.create_study(
            storage=storage,
            study_name="tune",
            direction="minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED),
        )
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _counted(study: Study) -> list[FrozenTrial]:
    """Trials that were brought to an end, in order; those that were interrupted are drawn again."""
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _is_finished(trial: FrozenTrial) -> bool:
    """Whether a trial was scored on all folds."""
    return trial.state.name == "COMPLETE"


def _best_so_far(study: Study) -> str:
    values = [trial.value for trial in study.trials if _is_finished(trial)]
    return f", best MRRMSE {min(values):.4f}" if values else ""


def _sampler_seed(seed: int, number: int) -> int:
    """Seed each trial on its own, so that a study which was interrupted draws what it would have drawn."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _versions(data_digest: str) -> dict[str, str]:
    return {"data": data_digest, "code": code_digest(), "pertcast": __version__}


def _digest(recipe: Recipe, space: Sequence[Dimension], folds: Sequence[Fold], scorer: Scorer, *, seed: int) -> str:
    """Eight hex digits of everything that trials follow from: studies of different content never meet."""
    content = {
        "recipe": recipe.digest(),
        "space": [dimension.as_dict() for dimension in space],
        "folds": [fold_digest(fold) for fold in folds],
        "seed": seed,
        **_versions(scorer.data_digest),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _named(tuned: Recipe, own: Recipe, unseen: Compared, *, trials: int) -> Recipe:
    reason = (
        f"'{own.name}' after {trials} trials: MRRMSE {unseen.difference:+.4f} (standard error "
        f"{unseen.standard_error:.4f}) on folds that tuning never saw"
    )
    return tuned.model_copy(update={"name": f"{own.name}-tuned", "reason": reason})
