"""What the command line, the notebooks and the tests all call: from a folder of files to a scored submission."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np

from pertcast import __version__
from pertcast import submission as csv
from pertcast.config import Recipe, load_preset, load_recipe
from pertcast.engine.local import available_jobs
from pertcast.ensemble import Blended, blend_members
from pertcast.errors import InputError, several, shorten, unknown
from pertcast.features.assemble import BLOCKS
from pertcast.io.cache import Cache
from pertcast.io.tables import (
    Competition,
    Solution,
    check_competition,
    read_competition,
    read_predictions,
    read_solution,
    read_template,
)
from pertcast.runs import Run, open_run, read_manifest
from pertcast.types import Floats, Fold, Ints, Question, Strings
from pertcast.validation import cross_validate as cv
from pertcast.validation.folds import make_folds
from pertcast.validation.scores import Scored, ScoreTable, make_table, score_rows

FLOORS = ("zeros", "gene-mean", "cell-type-mean", "compound-mean", "additive")
BLEND = "blend"
ORACLE = "oracle"
RUNS = Path("data/interim/runs")
CACHE = Path("data/interim/features")
FORMATS = {"kaggle": ".csv", "openproblems": ".h5ad"}  # and how their files end
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Scope:
    """Rows that were scored, as a report draws them."""

    compound: Strings  # (n,)
    cell_type: Strings  # (n,)
    y_true: Floats  # (n, g)
    y_pred: Floats  # (n, g)  by the best model, or the submission


@dataclass(frozen=True, slots=True)
class CVResult:
    """Cross-validated models with their score table."""

    competition: Competition
    question: Question
    folds: list[Fold]
    runs: list[Run]
    held_out: cv.OutOfFold
    table: ScoreTable
    scope: Scope


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submission on disk, how it was blended, and what is known of its score."""

    path: Path
    simulated: bool
    blended: Blended
    cv_table: ScoreTable
    scope: Scope
    score_table: ScoreTable | None  # on the solution, where the folder has one
    remarks: list[str]


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
) -> CVResult:
    """Cross-validate recipes, given by name or TOML file, beside the floors.

    seeds         of each fold, for models that draw at random; `refit_seeds` of the refit on all rows (None: as many)
    changes       such as `settings.width=64`, applied to every recipe given
    device        `auto`, `cpu` or `cuda`, for the models that are trained on one
    jobs          processes side by side, 0 for one per core; scripts then need the `__main__` guard
    layer         target layer of an OpenProblems h5ad
    Raises InputError for anything wrong with data or recipes, before any model is fitted.
    """
    _check_device(device)
    loaded = [_placed(load_recipe(name, changes), device) for name in recipes]
    _check_recipes(loaded)
    floors = [load_recipe(name) for name in FLOORS if name not in {r.name for r in loaded}]
    competition = read_competition(data, layer=layer)
    question = question_of(competition)
    made = make_folds(folds, question, groups=_compound_groups(folds, question))
    _make_folder(out)
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
    return _cv_result(competition, question, made, runs)


def ensemble(runs: Sequence[Path], data: Path, out: Path, *, layer: str | None = None) -> Submitted:
    """Blend finished runs of the same folds into a submission; nothing is fitted but the weights."""
    _prepare_place(out, "kaggle")
    opened = _told_apart([open_run(folder) for folder in runs])
    competition = read_competition(data, layer=layer)
    manifests = [read_manifest(run) for run in opened]
    folds = manifests[0][0]
    for run, (own, digest) in zip(opened, manifests, strict=True):
        if digest != competition.digest:
            raise InputError(f"Run '{run.folder}' was fitted on other data than '{data}'. Run `pertcast cv` on these.")
        if [f.valid.tolist() for f in own] != [f.valid.tolist() for f in folds]:
            raise InputError(f"Runs '{opened[0].folder}' and '{run.folder}' have other folds; blend runs of one `cv`.")
    return _submit(_cv_result(competition, question_of(competition), folds, opened), out, name="ensemble")


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
    _prepare_place(out, style)
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
    )
    return _submit(result, out, name=chosen.name, style=style)


def check(data: Path, *, layer: str | None = None) -> list[str]:
    """List all faults of a competition folder; none if it is fine."""
    return check_competition(data, layer=layer)


def validate(path: Path, data: Path) -> csv.Checked:
    """Check a submission against its competition; every fault is in the InputError that is raised."""
    template = read_template(data)
    return csv.validate_submission(path, ids=template.ids, genes=template.genes)


