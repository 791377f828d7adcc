"""The package as installed: what it needs is said, what it carries is there, and `--help` is quick to import."""

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import pertcast
from pertcast.config import load_preset, load_recipe, preset_names, recipe_names
from pertcast.models.registry import build, entries

ROOT = Path(__file__).parent.parent
NAMES = {"sklearn": "scikit-learn"}  # where the package is called otherwise than the module
HEAVY = {"torch", "sklearn", "lightgbm", "anndata"}


def third_party_imports() -> set[str]:
    found = set()
    for path in Path(pertcast.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            found |= {name.split(".")[0] for name in names}
    return {NAMES.get(name, name) for name in found - set(sys.stdlib_module_names) - {"pertcast"}}


def test_every_import_is_in_the_requirements():
    """R37: no missing dependency, and none that nothing needs."""
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    pinned = {line.split("==")[0] for line in lines}
    assert all(re.match(r"[\w-]+==[\w.]+ +# \w", line) for line in lines), "pin and say what needs it"
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    imported = third_party_imports()
    assert imported <= pinned
    imported.add("tensorboard")  # through torch.utils.tensorboard
    assert imported == {re.match(r"[\w-]+", name).group() for name in declared}


def test_the_wheel_carries_recipes_and_what_the_app_shows(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("pertcast-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    package = Path(pertcast.__file__).parent
    bundled = [path for path in (package / "app" / "bundled").rglob("*") if path.is_file()]
    assert bundled
    for path in (*(package / "recipes").rglob("*.toml"), *bundled):
        assert path.relative_to(package.parent).as_posix() in names
    assert not [name for name in names if name.startswith(("tests", "notebooks", "data"))]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.reason
    build(recipe.model, recipe.settings)


def test_every_model_has_a_recipe():
    assert set(entries()) == {load_recipe(name).model for name in recipe_names()}


def test_presets_name_recipes_that_exist():
    assert {"fast", "default"} <= set(preset_names())
    for name in preset_names():
        preset = load_preset(name)
        instead = [name for others in preset.described.values() for name in others]
        assert {*preset.recipes, *preset.unseen, *instead} <= set(recipe_names())
        assert {*preset.described} <= {*preset.recipes, *preset.unseen}


@pytest.mark.parametrize("arguments", [["--help"], ["validate", "nowhere.csv", "--data", "nowhere"], ["check", "."]])
def test_light_commands_import_no_learning_library(arguments):
    """`pertcast --help` and `pertcast validate` answer at once because they import no learning library."""
    code = (
        "import sys, json\n"
        "from pertcast.__main__ import main\n"
        f"sys.argv = ['pertcast', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "pertcast" in loaded
    assert not loaded & HEAVY
