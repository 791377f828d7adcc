"""A fitted model of cells on disk: a folder with a fixed inventory, there entirely or not at all.

config.json (recipe and columns), inputs.json (digests of all that the numbers follow from), metrics.jsonl (a line per
epoch), checkpoint/, reference/ (the mean shift of the same cells) and DONE.json (digests of the files).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pertcast import __version__
from pertcast.cells.log_scale import FREE
from pertcast.cells.registry import build
from pertcast.config import CellRecipe
from pertcast.errors import InputError
from pertcast.io.atomic import atomic_folder, digest_file, write_json
from pertcast.io.cell_forms import files_of
from pertcast.types import CellModel

REFERENCE = "mean-shift"


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a file of cells says what was done to them; and which of its matrices is read."""

    condition_key: str
    control: str
    context_key: str | None = None
    batch_key: str | None = None
    layer: str | None = None


@dataclass(frozen=True, slots=True)
class CellRun:
    """A finished run."""

    folder: Path
    recipe: CellRecipe
    columns: Columns
    inputs: dict[str, Any]

    @property
    def digest(self) -> str:
        """Eight hex digits that name all that the numbers follow from."""
        return hashlib.sha256(json.dumps(self.inputs, sort_keys=True).encode()).hexdigest()[:8]

    def model(self) -> CellModel:
        """Load the fitted model. Raises InputError where another version of the package wrote it otherwise."""
        return self._loaded(build(self.recipe.model, self.recipe.settings), "checkpoint")

    def reference(self) -> CellModel:
        """Load the mean shift that was measured in the same cells. Raises InputError as `model`."""
        return self._loaded(build(REFERENCE), "reference")

    def _loaded(self, model: CellModel, part: str) -> CellModel:
        try:
            return model.load(self.folder / part)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if self.inputs.get("code") == code_digest():  # then it is no older form, but a defect of ours
                raise
            written = f"It was written by pertcast {self.inputs.get('pertcast')} with other code; this is {__version__}"
            fix = "Fit it again with this version, or use it with that one."
            raise InputError(f"Run '{self.folder}': its {part} cannot be read: {error!r}. {written}. {fix}") from None


def cell_inputs(recipe: CellRecipe, columns: Columns, *, data: Path, seed: int) -> dict[str, Any]:
    """Collect everything the numbers of a run follow from."""
    return {
        "data": digest_data(data),
        "columns": asdict(columns),
        "recipe": recipe_inputs(recipe),
        "seed": seed,
        "code": code_digest(),
        "pertcast": __version__,
    }


def recipe_inputs(recipe: CellRecipe) -> dict[str, Any]:
    """Tell what of a recipe numbers follow from: not its name, nor where its training runs."""
    told = recipe.model_dump(mode="json", exclude={"name", "reason", "source"})
    training = {name: value for name, value in told["settings"].pop("training", {}).items() if name not in FREE}
    told["settings"] |= {"training": training} if training else {}
    return told


def write_cell_run(
    folder: Path,
    recipe: CellRecipe,
    columns: Columns,
    *,
    inputs: dict[str, Any],
    model: CellModel,
    reference: CellModel,
) -> CellRun:
    """Write a whole run, or nothing. Raises InputError when the folder exists or cannot be written."""
    with atomic_folder(folder) as draft:
        about = {"recipe": recipe.model_dump(mode="json"), "columns": asdict(columns)}
        write_json(draft / "config.json", about)
        write_json(draft / "inputs.json", inputs)
        lines = (json.dumps(line, sort_keys=True) + "\n" for line in getattr(model, "history", ()))
        (draft / "metrics.jsonl").write_text("".join(lines))
        model.save(draft / "checkpoint")
        reference.save(draft / "reference")
        files = sorted(str(path.relative_to(draft)) for path in draft.rglob("*") if path.is_file())
        write_json(draft / "DONE.json", {"digests": {name: digest_file(draft / name) for name in files}})
    return CellRun(folder, recipe, columns, inputs)


def open_cell_run(folder: Path) -> CellRun:
    """Open a run that lies on disk.

    Raises InputError where the folder is no finished run, or a file of it was changed.
    """
    folder = Path(folder)
    fix = "`pertcast cells fit` makes one."
    if not (folder / "DONE.json").is_file():
        raise InputError(f"'{folder}' is no finished run of a model of cells: it has no DONE.json. {fix}")
    try:
        done = json.loads((folder / "DONE.json").read_text())["digests"]
        changed = [name for name, digest in done.items() if digest_file(folder / name) != digest]
        config, inputs = (json.loads((folder / name).read_text()) for name in ("config.json", "inputs.json"))
        run = CellRun(folder, CellRecipe.model_validate(config["recipe"]), Columns(**config["columns"]), inputs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"Run '{folder}' cannot be read: {error}. Remove it and fit again; {fix}") from None
    if changed:
        raise InputError(f"Run '{folder}' was changed after it was written: {', '.join(changed)}. Fit again; {fix}")
    return run


def digest_data(path: Path) -> str:
    """Digest by content what a reader of cells reads: a file, those beside it, or a folder's with their names."""
    path = Path(path)
    files = files_of(path)
    if files == [path]:
        return digest_file(path)
    digest, home = hashlib.sha256(), path if path.is_dir() else path.parent
    for file in files:
        digest.update(f"{file.relative_to(home)}:{digest_file(file)}\n".encode())
    return digest.hexdigest()


@cache
def code_digest(*more: str) -> str:
    """Digest of the source that numbers follow from: models of cells, networks, and further folders."""
    digest = hashlib.sha256()
    root = Path(__file__).parent.parent
    for folder in ("cells", "nn", *more):
        for path in sorted((root / folder).glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
