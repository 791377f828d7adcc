"""Imports point down: the map of the package, held against every import statement."""

import ast
from pathlib import Path

import pytest

import pertcast

ROOT = Path(pertcast.__file__).parent
LAYERS = {
    "pertcast": 0, "pertcast.errors": 0,
    "pertcast.types": 1, "pertcast.schema": 1, "pertcast.cell_schema": 1, "pertcast.config": 1,
    "pertcast.io": 2, "pertcast.de": 2, "pertcast.features": 2, "pertcast.metrics": 2, "pertcast.nn": 2,
    "pertcast.validation": 2, "pertcast.validation.folds": 2, "pertcast.registry": 2, "pertcast.data_page": 2,
    "pertcast.simulate": 3, "pertcast.models": 3, "pertcast.cells": 3, "pertcast.validation.cell_splits": 3,
    "pertcast.runs": 4, "pertcast.validation.cross_validate": 4, "pertcast.validation.scores": 4, "pertcast.engine": 4,
    "pertcast.weights": 5, "pertcast.row_strength": 5, "pertcast.diversity": 5, "pertcast.correction": 5,
    "pertcast.ensemble": 5, "pertcast.submission": 5, "pertcast.scoring": 5, "pertcast.preflight": 5,
    "pertcast.stories": 5, "pertcast.search": 4, "pertcast.facts": 5, "pertcast.predict": 5, "pertcast.tuning": 5,
    "pertcast.leaderboard": 5, "pertcast.outcome": 6, "pertcast.workflow": 6,
    "pertcast.transfer": 6,
    "pertcast.cell_tasks": 6, "pertcast.cell_tasks.runs": 4, "pertcast.cell_tasks.training": 5,
    "pertcast.commands": 7, "pertcast.report": 7, "pertcast.cli": 7, "pertcast.__main__": 7, "pertcast.app": 7,
}  # fmt: skip
# Folders of one layer that may lean on another of the same layer, and never the other way round.
BESIDE = {
    ("pertcast.cell_schema", "pertcast.schema"),  # what a table is
    ("pertcast.features", "pertcast.io"),  # assemble keeps tables of structures in the cache
    ("pertcast.features", "pertcast.de"),  # responses are p-values, models learn in t
    ("pertcast.nn", "pertcast.features"),
    ("pertcast.nn", "pertcast.io"),  # members are saved as arrays
    ("pertcast.models", "pertcast.cells"),  # `from_cells` alone, which a test holds
    ("pertcast.validation", "pertcast.runs"),
    ("pertcast.validation", "pertcast.engine"),
    ("pertcast.validation", "pertcast.features"),  # structures that may not be split over folds
    ("pertcast.ensemble", "pertcast.weights"),
    ("pertcast.ensemble", "pertcast.row_strength"),
    ("pertcast.ensemble", "pertcast.diversity"),
    ("pertcast.ensemble", "pertcast.correction"),
    ("pertcast.correction", "pertcast.weights"),
    ("pertcast.row_strength", "pertcast.weights"),
    ("pertcast.diversity", "pertcast.weights"),
    ("pertcast.facts", "pertcast.submission"),
    ("pertcast.facts", "pertcast.preflight"),
    ("pertcast.tuning", "pertcast.preflight"),  # where a model is trained
    ("pertcast.preflight", "pertcast.scoring"),  # names that stand for something in a score table
    ("pertcast.workflow", "pertcast.outcome"),  # what it returns, and how it is made from finished runs
    ("pertcast.cli", "pertcast.report"),
    ("pertcast.cli", "pertcast.commands"),
    ("pertcast.commands", "pertcast.report"),
    ("pertcast.commands", "pertcast.app"),
    ("pertcast.app", "pertcast.report"),
    ("pertcast.__main__", "pertcast.cli"),
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def layer(module: str) -> int:
    while module not in LAYERS:
        module = module.rpartition(".")[0]
    return LAYERS[module]


def home(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2])


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    known = {name for name, _ in modules()}
    return {name for name in found if name in known}


@pytest.mark.parametrize(("module", "path"), modules())
def test_imports_point_down(module, path):
    for name in imports(path) - {module, module.rpartition(".")[0]}:
        same_home = home(name) == home(module) or home(name) == "pertcast"
        allowed = layer(name) < layer(module) or (layer(name) == layer(module) and same_home)
        assert allowed or (home(module), home(name)) in BESIDE, f"{module} imports {name}"


def test_no_cycles():
    graph = {module: imports(path) - {module} for module, path in modules()}
    done, walking = set(), []

    def walk(module):
        if module in done:
            return
        assert module not in walking, f"import cycle: {' -> '.join([*walking, module])}"
        walking.append(module)
        for name in graph[module]:
            if not module.startswith(f"{name}."):  # a package is loaded before what lies in it
                walk(name)
        walking.pop()
        done.add(module)

    for module in graph:
        walk(module)


def test_model_files_never_import_each_other():
    """A model is one file: it may be deleted without breaking another."""
    for module, path in modules():
        if module.startswith("pertcast.models.") and not module.endswith("registry"):
            others = {name for name in imports(path) if name.startswith("pertcast.models.")} - {module}
            assert {name for name in others if not name.startswith("pertcast.models.registry")} == set()


def test_one_model_alone_knows_models_of_cells():
    """`from_cells` wraps them; no other model of responses may come to depend on them, nor they on any."""
    assert {
        module for module, path in modules() if {"pertcast.models", "pertcast.cells"} <= {home(module)} | {
            home(name) for name in imports(path)
        } and layer(module) == layer("pertcast.models")
    } == {"pertcast.models.from_cells"}  # fmt: skip


def test_the_guard_sees_an_upward_import(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("from pertcast import workflow\nimport pertcast.cli\n")
    assert {"pertcast.workflow", "pertcast.cli"} <= imports(path)
    assert layer("pertcast.workflow") > layer("pertcast.metrics.rowwise")


def test_no_size_of_the_competition_in_the_code():
    """R39. The demo of full size is the one place that says how large it is."""
    for path in {path for module, path in modules() if module != "pertcast.simulate.competition"}:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
                assert node.value not in (18211, 255, 152), f"{path}:{node.lineno} has {node.value}"
