"""What the README says can be done, can be done: every command is run, the model of the example passes the contract."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cases import make_question
from pertcast.config import FeatureConfig, load_recipe
from pertcast.features.assemble import assemble
from pertcast.models.registry import build

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for language, block in BLOCKS
    if not language
    for line in block.splitlines()
    if line.startswith(("pertcast ", "make "))
]
MAKE = sorted({*(line for line in COMMANDS if line.startswith("make ")), *re.findall(r"`(make [^`]+)`", README)})
# Leaves this machine; never ends, and has tests of its own; reads what only the competition has.
ELSEWHERE = ("download", "pertcast app", "data/raw")
LOCAL = [line for line in COMMANDS if line.startswith("pertcast ") and not any(word in line for word in ELSEWHERE)]


def pertcast(line: str, folder: Path) -> subprocess.CompletedProcess:
    parts = shlex.split(line)[1:]
    for i, part in enumerate(parts):  # what a shell would do with runs/ridge-*
        if "*" in part:
            parts[i : i + 1] = [str(path.relative_to(folder)) for path in sorted(folder.glob(part))]
    quick = ["--runs", "runs"] if parts[0] == "submission" else []
    return subprocess.run(
        [sys.executable, "-m", "pertcast", *parts, *quick], cwd=folder, capture_output=True, text=True, timeout=600
    )


def test_every_command_of_the_readme_runs_in_order(tmp_path):
    """R37: no dead command line. All of them, top to bottom, in one folder, as a reader would type them."""
    assert len(LOCAL) >= 9
    for line in LOCAL:
        done = pertcast(line, tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "submission.csv").is_file()
    assert (tmp_path / "blend.json").is_file()


@pytest.mark.parametrize("line", MAKE)
def test_every_make_target_exists(line):
    done = subprocess.run([*shlex.split(line), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in COMMANDS if "download" in line])
def test_download_commands_are_understood(line):
    """No test leaves this machine: the words are checked against the help."""
    words = shlex.split(line)[1:3]
    done = subprocess.run([sys.executable, "-m", "pertcast", *words, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--out" in done.stdout


def test_the_example_model_works(tmp_path):
    """The README's file, as it stands there, registers and obeys the contract's plainest rules."""
    from pertcast.models import registry

    (code,) = [block for language, block in BLOCKS if language == "python"]
    (recipe,) = [block for language, block in BLOCKS if language == "toml"]
    (tmp_path / "half.toml").write_text(recipe)
    known = registry.entries()  # all of them: a file that is imported already does not register again
    try:
        exec(compile(code, "half.py", "exec"), {"__name__": "pertcast.models.half"})
        loaded = load_recipe(str(tmp_path / "half.toml"))
        question, _ = make_question()
        rows = assemble(question, FeatureConfig(), train=np.arange(len(question)), valid=np.arange(0))
        model = build(loaded.model, loaded.settings).fit(rows.train)
        mean = question.y[question.compound == rows.test.compound[0]].mean(0)
        np.testing.assert_allclose(model.predict(rows.test)[0], 0.4 * mean, rtol=1e-5)
        model.save(tmp_path)
        again = build(loaded.model, loaded.settings).load(tmp_path)
        np.testing.assert_array_equal(again.predict(rows.test), model.predict(rows.test))
    finally:
        registry._MODELS.found.clear()
        registry._MODELS.found.update(known)


def test_every_path_of_the_readme_exists():
    for target in re.findall(r"\]\(([\w/.]+)\)", README):
        assert (ROOT / target).is_file(), target
    for name in re.findall(r"`(notebooks/01_meet_the_data|0\d_\w+)`", README):
        assert list((ROOT / "notebooks").glob(f"{Path(name).name}.ipynb")), name


def test_the_readme_shows_every_command():
    from pertcast.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    assert known == {line.split()[1] for line in COMMANDS if line.startswith("pertcast ")}