def models() -> list[dict[str, str]]:
    """Name each registered model, its kind and what it is."""
    from pertcast.models.registry import entries

    kinds = {True: "floor", False: "model"}
    return [{"name": e.name, "kind": kinds[e.floor], "summary": e.summary} for e in entries().values()]


def model_lines() -> list[str]:
    """Describe each registered model in a line."""
    return [f"{model['name']:16s} {model['kind']:6s} {model['summary']}" for model in models()]


def score(path: Path, solution: Path, *, data: Path | None = None) -> tuple[ScoreTable, Scope | None]:
    """Score a submission beside what floors and oracle reach on the same rows.

    data   competition folder that floors and ceiling come from; by default the solution's own folder, if it is one.
           Without it the floor is zeros, and nothing can be drawn by compound
    """
    truth = read_solution(solution)
    if data is None and check_competition(solution.parent):
        given = csv.validate_submission(path, ids=truth.ids, genes=truth.genes)
        return _bare_table(truth, given.values, path.name), None
    competition = read_competition(data or solution.parent)
    order = competition.submission_genes
    truth = read_solution(solution, ids=competition.test["id"].to_numpy(), genes=order)
    given = csv.validate_submission(path, ids=truth.ids, genes=order)
    column = {gene: i for i, gene in enumerate(order)}
    columns = [column[gene] for gene in competition.genes]
    truth = replace(truth, y=truth.y[:, columns], genes=competition.genes)
    y_pred = given.values[:, columns].astype(np.float32)
    question = question_of(competition)
    scope = Scope(question.test_compound, question.test_cell_type, truth.y, y_pred)
    return _solution_table(competition, question, truth, {path.name: y_pred}), scope


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


def question_of(competition: Competition) -> Question:
    """Turn the tables of a competition into arrays."""
    train, test = competition.train, competition.test
    columns = ("cell_type", "sm_name", "SMILES")
    return Question(
        competition.genes,
        *(train[name].to_numpy(object) for name in columns),
        competition.y,
        test["id"].to_numpy(),
        *(test[name].to_numpy(object) for name in columns),
    )


def _check_device(device: str) -> None:
    if device not in DEVICES:
        raise InputError(unknown("device", device, DEVICES))
    if device == "cuda":
        from pertcast.nn.fit import choose_device

        choose_device(device)


def _check_recipes(recipes: Sequence[Recipe]) -> None:
    """Refuse names that would hide another run or another line of the table, and blocks that do not exist."""
    counts = Counter(recipe.name for recipe in recipes)
    faults = [f"{count} recipes have the name '{name}'" for name, count in counts.items() if count > 1]
    for name, recipe in {recipe.name: recipe for recipe in recipes}.items():
        if name in (BLEND, ORACLE) or (name in FLOORS and name != recipe.model):
            faults.append(f"the name '{name}' stands for something else in the score table")
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            faults.append(f"the name '{name}' is not made of letters, digits, '-', '_' and '.'")
        faults += [unknown("feature block", block, BLOCKS) for block in recipe.features.blocks if block not in BLOCKS]
    if faults:
        raise InputError(several("Recipes", faults, fix="Change `name` or `features.blocks` in the TOML file."))


def _prepare_place(out: Path, style: str) -> None:
    """Find out before any model is fitted whether the submission can be written where it shall go."""
    if style not in FORMATS:
        raise InputError(unknown("format", style, FORMATS))
    ending = FORMATS[style]
    if not _is_folder(out) and out.suffix != ending:
        other = out.with_suffix(ending)
        raise InputError(f"A submission in the form '{style}' must end in '{ending}', got '{out}'. Write to '{other}'.")
    _make_folder(out if _is_folder(out) else out.parent)


def _is_folder(out: Path) -> bool:
    return out.is_dir() or not out.suffix


def _make_folder(folder: Path) -> None:
    """Make a folder that files can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        fix = "Choose another place, or move away what stands there."
        raise InputError(f"Folder '{folder}' cannot be written to: {error.strerror}. {fix}") from error


def _told_apart(runs: list[Run]) -> list[Run]:
    """Call runs of the same recipe name by their folders, so that none stands for another."""
    repeated = [f"{path}" for path, count in Counter(run.folder.resolve() for run in runs).items() if count > 1]
    if repeated:
        raise InputError(f"Runs are given more than once: {shorten(repeated)}. Name each once.")
    counts = Counter(run.recipe.name for run in runs)
    return [
        run if counts[run.recipe.name] == 1 else replace(run, recipe=run.recipe.model_copy(update={"name": name}))
        for run, name in ((run, run.folder.resolve().name) for run in runs)
    ]


def _placed(recipe: Recipe, device: str) -> Recipe:
    """Say where a recipe's model is trained, if it is one that has a choice."""
    from pertcast.models.registry import entry

    return recipe.on_device(device) if "training" in entry(recipe.model).config.model_fields else recipe


