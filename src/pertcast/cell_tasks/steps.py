"""Steps around a fit of cells, from file to file: batches corrected, a run adapted to new contexts, pseudo-pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from pertcast import __version__
from pertcast.cell_tasks.runs import REFERENCE, Columns, cell_inputs, open_cell_run, write_cell_run
from pertcast.cell_tasks.training import computing, fit_bar, write_curves
from pertcast.cell_tasks.verbs import Fitted, cell_recipe, read_for, same_run, untreated_of
from pertcast.cells.batch_correction import correct_batches
from pertcast.cells.registry import build, entries
from pertcast.config import validated
from pertcast.errors import InputError, shorten
from pertcast.io.cell_forms import Reading, read_form
from pertcast.io.convert import write_counts
from pertcast.io.single_cells import write_cells
from pertcast.nn.cycle_gan_batches import AdaptTraining


def correct_cells(
    data: Path, columns: Columns, *, out: Path, reference: str | None = None, empirical_bayes: bool = False
) -> dict[str, object]:
    """Take batch effects off log values and write the cells as h5ad, columns of `obs` as they were (S003-13).

    columns          `batch_key` names the batches; condition and context are the biology that is kept
    reference        batch that stays as it is; None: all move to their common location and scale
    empirical_bayes  for batches of few cells
    Values are log1p of counts per 10,000, or log1p values as they were; what falls below 0 becomes 0.
    Raises InputError where batch and biology cannot be told apart, and as `read_cells`.
    """
    if columns.batch_key is None:
        raise InputError("Batches are corrected by a column of obs. Name it with --batch-key.")
    cells = read_for(data, columns, need_treated=False)
    corrected = correct_batches(cells, reference=reference, empirical_bayes=empirical_bayes)
    x = corrected.x.toarray()
    below = int((x < 0).sum())
    read = read_form(data, Reading(layer=columns.layer))
    write_counts(Path(out), replace(read, genes=corrected.genes, values=csr_array(np.maximum(x, 0))))
    remarks = [f"{below} of {x.size} values fell below 0 and became 0"] if below else []
    if cells.unit == "counts":
        remarks.append("Counts became log1p of counts per 10,000: models that read counts cannot read them")
    return {
        "file": str(out), "cells": len(cells), "genes": len(cells.genes), "batches": sorted(set(cells.batch)),
        "reference": reference, "remarks": remarks,
    }  # fmt: skip


def adapt_cells(
    run: Path,
    data: Path,
    *,
    out: Path,
    changes: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    threads: int = 0,
) -> Fitted:
    """Let a fitted model learn contexts that training did not show, part after part set free (S003-12).

    data     has the columns that the run was fitted with; cells of known contexts among them are rehearsed
    out      folder of the new run; a finished one of the same content is taken as it is, another is refused
    changes  settings of `AdaptTraining` that differ, such as `unfreeze_every=20`
    Raises InputError for a model that cannot be adapted, conditions that training did not show, and as `fit_cells`.
    """
    opened = open_cell_run(run)
    recipe, model = opened.recipe, opened.model()
    if not hasattr(model, "adapt"):
        known = [name for name, entry in entries().items() if hasattr(entry.model, "adapt")]
        raise InputError(f"Model '{recipe.model}' cannot be adapted; {shorten(known)} can. Fit it to all cells anew.")
    settings = cell_recipe(recipe.model, changes=changes).settings
    training = validated(AdaptTraining, {**settings, "device": device}, subject="Settings of an adaptation")
    inputs = cell_inputs(recipe, opened.columns, data=data, seed=seed) | {
        "adapted_from": opened.digest, "adaptation": training.model_dump(mode="json", exclude={"device"}),
    }  # fmt: skip
    out = Path(out)
    if out.exists():
        return same_run(open_cell_run(out), inputs)
    cells = read_for(data, opened.columns)
    before = set(model.contexts)
    with computing(cells, threads), fit_bar(recipe.model) as progress:
        model = model.adapt(cells, seed=seed, training=training, progress=progress)
        reference = build(REFERENCE).fit(cells, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    done = write_cell_run(out, recipe, opened.columns, inputs=inputs, model=model, reference=reference)
    write_curves(out, model)
    facts = {
        "run": str(out), "digest": done.digest, "model": recipe.model, "fitted": True, "adapted_from": opened.digest,
        "cells": len(cells), "contexts": len(model.contexts), "new_contexts": sorted(set(cells.context) - before),
    }  # fmt: skip
    return Fitted(done, facts)


def pair_cells(
    run: Path,
    data: Path,
    *,
    condition: str,
    out: Path,
    context: str | None = None,
    seed: int = 0,
    sample: bool = False,
) -> dict[str, object]:
    """Write untreated cells beside their counterparts under a condition, as the model makes them (S003-06).

    X of the file are the counterparts; layer `source` the cells they were made from, layer `back` those carried back;
    column `cycle_error` of `obs` the root mean square of back - source over genes, log1p scale.
    Raises InputError for a model without a way back, and as `predict_cells`.
    """
    opened = open_cell_run(run)
    model = opened.model()
    if not hasattr(model, "make_pairs"):
        known = [name for name, entry in entries().items() if hasattr(entry.model, "make_pairs")]
        raise InputError(f"Model '{opened.recipe.model}' knows no way back; {shorten(known)} makes pseudo-pairs.")
    control = untreated_of(read_for(data, opened.columns, need_treated=False), context)
    pairs = model.make_pairs(control, condition, seed=seed, sample=sample)
    about = {
        "run": opened.digest, "model": opened.recipe.model, "condition": condition, "context": context,
        "seed": seed, "sample": sample, "pseudo_pairs": True, "pertcast": __version__,
    }  # fmt: skip
    layers = {"source": pairs.source.x, "back": pairs.back.x}
    write_cells(out, pairs.made, about=about, layers=layers, told={"cycle_error": pairs.error})
    return {**about, "file": str(out), "cells": len(control), "cycle_error": float(pairs.error.mean())}
