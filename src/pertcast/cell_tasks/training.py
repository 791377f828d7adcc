"""How a model of cells is fitted for a run: on which device and threads, seen, kept on the way, and taken up again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pertcast.cells.registry import build
from pertcast.config import CellRecipe
from pertcast.engine.local import available_jobs, progress_bar, threads
from pertcast.errors import InputError, unknown
from pertcast.io.atomic import write_json
from pertcast.nn.fit import Progress, choose_device
from pertcast.runs import write_scalars
from pertcast.types import CellModel, Cells

DEVICES = ("auto", "cpu", "cuda")
SMALL = 5_000_000  # numbers of cells x genes; below it threads wait for each other longer than they compute


def on_device(recipe: CellRecipe, device: str) -> CellModel:
    """Build a recipe's model, to be trained on `auto`, `cpu` or `cuda`.

    Raises InputError for a GPU that is not there, or a model that has no use for one.
    """
    if device not in DEVICES:
        raise InputError(unknown("device", device, DEVICES))
    model = build(recipe.model, recipe.settings)
    if device == "auto":
        return model
    choose_device(device)
    if hasattr(model.config, "training"):
        training = {**recipe.settings.get("training", {}), "device": device}
        return build(recipe.model, {**recipe.settings, "training": training})
    if device == "cuda":
        raise InputError(f"Model '{recipe.model}' trains no network, so a GPU is of no use to it. Use device 'auto'.")
    return model


@contextmanager
def computing(cells: Cells, count: int) -> Iterator[None]:
    """Compute in so many threads; 0: one for small data, else one a core."""
    chosen = count or (1 if len(cells) * len(cells.genes) < SMALL else available_jobs())
    with threads(chosen):
        yield


def fit_kept(
    model: CellModel,
    cells: Cells,
    *,
    name: str,
    seed: int,
    kept: Path,
    inputs: dict[str, Any],
    valid: Cells | None = None,
) -> CellModel:
    """Fit a model; one that can be taken up keeps the state of its training in a folder, and begins from it.

    name    what the bar calls it
    kept    folder that `drop_kept` removes when the run is written
    inputs  all that the numbers follow from; the beginning of another run is refused
    valid   cells to stop by, for a model that takes them; None: it holds some of the given ones out
    """
    if not getattr(model, "resumable", False):
        return model.fit(cells, seed=seed)
    if kept.exists() and _noted(kept) != inputs:
        what = "the beginning of a run of other content (data, columns, settings, seed or code)"
        raise InputError(f"'{kept}' holds {what}. Remove it, or name another folder with --out.")
    kept.mkdir(parents=True, exist_ok=True)
    write_json(kept / "inputs.json", inputs)
    try:
        with fit_bar(name) as progress:
            if valid is None:
                return model.fit(cells, seed=seed, checkpoint=kept, progress=progress)
            return model.fit(cells, seed=seed, valid=valid, checkpoint=kept, progress=progress)
    except InputError:  # which would come again
        drop_kept(kept)
        raise


def kept_beside(out: Path) -> Path:
    """Where the state of a training is kept until its run is written."""
    named = out if out.name else out.resolve()
    return named.with_name(f"{named.name}.unfinished")


def is_begun(kept: Path) -> bool:
    """Whether there is a state to begin from."""
    return any(kept.glob("*/*.json"))


def drop_kept(kept: Path) -> None:
    """Remove the state of a training whose run is written."""
    if kept.exists():
        shutil.rmtree(kept)


def write_curves(out: Path, model: CellModel) -> None:
    """Write training curves for TensorBoard beside a run; they carry the time of day and so are no part of it."""
    if getattr(model, "history", ()):
        write_scalars(out.parent / "tensorboard" / out.name, model.history)


@contextmanager
def fit_bar(name: str) -> Iterator[Progress]:
    """Give what shows on stderr how far a training is; the bar begins with the first step."""
    bars = []

    def told(done: int, total: int) -> None:
        if not bars:
            bars.append(progress_bar(total, done=done - 1))
            bars[0].set_description_str(name, refresh=False)
        bars[0].update(done - bars[0].n)

    try:
        yield told
    finally:
        for bar in bars:
            bar.close()


def _noted(kept: Path) -> object:
    try:
        return json.loads((kept / "inputs.json").read_text())
    except (OSError, ValueError):
        return None