def _compound_groups(strategy: str, question: Question) -> Strings | None:
    """Label each training row's compound so that stereoisomers, or compounds of one scaffold, stay together."""
    from pertcast.features import chemistry

    if strategy not in ("compound", "scaffold"):
        return None
    label = chemistry.inchikey_block if strategy == "compound" else chemistry.scaffolds
    known = sorted({s for s in question.smiles if isinstance(s, str)})
    labels = dict(zip(known, label(known), strict=True))
    pairs = zip(question.smiles, question.compound, strict=True)
    return np.array([labels.get(smiles, f"name:{name}") for smiles, name in pairs], dtype=object)


def _cv_result(competition: Competition, question: Question, folds: list[Fold], runs: list[Run]) -> CVResult:
    """Collect finished runs and score them on the rows that were held out."""
    held_out = cv.collect(runs, question, folds)
    y, cell_type, compound = (x[held_out.rows] for x in (question.y, question.cell_type, question.compound))
    floors = _names_of(runs, FLOORS)
    scored = [
        score_rows(name, "floor" if name in floors else "model", y_true=y, y_pred=values)
        for name, values in held_out.members.items()
    ]
    if not any(s.kind == "floor" for s in scored):  # runs blended without theirs
        scored.append(score_rows("zeros", "floor", y_true=y, y_pred=np.zeros_like(y)))
    oracle = _oracle(competition, "oracle_train.parquet", np.arange(len(question)))
    if oracle is not None:
        scored.append(score_rows(ORACLE, "ceiling", y_true=y, y_pred=oracle[held_out.rows]))
    parts = {c: cell_type == c for c in question.target_types}
    parts |= {fold.name: held_out.fold == k for k, fold in enumerate(folds)}
    title = f"MRRMSE of {len(y)} held-out training rows in {len(folds)} folds, {_kind(competition)}"
    table = make_table(title, scored, compound=compound, parts=parts)
    best = next(line.name for line in table.lines if line.name in held_out.members)
    scope = Scope(compound, cell_type, y, held_out.members[best])
    return CVResult(competition, question, folds, runs, held_out, table, scope)


def _submit(result: CVResult, out: Path, *, name: str, style: str = "kaggle") -> Submitted:
    """Blend, write, read back and validate, and score where the truth lies beside the data."""
    competition, question = result.competition, result.question
    zeros = _names_of(result.runs, ("zeros",))  # no use in a blend
    if len(zeros) == len(result.runs):
        raise InputError(f"There is nothing to blend but zeros: {shorten(zeros)}. Name a run of another model.")
    blended = blend_members(question, result.held_out, cv.test_predictions(result.runs), leave_out=zeros)
    scope = replace(result.scope, y_pred=blended.held_out)
    line = score_rows(BLEND, "model", y_true=scope.y_true, y_pred=scope.y_pred, note=blended.text())
    table = result.table.with_scored(line)
    facts = _facts(result, blended, table)
    path = _write(competition, blended, out, name=name, style=style, cv_score=table.line(BLEND).mrrmse, facts=facts)
    remarks = _remarks(competition, question)
    solution = competition.folder / "solution.parquet"
    score_table = None
    if solution.is_file():
        truth = read_solution(solution, ids=question.test_ids, genes=question.genes)
        score_table = _solution_table(competition, question, truth, {BLEND: blended.test})
    return Submitted(path, competition.simulated, blended, table, scope, score_table, remarks)


def _write(
    competition: Competition, blended: Blended, out: Path, *, name: str, style: str, cv_score: float, facts: dict
) -> Path:
    """Write the file in the form asked for, and read a CSV back to be sure that it is accepted."""
    ids, genes = competition.test["id"].to_numpy(), competition.submission_genes
    column = {gene: i for i, gene in enumerate(competition.genes)}
    values = blended.test[:, [column[gene] for gene in genes]]
    if style == "openproblems":
        from pertcast.io.cells import write_openproblems_prediction

        path = out / "prediction.h5ad" if _is_folder(out) else out
        write_openproblems_prediction(
            path, ids=ids, genes=genes, values=values, dataset_id=competition.folder.name, method_id=f"pertcast_{name}"
        )
        return path
    if _is_folder(out):
        path = csv.publish(
            out, ids=ids, genes=genes, values=values, name=name, cv_score=cv_score, facts=facts, today=date.today()
        )
    else:
        path = csv.write_with_facts(out, ids=ids, genes=genes, values=values, facts=facts)
    csv.validate_submission(path, ids=ids, genes=genes)
    return path


