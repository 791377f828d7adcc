"""What command line, notebooks and tests call for models of cells: fit, predict, evaluate, from file to file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.sparse import csr_array, hstack

from pertcast import __version__
from pertcast.cell_tasks.runs import (
    REFERENCE,
    CellRun,
    Columns,
    cell_inputs,
    open_cell_run,
    write_cell_run,
)
from pertcast.cell_tasks.training import computing, drop_kept, fit_kept, is_begun, kept_beside, on_device, write_curves
from pertcast.cells.mean_shift import MeanShift, shifted
from pertcast.cells.registry import build, described, entries
from pertcast.cells.streamed import split_streamed
from pertcast.config import CellRecipe, load_cell_recipe
from pertcast.errors import InputError, shorten, unknown
from pertcast.io.cell_forms import FORMS
from pertcast.io.cell_shards import read_mapped
from pertcast.io.single_cells import read_cells, read_expression, read_mean_shift, write_cells
from pertcast.metrics.distribution import DistributionScores, evaluate
from pertcast.types import CellModel, Cells, Floats

DEFAULT = "context-transfer"  # the model that we stand behind
LEAST_CELLS = 4  # of the truth, to compare one half of it with the other
JUDGED = ("mae_of_means", "wasserstein", "energy_distance", "zero_share_error")  # lower is better


@dataclass(frozen=True, slots=True)
class Fitted:
    """A finished run, and what it was fitted to."""

    run: CellRun
    facts: dict[str, object]


def fit_cells(
    model: str,
    data: Path,
    columns: Columns,
    *,
    out: Path,
    preset: str | None = None,
    changes: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    threads: int = 0,
    stream: bool = False,
) -> Fitted:
    """Fit a model of cells to untreated and treated cells, in any form, and write its run folder.

    model    a registered name, or `default`
    preset   a recipe for this model by name or TOML file; without it the model's defaults
    changes  settings that differ, such as `training.epochs=30`
    out      folder of the run; a finished run of the same content is taken as it is, another is refused; one that
             was cut off is taken up from `<out>.unfinished`, and ends as if it had not been
    device   auto, cpu or cuda, for models that train a network
    threads  to compute in; 0: one for small data, else one a core; the last digit may depend on it
    stream   data may be larger than memory, or a folder of shards (`read_mapped`); they lie beside the run meanwhile
    Training curves go to `tensorboard/` beside the run.
    Raises InputError, naming all faults of the file at once.
    """
    recipe = cell_recipe(model, preset=preset, changes=changes)
    unfitted = on_device(recipe, device)
    if stream and not getattr(unfitted, "streams", False):
        raise InputError(f"Model '{recipe.model}' needs all cells in memory; only masked-autoencoder streams them.")
    if not Path(data).exists():
        raise InputError(f"'{data}' does not exist. Give cells as one of: {FORMS}.")
    inputs = cell_inputs(recipe, columns, data=data, seed=seed) | ({"streamed": True} if stream else {})
    out = Path(out)
    kept = kept_beside(out)
    if out.exists():
        finished = same_run(open_cell_run(out), inputs)
        drop_kept(kept)
        return finished
    out.parent.mkdir(parents=True, exist_ok=True)
    taken_up, fit = is_begun(kept), partial(fit_kept, name=recipe.model, seed=seed, kept=kept, inputs=inputs)
    if stream:
        with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            cells, fitted, reference = _fit_streamed(
                unfitted, data, columns, fit=fit, scratch=Path(scratch), seed=seed, count=threads
            )  # fmt: skip
    else:
        cells = read_for(data, columns, need_treated=getattr(unfitted, "learns_conditions", True))
        with computing(cells, threads):
            fitted, reference = fit(unfitted, cells), build(REFERENCE).fit(cells, seed=seed)
    run = write_cell_run(out, recipe, columns, inputs=inputs, model=fitted, reference=reference)
    write_curves(out, fitted)
    drop_kept(kept)
    facts = {
        "run": str(out), "digest": run.digest, "model": recipe.model, "fitted": True, "unit": cells.unit,
        "cells": len(cells), "genes": len(cells.genes), "untreated": int(cells.untreated.sum()),
        "conditions": len(cells.conditions), "contexts": len(set(cells.context)), "taken_up": taken_up,
    }  # fmt: skip
    return Fitted(run, facts)


def _fit_streamed(
    unfitted: CellModel,
    data: Path,
    columns: Columns,
    *,
    fit: Callable[..., CellModel],
    scratch: Path,
    seed: int,
    count: int,
) -> tuple[Cells, CellModel, CellModel]:
    """Fit to cells that stay on disk: these, the model, and the mean shift of a sample of them."""
    cells = read_mapped(data, scratch / "cells", **asdict(columns))
    with computing(cells, count):
        parts = split_streamed(cells, scratch / "train", valid_share=unfitted.config.valid_share, seed=seed)
        fitted = fit(unfitted, parts.train, valid=parts.valid)
        fitted.seen = replace(fitted.seen, unit=cells.unit)  # it is asked about cells as the file holds them
        return cells, fitted, build(REFERENCE).fit(parts.sample, seed=seed)


def same_run(run: CellRun, inputs: Mapping[str, object]) -> Fitted:
    """Take a finished run as it is. Raises InputError where it follows from other inputs."""
    if run.inputs != inputs:
        fix = "Name another folder with --out, or remove it."
        raise InputError(f"'{run.folder}' holds a run of other content (data, columns, settings, seed or code). {fix}")
    return Fitted(run, {"run": str(run.folder), "digest": run.digest, "model": run.recipe.model, "fitted": False})


def untreated_of(cells: Cells, context: str | None) -> Cells:
    """Return the untreated cells, of one context or of all. Raises InputError for a context without any."""
    rows = cells.untreated
    if context is not None:
        if context not in set(cells.context[rows]):
            raise InputError(f"{unknown('context', context, set(cells.context[rows]))} They have untreated cells.")
        rows = rows & (cells.context == context)
    return cells.take(rows)


def cell_recipe(model: str, *, preset: str | None = None, changes: Sequence[str] = ()) -> CellRecipe:
    """Resolve a model's name, a preset and single changes. Raises InputError where they do not fit together."""
    model = DEFAULT if model == "default" else model
    if model not in entries():
        raise InputError(unknown("model of cells", model, [*entries(), "default"]))
    if preset is None:
        return load_cell_recipe(model, changes, model=model)
    recipe = load_cell_recipe(preset, changes)
    if recipe.model != model:
        raise InputError(f"Preset '{preset}' is for model '{recipe.model}', not for '{model}'. Name that model.")
    return recipe


