"""What the command line, the notebooks and the tests all call: from a folder of files to a scored submission."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pertcast import submission as csv
from pertcast import tuning
from pertcast.config import load_preset, load_recipe
from pertcast.correction import BAGS
from pertcast.engine.local import available_jobs
from pertcast.errors import InputError
from pertcast.io.atomic import make_folder
from pertcast.io.cache import Cache
from pertcast.io.tables import (
    Competition,
    check_competition,
    question_of,
    read_competition,
    read_solution,
    read_template,
)
from pertcast.leaderboard import keep_table
from pertcast.outcome import CVResult, Submitted, cv_result, submit
from pertcast.predict import Compound, Forecast, Forecaster, check_suffix, write_forecasts
from pertcast.preflight import check_device, check_recipes, is_told, placed, prepare_place, told_apart
from pertcast.runs import open_run, read_manifest
from pertcast.scoring import FLOORS, Scope, bare_table, errors_table, score_submission
from pertcast.search import make_space
from pertcast.tuning import Scorer, Tuned
from pertcast.validation import cross_validate as cv
from pertcast.validation.folds import group_labels, make_folds
from pertcast.validation.scores import ScoreTable

RUNS = Path("data/interim/runs")
CACHE = Path("data/interim/features")
TUNING = Path("data/interim/tuning")


def cross_validate(
    recipes: Sequence[str],
    data: Path,
    *,
    out: Path = RUNS,
    folds: str = "task",
    seeds: int = 1,
    refit_seeds: int | None = None,
    changes: Sequence[str] = (),
    device: str = "auto",
    jobs: int = 1,
    cache: Path = CACHE,
    layer: str | None = None,
    unseen: Sequence[str] = (),
    described: Mapping[str, Sequence[str]] | None = None,
) -> CVResult:
    """Cross-validate recipes, given by name or TOML file, beside the floors.

    unseen        further recipes, tried where compounds are asked for that training never saw
    described     recipe -> others, best first: one takes its place if the data tell all that it reads of untreated
                  cells and compounds
    seeds         of each fold, for models that draw at random; `refit_seeds` of the refit on all rows (None: as many)
    changes       such as `settings.width=64`, applied to every recipe given
    device        `auto`, `cpu` or `cuda`, for the models that are trained on one
    jobs          processes side by side, 0 for one per core; scripts then need the `__main__` guard
    layer         target layer of an OpenProblems h5ad
    Raises InputError for anything wrong with data or recipes, before any model is fitted.
    """
    check_device(device)
    loaded = [placed(load_recipe(name, changes), device) for name in (*unseen, *recipes)]
    instead = {
        name: [placed(load_recipe(other, changes), device) for other in others]
        for name, others in (described or {}).items()
    }
    check_recipes([*loaded, *(recipe for others in instead.values() for recipe in others)])
    competition = read_competition(data, layer=layer)
    if not competition.unknown_compounds:
        loaded = [recipe for recipe in loaded if recipe.name not in unseen]
    floors = [load_recipe(name) for name in FLOORS if name not in {r.name for r in loaded}]
    question = question_of(competition)
    loaded = [
        next((other for other in instead.get(recipe.name, ()) if is_told(question, other)), recipe) for recipe in loaded
    ]
    made = make_folds(folds, question, groups=group_labels(folds, question))
    make_folder(out)
    runs = cv.cross_validate(
        question,
        [*loaded, *floors],
        made,
        strategy=folds,
        seeds=seeds,
        refit_seeds=refit_seeds,
        out=out,
        data_digest=competition.digest,
        cache=Cache(cache),
        jobs=jobs or available_jobs(),
    )
    result = cv_result(competition, question, made, runs)
    keep_table(
        out, result.table, runs=runs, folds=made, data_digest=competition.digest, simulated=competition.simulated
    )
    return result


def ensemble(
    runs: Sequence[Path], data: Path, out: Path, *, correct: bool = True, layer: str | None = None
) -> Submitted:
    """Blend finished runs of the same folds into a submission.

    correct   add what the blend leaves over, gene by gene; without it, rows are sums of the runs' by the weights alone
    """
    prepare_place(out, "kaggle")
    opened = told_apart([open_run(folder) for folder in runs])
    competition = read_competition(data, layer=layer)
    manifests = [read_manifest(run) for run in opened]
    folds = manifests[0][0]
    for run, (own, digest) in zip(opened, manifests, strict=True):
        if digest != competition.digest:
            raise InputError(f"Run '{run.folder}' was fitted on other data than '{data}'. Run `pertcast cv` on these.")
        if [f.valid.tolist() for f in own] != [f.valid.tolist() for f in folds]:
            raise InputError(f"Runs '{opened[0].folder}' and '{run.folder}' have other folds; blend runs of one `cv`.")
    return submit(
        cv_result(competition, question_of(competition), folds, opened),
        out,
        name="ensemble",
        bags=BAGS if correct else 0,
    )


def make_submission(
    data: Path,
    out: Path,
    *,
    preset: str = "default",
    style: str = "kaggle",
    runs: Path = RUNS,
    device: str = "auto",
    jobs: int = 1,
    cache: Path = CACHE,
    layer: str | None = None,
) -> Submitted:
    """Do the main job: cross-validate the preset's recipes, blend them, write, validate and, where possible, score.

    out     a file (CSV, or h5ad in the style `openproblems`), or a folder: then
            `<date>_<preset>_<cv>_<hash>.csv` with its JSON, and `submission.csv`, are written there
    """
    prepare_place(out, style)
    chosen = load_preset(preset)
    result = cross_validate(
        chosen.recipes,
        data,
        out=runs,
        folds=chosen.folds,
        seeds=chosen.seeds,
        refit_seeds=chosen.refit_seeds,
        device=device,
        jobs=jobs,
        cache=cache,
        layer=layer,
        unseen=chosen.unseen,
        described=chosen.described,
    )
    return submit(
        result,
        out,
        name=chosen.name,
        style=style,
        bags=BAGS if chosen.correction_bags is None else chosen.correction_bags,
    )


def predict(
    run: Path, cell_type: str, compounds: Sequence[Compound], *, out: Path | None = None, device: str = "auto"
) -> list[Forecast]:
    """Predict the response of one cell type to any compounds with the refits of a finished run, averaged.

    run         folder of one run of `cross_validate` or `make_submission`; nothing else is read
    compounds   structures, or names of training compounds
    out         Parquet or CSV file for a row per compound
    Raises InputError for a run without a refit, a cell type or name that training did not show, and bad SMILES.
    """
    check_device(device)
    if out is not None:
        check_suffix(out)
    opened = open_run(run)
    forecasts = Forecaster(replace(opened, recipe=placed(opened.recipe, device))).predict(cell_type, compounds)
    if out is not None:
        write_forecasts(out, forecasts)
    return forecasts


def tune(
    recipe: str,
    data: Path,
    *,
    trials: int,
    out: Path = TUNING,
    folds: str = "task",
    search: Sequence[str] = (),
    changes: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    cache: Path = CACHE,
    layer: str | None = None,
) -> tuple[Tuned, ScoreTable]:
    """Tune a recipe on some of the folds; compare tuned and own settings, and the floors, on folds it never saw.

    trials    in all: those of earlier calls with the same content count
    search    such as `settings.width=16:128:log`; without any, the fields declared for the recipe's model
    Raises InputError for anything wrong with data, recipe or search, before any trial.
    """
    check_device(device)
    own = load_recipe(recipe, changes)
    check_recipes([own])
    space = make_space(own, search)
    competition = read_competition(data, layer=layer)
    question = question_of(competition)
    made = make_folds(folds, question, groups=group_labels(folds, question))
    make_folder(out)
    scorer = Scorer(question, data_digest=competition.digest, folder=out / "errors", cache=Cache(cache), device=device)
    tuned = tuning.tune(own, space, made, scorer, trials=trials, seed=seed, out=out)
    aside = [fold for fold in made if fold.name in tuned.unseen.folds]
    errors = {own.name: tuned.unseen.own, tuned.recipe.name: tuned.unseen.tuned}
    for name in FLOORS:
        if name not in errors:
            errors[name] = np.concatenate([scorer.errors(load_recipe(name), fold) for fold in aside])
    return tuned, errors_table(competition, question, aside, errors)


def check(data: Path, *, layer: str | None = None) -> list[str]:
    """List all faults of a competition folder; none if it is fine."""
    return check_competition(data, layer=layer)


def validate(path: Path, data: Path) -> csv.Checked:
    """Check a CSV or an OpenProblems h5ad against its competition; the InputError that is raised has every fault."""
    template = read_template(data)
    if path.suffix == ".h5ad":
        from pertcast.io.cells import read_openproblems_prediction

        values = read_openproblems_prediction(path, ids=template.ids, genes=template.genes)
        return csv.Checked(template.ids, template.genes, values)
    return csv.validate_submission(path, ids=template.ids, genes=template.genes)


def models() -> list[dict[str, str]]:
    """Name each registered model, its kind and what it is."""
    from pertcast.models.registry import described

    return described()


def score(path: Path, solution: Path, *, data: Path | None = None) -> tuple[ScoreTable, Scope | None]:
    """Score a submission beside what floors and oracle reach on the same rows.

    data   competition folder that floors and ceiling come from; by default the solution's own folder, if it is one.
           Without it the floor is zeros, and nothing can be drawn by compound
    """
    truth = read_solution(solution)
    if data is None and check_competition(solution.parent):
        given = csv.validate_submission(path, ids=truth.ids, genes=truth.genes)
        return bare_table(truth, given.values, path.name), None
    return score_submission(read_competition(data or solution.parent), solution, path)


def read(data: Path, *, layer: str | None = None) -> Competition:
    """Read and check a competition folder."""
    return read_competition(data, layer=layer)


def data_or_demo(data: str | Path, *, size: str = "tiny") -> Path:
    """Return the folder named, or make a SIMULATED competition in a temporary folder where none is."""
    if data:
        return Path(data)
    from pertcast.simulate.demo import write_demo

    folder = Path(tempfile.mkdtemp(prefix="pertcast-")) / f"demo-{size}"
    write_demo(folder, size=size)
    return folder
