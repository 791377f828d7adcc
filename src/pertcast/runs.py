"""A run on disk: `<recipe>-<hash8>/<model>/fold{k}/seed{s}/`, each unit with a fixed inventory.

A unit is written under a temporary name and renamed when whole, so it is there entirely or not at all. It is done if
its `DONE.json` is there, its inputs are the ones asked for and its files still have the digests noted. The name of the
run carries the digest of recipe, data and folds, so that runs of different content never meet.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pertcast import __version__
from pertcast.config import Recipe
from pertcast.errors import InputError, shorten
from pertcast.io.atomic import atomic_folder, digest_file, write_json
from pertcast.models.registry import entry
from pertcast.types import Fold, Predictions

REFIT = "refit"  # the unit fitted on all training rows, which predicts the test rows
FILES = ("config.json", "inputs.json", "metrics.jsonl")


@dataclass(frozen=True, slots=True)
class Unit:
    """One thing to fit: a recipe on one fold (or on all rows) with one seed."""

    recipe: Recipe
    fold: Fold | None  # None: fit on all training rows, predict the test rows
    number: int  # of the fold
    seed: int

    @property
    def label(self) -> str:
        return f"{self.recipe.name} {self.fold.name if self.fold else REFIT} seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Run:
    """Where the units of one recipe lie."""

    folder: Path
    recipe: Recipe
    seeds: int | None = None  # of each fold; None: all that are there
    refit_seeds: int | None = None  # of the refit on all rows

    def unit(self, unit: Unit) -> Path:
        part = f"fold{unit.number}" if unit.fold else REFIT
        return self.folder / self.recipe.model / part / f"seed{unit.seed}"

    def units(self, part: str) -> list[Path]:
        """Finished units of `fold*` or `refit`, in order of fold and seed."""
        found = [path.parent for path in (self.folder / self.recipe.model).glob(f"{part}/seed*/DONE.json")]
        most = self.refit_seeds if part == REFIT else self.seeds  # an earlier command may have left more
        wanted = [path for path in found if most is None or int(path.name[4:]) < most]
        return sorted(wanted, key=lambda path: (path.parent.name, int(path.name[4:])))


def run_of(recipe: Recipe, *, out: Path, data_digest: str, folds: list[Fold]) -> Run:
    """Name the run of a recipe on these data and folds."""
    parts = [recipe.digest(), data_digest, *(fold_digest(fold) for fold in folds)]
    name = hashlib.sha256("".join(parts).encode()).hexdigest()[:8]
    return Run(out / f"{recipe.name}-{name}", recipe)


def open_run(folder: Path) -> Run:
    """Open a run that lies on disk.

    Raises InputError where the folder is not a run.
    """
    configs = sorted(folder.glob("*/*/seed*/config.json"))
    if not configs:
        runs = sorted({path.parents[3].name for path in folder.glob("*/*/*/seed*/config.json")})
        if runs:
            raise InputError(f"'{folder}' is a folder of runs, not a run. Name one of them: {shorten(runs, most=20)}.")
        inside = "<model>/fold<k>/seed<s>/config.json"
        raise InputError(f"Run '{folder}': no finished unit in it. Expected {inside}; `pertcast cv` makes them.")
    try:
        return Run(folder, Recipe.model_validate(json.loads(configs[0].read_text())))
    except (OSError, ValueError) as error:
        fix = "Run `pertcast cv` again; it makes the unit anew."
        raise InputError(f"Run '{folder}': '{configs[0]}' cannot be read: {error}. {fix}") from None


def fold_digest(fold: Fold) -> str:
    """Digest of which rows train and which are held out."""
    digest = hashlib.sha256(fold.name.encode())
    for rows in (fold.train, fold.valid):
        digest.update(np.asarray(rows, np.int64).tobytes() + b"|")
    return digest.hexdigest()


def write_manifest(run: Run, folds: list[Fold], *, strategy: str, data_digest: str) -> None:
    """Note beside the units which rows each fold trains on and holds out, and the label that may not be split."""
    groups = folds[0].groups
    manifest = {
        "data": data_digest,
        "strategy": strategy,
        "groups": None if groups is None else [str(label) for label in groups],
        "folds": [
            {"name": f.name, "holds_out": f.holds_out, "train": f.train.tolist(), "valid": f.valid.tolist()}
            for f in folds
        ],
    }
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / "folds.json", manifest)


def read_manifest(run: Run) -> tuple[list[Fold], str]:
    """Read the folds of a run, checked for leaks again, and the digest of the data they belong to."""
    try:
        manifest = json.loads((run.folder / "folds.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"Run '{run.folder}': folds.json cannot be read: {error}. Run `pertcast cv` again.") from None
    groups = None if manifest["groups"] is None else np.array(manifest["groups"], dtype=object)
    rows = [(np.array(f["train"], int), np.array(f["valid"], int)) for f in manifest["folds"]]
    folds = [
        Fold(f["name"], train, valid, f["holds_out"], groups)
        for f, (train, valid) in zip(manifest["folds"], rows, strict=True)
    ]
    return folds, manifest["data"]


@cache
def code_digest(*more: str) -> str:
    """Digest of the source that numbers follow from, further folders named: a unit made by other code is made again."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for folder in ("features", "models", "nn", "validation", *more):
        for path in sorted((root / folder).glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def reads_cells(recipe: Recipe) -> bool:
    """Whether a recipe's model learns from single cells, too."""
    return "cells" in getattr(entry(recipe.model).model, "leans_on", ())


def code_of(recipe: Recipe) -> str:
    """Digest of the source that a recipe's numbers follow from; its model may lean on more than others do."""
    return code_digest(*getattr(entry(recipe.model).model, "leans_on", ()))


def inputs_of(unit: Unit, *, data_digest: str) -> dict[str, Any]:
    """Everything the numbers of a unit follow from."""
    return {
        "data": data_digest,
        "fold": fold_digest(unit.fold) if unit.fold else None,
        "fold_name": unit.fold.name if unit.fold else REFIT,
        "holds_out": unit.fold.holds_out if unit.fold else None,
        "code": code_of(unit.recipe),
        "pertcast": __version__,
        "recipe": unit.recipe.digest(),
        "seed": unit.seed,
    }


def is_done(folder: Path, inputs: dict[str, Any]) -> bool:
    """Whether the unit is whole, unharmed and made from these inputs."""
    try:
        done = json.loads((folder / "DONE.json").read_text())
        same = json.loads((folder / "inputs.json").read_text()) == inputs
        return same and all(digest_file(folder / name) == digest for name, digest in done["digests"].items())
    except (OSError, ValueError, KeyError):
        return False


def write_unit(
    folder: Path,
    unit: Unit,
    *,
    model: Any,
    features: Any,
    predictions: Predictions,
    log: list[dict[str, Any]],
    inputs: dict[str, Any],
) -> None:
    """Write a whole unit, or nothing. A refit keeps its features too, so that it can predict any further row."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder, replace=True) as draft:
        write_json(draft / "config.json", unit.recipe.model_dump(mode="json"))
        write_json(draft / "inputs.json", inputs)
        (draft / "metrics.jsonl").write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in log))
        (draft / "checkpoint").mkdir()
        model.save(draft / "checkpoint")
        if not unit.fold:
            features.save(draft / "features")
        write_predictions(draft / ("oof.parquet" if unit.fold else "test.parquet"), predictions)
        files = sorted(str(p.relative_to(draft)) for p in draft.rglob("*") if p.is_file())
        write_json(draft / "DONE.json", {"digests": {name: digest_file(draft / name) for name in files}})


def write_curves(run: Run, unit: Unit, log: list[dict[str, Any]]) -> None:
    """Write training curves for TensorBoard beside the units; they carry the time of day and so are no part of them."""
    write_scalars(run.folder / "tensorboard" / run.unit(unit).relative_to(run.folder), log)


def write_scalars(folder: Path, log: list[dict[str, Any]]) -> None:
    """Write every measured number of a training for TensorBoard; lines are numbered by their `step`, or in order."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder) as writer:
        for number, line in enumerate(log):
            for key, value in line.items():
                if isinstance(value, float):
                    writer.add_scalar(key, value, line.get("step", number))


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Store rows x genes as one list column: a Parquet file of 18,211 columns costs more in headers than in data."""
    values = np.ascontiguousarray(predictions.values, np.float32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    meta = {b"genes": json.dumps(predictions.genes).encode()}
    schema = pa.schema([("id", pa.int64()), ("prediction", flat.type)], metadata=meta)
    table = pa.table([pa.array(np.asarray(predictions.ids, np.int64)), flat], schema=schema)
    pq.write_table(table, path, compression="zstd", use_dictionary=False)


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        fix = "Delete the unit's folder and run again."
        raise InputError(f"Predictions '{path}' cannot be read: {error}. {fix}") from None
    genes = tuple(json.loads(table.schema.metadata[b"genes"]))
    column = table.column("prediction").combine_chunks()
    values = column.flatten().to_numpy().reshape(len(table), len(genes))
    return Predictions(table.column("id").to_numpy(), genes, values)


def mean_predictions(paths: list[Path]) -> Predictions:
    """Average the predictions of several seeds; rows and genes are the same."""
    first = read_predictions(paths[0])
    total = first.values.astype(np.float64)
    for path in paths[1:]:
        total += read_predictions(path).values
    return Predictions(first.ids, first.genes, (total / len(paths)).astype(np.float32))