def cell_models() -> list[dict[str, str]]:
    """Name each registered model of cells, its kind and what it is."""
    return described()


def predict_cells(
    run: Path,
    data: Path,
    *,
    condition: str,
    out: Path,
    context: str | None = None,
    seed: int = 0,
    sample: bool | None = None,
) -> dict[str, object]:
    """Predict the untreated cells of a file under a condition, and write them as h5ad; treated cells are never read.

    data     has the columns that the run was fitted with
    context  only untreated cells of this context; None: all
    sample   draw counts; False: expected counts; None: draw where the model reads counts
    The file has every gene of the data in its order; genes that the model does not know stay as they are.
    Returns what was done. Raises InputError, naming all faults of the file at once.
    """
    opened = open_cell_run(run)
    control = untreated_of(read_for(data, opened.columns), context)
    sample = control.unit == "counts" if sample is None else sample
    with computing(control, 0):
        found = opened.model().predict(control, condition, seed=seed, sample=sample)
    whole, carried = with_all_genes(found, control)
    about = {
        "run": opened.digest, "model": opened.recipe.model, "condition": condition, "context": context,
        "seed": seed, "sample": sample, "pertcast": __version__,
    }  # fmt: skip
    write_cells(out, whole, about=about, mean_shift=_mean_shift(opened.reference(), condition, whole.genes))
    remarks = [f"{carried} genes that training did not show stay as they are in the untreated cells"] if carried else []
    return {**about, "file": str(out), "cells": len(whole), "genes": len(whole.genes), "remarks": remarks}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a prediction beside those of references, against the same measured cells."""

    scores: Mapping[str, DistributionScores]  # "prediction" first
    remarks: tuple[str, ...]

    def facts(self) -> dict[str, object]:
        """One object for machines."""
        return {"scores": {name: one.as_dict() for name, one in self.scores.items()}, "remarks": list(self.remarks)}

    def lines(self) -> list[str]:
        """Draw a table for people, a line per prediction."""
        shown = ("mae_of_means", "mse_of_means", "wasserstein", "energy_distance", "variance_ratio", "zero_share_error")
        width = max(len(name) for name in self.scores)
        head = " " * width + "".join(f"{name:>18s}" for name in shown)
        rows = [
            f"{name:{width}s}" + "".join(f"{getattr(one, metric):18.4g}" for metric in shown)
            for name, one in self.scores.items()
        ]
        return [head, *rows]


def evaluate_cells(
    predicted: Path,
    truth: Path,
    *,
    control: Path,
    truth_where: Mapping[str, str] | None = None,
    control_where: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Score predicted cells against measured ones, beside no change, the mean shift, and the truth's own halves.

    predicted, truth, control   files of cells; genes are matched by name, in the order of the truth
    truth_where, control_where  column of `obs` -> label: only those cells of a file
    The mean shift is the one of training where the prediction's file notes it; else the one that knows the true means.
    Raises InputError where genes are missing or units differ.
    """
    true, _ = read_expression(truth, where=truth_where)
    found, _ = read_expression(predicted)
    before, _ = read_expression(control, where=control_where)
    remarks = []
    for name, side in (("The prediction", found), ("The control", before)):
        if side.unit != true.unit:
            fix = "Compare counts with counts and log1p with log1p."
            raise InputError(f"{name} holds {side.unit} values, the truth {true.unit} values. {fix}")
    extra = len(set(found.genes) - set(true.genes))
    if extra:
        remarks.append(f"{extra} of {len(found.genes)} predicted genes were not measured in the truth and are left out")
    found, before = _selected(found, true.genes, of=predicted), _selected(before, true.genes, of=control)
    noted = read_mean_shift(predicted, true.genes)
    label = "mean shift (true means)" if noted is None else "mean shift"
    shift = _true_shift(before, true) if noted is None else noted
    sides = {"prediction": found, "no change": before, label: shifted(before, shift, seed=seed)}
    scores = {name: evaluate(y_true=true.x, y_pred=one.x, seed=seed) for name, one in sides.items()}
    if len(true) >= LEAST_CELLS:
        halves = np.array_split(np.random.default_rng(seed).permutation(len(true)), 2)
        one, other = (true.take(rows) for rows in halves)
        scores["half of the truth"] = evaluate(y_true=one.x, y_pred=other.x, seed=seed)
    return Evaluation(scores, (*remarks, *_below_floors(scores)))


