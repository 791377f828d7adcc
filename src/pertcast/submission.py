"""Submissions: written whole and fast, kept with the facts behind them, summed with weights.

A submission is a CSV with the header `id` and the genes in the template's order, one row per id, plain numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from io import BytesIO
from pathlib import Path

import numpy as np

from pertcast.errors import InputError, several, shorten, unknown
from pertcast.io.atomic import atomic_path, make_folder, write_json
from pertcast.io.submission_csv import Checked, read_submission, validate_submission
from pertcast.schema import ID
from pertcast.types import Floats, Ints, Predictions

__all__ = [
    "Checked",
    "publish",
    "read_submission",
    "validate_submission",
    "weighted_sum",
    "write_submission",
    "write_with_facts",
]

NEWEST = "submission.csv"


def write_submission(path: Path, *, ids: Sequence[int], genes: Sequence[str], values: Floats) -> None:
    """Write a submission CSV; it is whole under its name, or not there.

    ids     (n,)    whole numbers, each once
    genes   (g,)    names of the columns, each once
    values  (n, g)  finite, in the unit of `y`

    Values are written as float32, with the fewest digits that read back to the same float32 (9 at most): no model
    knows its response better, and the file is about half as long as in float64.
    Raises InputError on values that are not finite, duplicates, shapes that differ, a full disk, or no permission.
    """
    _write(Path(path), _render(ids, genes, values))


def write_with_facts(path: Path, *, ids: Sequence[int], genes: Sequence[str], values: Floats, facts: dict) -> Path:
    """Write a submission CSV and, under the same name with the ending `.json`, the facts behind it."""
    path = Path(path)
    if path.suffix != ".csv":
        raise InputError(f"A submission must end in '.csv', got '{path}'. Write to '{path.with_suffix('.csv')}'.")
    _write_pair(path, _render(ids, genes, values), {"facts": facts, "shape": [len(ids), len(genes)]})
    return path


def publish(
    folder: Path,
    *,
    ids: Sequence[int],
    genes: Sequence[str],
    values: Floats,
    name: str,
    cv_score: float,
    facts: dict,
    today: date,
) -> Path:
    """Write `<date>_<name>_<cv>_<hash>.csv`, its facts as `.json`, and the same CSV as `submission.csv`, the newest.

    The hash is the start of the CSV's sha256, so that equal files have equal names. `submission.csv` is a copy:
    changing it leaves the dated file as it was.
    returns the path of the dated CSV
    """
    folder = Path(folder)
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise InputError(f"A submission's name is made of letters, digits, '-', '_' and '.', got '{name}'. Rename it.")
    if not math.isfinite(cv_score):
        raise InputError(f"The cross-validated score of '{name}' must be finite, got {cv_score}. Look at the folds.")
    text = _render(ids, genes, values)
    make_folder(folder)
    path = folder / f"{today.isoformat()}_{name}_{cv_score:.4f}_{_digest(text)[:8]}.csv"
    about = {"name": name, "date": today.isoformat(), "cv_score": cv_score, "shape": [len(ids), len(genes)]}
    _write_pair(path, text, {**about, "facts": facts})
    _write(folder / NEWEST, text)
    return path


def weighted_sum(
    predictions: Mapping[str, Path | Predictions], weights: Mapping[str, float]
) -> tuple[Ints, tuple[str, ...], Floats, float]:
    """Add named predictions, each times its weight, matched by id and by gene *name*.

    predictions  CSV file or arrays by name; all must hold the same ids and genes, in any order
    weights      a number per name; their sum is the effective scale, which may pass 1: shrunken models gain by it
    returns      ids (n,) and genes (g,) as in the first of them, values (n, g) in float64, the effective scale
    Raises InputError for a name without a weight or a weight without a prediction, and for ids or genes that differ.
    """
    _check_weights(predictions, weights)
    read = {name: p if isinstance(p, Predictions) else read_submission(p) for name, p in predictions.items()}
    first, start = next(iter(read.items()))
    total = np.zeros(start.values.shape)  # (n, g)
    for name, given in read.items():
        rows = _places(list(given.ids), list(start.ids), of=f"ids of '{name}' and '{first}'")
        columns = _places(given.genes, start.genes, of=f"genes of '{name}' and '{first}'")
        total += weights[name] * given.values[np.ix_(rows, columns)].astype(np.float64)
    return start.ids, start.genes, total, float(sum(weights[name] for name in read))


def _render(ids: Sequence[int], genes: Sequence[str], values: Floats) -> memoryview:
    """Lay the CSV out in memory: its digest is needed before its name is known."""
    import polars as pl  # here, because checking a file does without it and it takes half a second

    ids, genes, values = np.asarray(ids), [str(gene) for gene in genes], np.asarray(values)
    faults = _faults(ids, genes, values)
    if faults:
        raise InputError(several("The submission to be written", faults))
    frame = pl.from_numpy(values.astype(np.float32), schema=genes, orient="row")
    frame.insert_column(0, pl.Series(ID, ids))
    text = BytesIO()
    frame.write_csv(text)
    return text.getbuffer()


def _faults(ids: Ints, genes: list[str], values: Floats) -> list[str]:
    faults = []
    if ids.dtype.kind not in "iu" or ids.ndim != 1 or not len(ids):
        faults.append(f"ids must be whole numbers, at least one; got {ids.dtype} of shape {ids.shape}")
    for what, keys in (("ids", ids.ravel().tolist()), ("column names", [ID, *genes])):
        repeated = [key for key, count in Counter(keys).items() if count > 1]
        if repeated:
            faults.append(f"{len(repeated)} {what} are repeated: {shorten(repeated)}. Keep one of each")
    if values.shape != (ids.size, len(genes)) or values.dtype.kind not in "fiu" or not genes:
        expected = f"numbers of shape ({ids.size}, {len(genes)}), a row per id and a column per gene, at least one each"
        return [*faults, f"values must be {expected}; got {values.dtype} of shape {values.shape}"]
    with np.errstate(over="ignore"):
        wrong = np.argwhere(~np.isfinite(values.astype(np.float32)))
    if len(wrong):
        row, column = wrong[0]
        where = f"id {ids[row]}, gene '{genes[column]}' ({values[row, column]})"
        faults.append(f"{len(wrong)} values are NaN, infinite or beyond float32, first at {where}. Look at the model")
    return faults


def _write(path: Path, text: memoryview) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(text)


def _write_pair(path: Path, text: memoryview, about: dict) -> None:
    """Write the CSV and what is known of it, both or neither."""
    existed = path.exists()
    _write(path, text)
    try:
        write_json(path.with_suffix(".json"), {**about, "file": path.name, "sha256": _digest(text)})
    except BaseException:
        if not existed:
            path.unlink()
        raise


def _digest(text: memoryview) -> str:
    return hashlib.sha256(text).hexdigest()


def _check_weights(predictions: Mapping[str, object], weights: Mapping[str, float]) -> None:
    if not predictions:
        raise InputError("A weighted sum needs at least one prediction, got none.")
    for name in weights:
        if name not in predictions:
            raise InputError(unknown("prediction", name, predictions))
    faults = [f"'{name}' has no weight" for name in predictions if name not in weights]
    faults += [f"the weight of '{name}' is {weight}" for name, weight in weights.items() if not math.isfinite(weight)]
    if faults:
        raise InputError(several("A weighted sum", faults, fix="Give each a finite weight; 0 leaves it out."))


def _places(given: Sequence, wanted: Sequence, *, of: str) -> list[int]:
    """Find where each of `wanted` stands in `given`; both must hold the same, each once."""
    place = {key: i for i, key in enumerate(given)}
    absent, more = [key for key in wanted if key not in place], sorted(set(place) - set(wanted))
    faults = [f"missing in the former: {shorten(absent)}"] if absent else []
    faults += [f"only in the former: {shorten(more)}"] if more else []
    faults += ["some are repeated"] if len(place) < len(given) or len(set(wanted)) < len(wanted) else []
    if faults:
        raise InputError(several(f"The {of} differ", faults, fix="Predict the same rows and genes with both."))
    return [place[key] for key in wanted]