def _names_of(runs: Sequence[Run], models: Sequence[str]) -> tuple[str, ...]:
    return tuple(run.recipe.name for run in runs if run.recipe.model in models)


def _facts(result: CVResult, blended: Blended, table: ScoreTable) -> dict:
    """Everything a reader of the CSV may ask later: what was blended how, on which data, with which scores."""
    return {
        "pertcast": __version__,
        "data": result.competition.digest,
        "simulated": result.competition.simulated,
        "runs": [run.folder.name for run in result.runs],
        "recipes": [run.recipe.model_dump(mode="json") for run in result.runs],
        "blends": {seen: blend.as_dict() for seen, blend in blended.blends.items()},
        "cv": table.as_dict(),
        "remarks": _remarks(result.competition, result.question),
        "from_cell_type_alone": [int(i) for i in _without_structure(result.competition, result.question)],
    }


def _remarks(competition: Competition, question: Question) -> list[str]:
    """Say what a reader of the score must know: simulated data, compounds that training never saw."""
    remarks = ["The data are simulated: no score here says anything about real cells."] if competition.simulated else []
    if competition.unknown_compounds:
        unseen = np.isin(question.test_compound, competition.unknown_compounds)
        bare = _without_structure(competition, question)
        names = f"{len(competition.unknown_compounds)} compounds that training never saw"
        remarks.append(
            f"{unseen.sum()} of {len(unseen)} rows ask for {names}: {shorten(competition.unknown_compounds)}."
        )
        if len(bare):
            rows = f"Rows without a SMILES, predicted from the cell type alone: {len(bare)}"
            remarks.append(f"{rows}, id {shorten(bare, most=20)}.")
    return remarks


def _without_structure(competition: Competition, question: Question) -> Ints:
    """Find the ids of the rows of whose compound nothing is known but the name."""
    unseen = np.isin(question.test_compound, competition.unknown_compounds)
    return question.test_ids[unseen & np.array([not isinstance(s, str) for s in question.test_smiles])]


def _solution_table(
    competition: Competition, question: Question, truth: Solution, predictions: dict[str, Floats]
) -> ScoreTable:
    """Score predictions of the test rows beside floors fitted on all training rows, and the oracle."""
    scored = [score_rows(name, "model", y_true=truth.y, y_pred=values) for name, values in predictions.items()]
    scored += [
        score_rows(name, "floor", y_true=truth.y, y_pred=values)
        for name, values in cv.fit_on_all(question, FLOORS).items()
    ]
    oracle = _oracle(competition, "oracle.parquet", question.test_ids)
    if oracle is not None:
        scored.append(score_rows(ORACLE, "ceiling", y_true=truth.y, y_pred=oracle))
    parts = _usage_parts(truth) | {c: question.test_cell_type == c for c in question.target_types}
    title = f"MRRMSE of the {len(truth.y)} rows of the solution, {_kind(competition)}"
    return make_table(title, scored, compound=question.test_compound, parts=parts)


def _bare_table(truth: Solution, y_pred: Floats, name: str) -> ScoreTable:
    """Score where nothing is known of the rows but the truth: zeros is the only floor."""
    scored: list[Scored] = [
        score_rows(name, "model", y_true=truth.y, y_pred=y_pred),
        score_rows("zeros", "floor", y_true=truth.y, y_pred=np.zeros_like(truth.y)),
    ]
    title = f"MRRMSE of the {len(truth.y)} rows of the solution (compounds not at hand: interval over rows)"
    return make_table(title, scored, compound=truth.ids.astype(object), parts=_usage_parts(truth))


def _usage_parts(truth: Solution) -> dict[str, np.ndarray]:
    return {usage: truth.usage == usage for usage in ("Public", "Private")}


def _oracle(competition: Competition, name: str, ids: np.ndarray) -> Floats | None:
    """Read the oracle's predictions, which only simulated competitions have."""
    path = competition.folder / name
    return read_predictions(path, ids=ids, genes=competition.genes) if path.is_file() else None


def _kind(competition: Competition) -> str:
    return "SIMULATED data" if competition.simulated else "measured data"