def _selected(cells: Cells, genes: tuple[str, ...], *, of: Path) -> Cells:
    lost = sorted(set(genes) - set(cells.genes))
    if lost:
        fix = "Give files with the same gene names."
        raise InputError(f"'{of}' lacks {len(lost)} of the {len(genes)} genes of the truth: {shorten(lost)}. {fix}")
    return cells.select(genes)


def _below_floors(scores: Mapping[str, DistributionScores]) -> list[str]:
    """Say where a prediction loses to a reference."""
    told, mine = [], scores["prediction"]
    for name in (name for name in scores if name not in ("prediction", "half of the truth")):
        lost = [metric for metric in JUDGED if getattr(mine, metric) > getattr(scores[name], metric)]
        if lost:
            told.append(f"The prediction is worse than '{name}' in {shorten(lost)}")
    return told


def _true_shift(before: Cells, true: Cells) -> Floats:
    """Measure the mean shift from the truth itself: (g,)."""
    named = [
        replace(side, condition=np.full(len(side), name, dtype=object), control="untreated")
        for side, name in ((before, "untreated"), (true, "treated"))
    ]
    return MeanShift(build(REFERENCE).config).fit(named[0].join(named[1]), seed=0).of("treated")


def _mean_shift(reference: MeanShift, condition: str, genes: tuple[str, ...]) -> Floats | None:
    """What the mean shift of training adds to these genes: (g,); None where training did not show the condition."""
    if condition not in reference.seen.conditions:
        return None
    known = dict(zip(reference.seen.genes, reference.of(condition), strict=True))
    return np.array([known.get(gene, 0.0) for gene in genes])


def with_all_genes(found: Cells, control: Cells) -> tuple[Cells, int]:
    """Put the predicted genes among all genes of the untreated cells; and how many were carried over."""
    known = set(found.genes)
    rest = tuple(gene for gene in control.genes if gene not in known)
    if rest:
        both = csr_array(hstack([found.x, control.select(rest).x], format="csr"))
        found = replace(found, genes=(*found.genes, *rest), x=both)
    return found.select(control.genes), len(rest)


def read_for(data: Path, columns: Columns, *, need_treated: bool = True) -> Cells:
    """Read cells as the columns say. Raises InputError, naming all faults of the file at once."""
    return read_cells(
        data, condition_key=columns.condition_key, control=columns.control, context_key=columns.context_key,
        batch_key=columns.batch_key, layer=columns.layer, need_treated=need_treated,
    )  # fmt: skip
