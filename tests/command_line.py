"""The command line, called in this process as the `pertcast` script calls it, with recipes that fit in a moment."""

import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from pertcast.__main__ import main

FLOORS = {"zeros", "gene-mean", "cell-type-mean", "compound-mean", "additive"}
SMALL = """
model = "transformer"
reason = "as small as it gets"

[features]
blocks = ["cell_type", "compound", "compound_residual_mean", "morgan"]
components = 4

[settings]
blocks = ["compound_residual_mean", "morgan"]
width = 8
heads = 2
feedforward = 8
head = 8
members = 1
components = 4

[settings.training]
epochs = 2
"""
TREES = """
model = "lightgbm"
reason = "few trees"

[features]
blocks = ["cell_type_mean", "compound_residual_mean", "compound_count"]
components = 4
"""


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


def pertcast(*arguments: object) -> Done:
    """Run a command; a defect of ours is raised, as the script would let it be."""
    out, err, code = StringIO(), StringIO(), 0
    with patch.object(sys, "argv", ["pertcast", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return Done(code, out.getvalue(), err.getvalue())


def write_preset(folder: Path) -> Path:
    """Write a preset of the models of `fast`, made small."""
    folder.mkdir(exist_ok=True)
    (folder / "small.toml").write_text(SMALL)
    (folder / "trees.toml").write_text(TREES)
    preset = folder / "tiny.toml"
    preset.write_text(f'reason = "tests"\nrecipes = ["{folder}/small.toml", "{folder}/trees.toml", "ridge"]\n')
    return preset


def partials(folder: Path) -> list[Path]:
    """Find what was begun and never finished."""
    return [path for path in folder.rglob("*") if ".partial" in path.name]


def places(folder: Path) -> list[str]:
    """Keep runs and features in a folder, and work in this process."""
    return ["--runs", str(folder / "runs"), "--cache", str(folder / "cache"), "--jobs", "1"]


def submit(data: Path, out: Path, folder: Path, *more: object) -> Done:
    """Run the main job with small models."""
    preset = write_preset(folder / "recipes")
    return pertcast("submission", "--data", data, "--out", out, "--preset", preset, *places(folder), *more)


def refused(done: Done, message: str) -> None:
    """Hold that a command ended with one message for its user, matching the pattern, and no result."""
    assert done.code == 2, done.err
    assert re.search(message, done.err), done.err
    assert "Traceback" not in done.err
    assert done.out == ""
