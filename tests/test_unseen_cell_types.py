"""A cell type that training never saw, predicted from its untreated profile: through the workflow, by `cv`, on real."""

import json

import numpy as np
import pandas as pd
import pytest

from command_line import pertcast, places, refused
from pertcast import workflow
from pertcast.predict import Compound

TYPES, DRUGS, GENES = 8, 12, 20
RECIPE = """
model = "{model}"
reason = "tests"
[features]
blocks = ["cell_type", "compound", "compound_residual_mean", "morgan"{more}]
smooth = 1.0
"""
TERMS = """
[settings.terms]
context = 1.0
"context*compound" = 1.0
profile = 1.0
"""


@pytest.fixture
def data(tmp_path):
    """Write a competition in which types of two families answer by family; `type 7` is asked for and never trained."""
    rng = np.random.default_rng(0)
    family = np.arange(TYPES) % 2
    effect = rng.normal(size=(2, DRUGS, GENES)) * 3
    genes = [f"G{j:02d}" for j in range(GENES)]
    rows = [(t, d) for t in range(TYPES - 1) for d in range(DRUGS)]
    smiles = ["C" * (d + 1) + "O" for d in range(DRUGS)]
    keys = pd.DataFrame(
        {
            "cell_type": [f"type {t}" for t, _ in rows],
            "sm_name": [f"drug {d}" for _, d in rows],
            "sm_lincs_id": [f"LSM-{d}" for _, d in rows],
            "SMILES": [smiles[d] for _, d in rows],
            "control": False,
        }
    )
    y = np.array([effect[family[t], d] for t, d in rows]) + 0.3 * rng.normal(size=(len(rows), GENES))
    folder = tmp_path / "data"
    folder.mkdir()
    pd.concat([keys, pd.DataFrame(y, columns=genes)], axis=1).to_parquet(folder / "de_train.parquet")
    asked = pd.DataFrame({"id": range(DRUGS), "cell_type": "type 7", "sm_name": [f"drug {d}" for d in range(DRUGS)]})
    asked.to_csv(folder / "id_map.csv", index=False)
    untreated = rng.normal(size=(2, 30))[family] * 2 + 0.3 * rng.normal(size=(TYPES, 30))
    baseline = pd.DataFrame(untreated, columns=[f"H{j}" for j in range(30)])
    baseline.insert(0, "cell_type", [f"type {t}" for t in range(TYPES)])
    baseline.to_csv(folder / "cell_baseline.csv", index=False)
    solution = pd.DataFrame(effect[1], columns=genes)
    solution.insert(0, "id", range(DRUGS))
    solution.insert(1, "Usage", "Public")
    solution.to_parquet(folder / "solution.parquet")
    return folder


@pytest.fixture
def recipes(tmp_path):
    """Write kernel ridge without and with untreated cells."""
    for name, more, terms in (("plain", "", ""), ("context", ', "cell_baseline"', TERMS)):
        (tmp_path / f"{name}.toml").write_text(RECIPE.format(model="kernel-ridge", more=more) + terms)
    return [tmp_path / "plain.toml", tmp_path / "context.toml"]


def test_untreated_cells_tell_the_family_of_an_unseen_type(data, recipes, tmp_path):
    """Held-out types are predicted by their family's answers; `--against` prints the paired gain, over both units."""
    done = pertcast(
        "cv", *recipes, "--data", data, "--folds", "celltype", "--out", tmp_path / "runs", "--cache",
        tmp_path / "cache", "--jobs", 1, "--against", "plain", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    told = json.loads(done.out)
    (paired,) = told["paired"]
    assert (paired["name"], paired["against"]) == ("context", "plain")
    scores = {line["name"]: line["mrrmse"] for line in told["lines"]}
    assert paired["difference"] == pytest.approx(scores["context"] - scores["plain"])
    assert scores["context"] < 0.5 * scores["plain"]
    assert max(paired["over_compounds"] + paired["over_cell_types"]) < 0


def test_an_unseen_type_is_asked_for_and_predicted(data, recipes, tmp_path):
    """The main job takes a cell type that only cell_baseline knows; so does a run on its own, with the same numbers."""
    result = workflow.cross_validate(
        [str(recipes[1])], data, folds="celltype", out=tmp_path / "runs", cache=tmp_path / "cache"
    )
    test = workflow.cv.test_predictions(result.runs)
    truth = pd.read_parquet(data / "solution.parquet").iloc[:, 2:].to_numpy()
    error = np.sqrt(((test["context"].values - truth) ** 2).mean(1)).mean()
    assert error < 0.4 * np.sqrt((truth**2).mean(1)).mean()
    run = next(run for run in result.runs if run.recipe.name == "context")
    (forecast,) = workflow.predict(run.folder, "type 7", [Compound(name="drug 3")])
    np.testing.assert_allclose(forecast.values, test["context"].values[3], atol=1e-6)
    done = pertcast("predict", "--run", run.folder, "--cell-type", "type 8", "--compound", "drug 3")
    refused(done, "Unknown cell type 'type 8'.*type 7")


@pytest.mark.parametrize(
    ("lacks", "more", "used"),
    [
        ("nothing", [], "context"),
        ("nothing", ["ridge-onehot"], "context"),
        ("a type", [], "plain"),
        ("the table", [], "plain"),
        ("the table", ["ridge-onehot"], "ridge-onehot"),
    ],
)
def test_where_untreated_cells_are_known_a_recipe_reads_them(data, recipes, tmp_path, lacks, more, used):
    """`described` of a preset: the first recipe takes the other's place for which every cell type has a profile."""
    baseline = pd.read_csv(data / "cell_baseline.csv")
    (data / "id_map.csv").write_text("id,cell_type,sm_name\n0,type 0,drug 0\n")
    (data / "solution.parquet").unlink()
    baseline.iloc[1 if lacks == "a type" else 0 :].to_csv(data / "cell_baseline.csv", index=False)
    if lacks == "the table":
        (data / "cell_baseline.csv").unlink()
    plain, context = map(str, recipes)
    result = workflow.cross_validate(
        [plain], data, folds="celltype", out=tmp_path / "runs", cache=tmp_path / "cache", refit_seeds=0,
        described={"plain": [context, *more]},
    )  # fmt: skip
    assert {run.recipe.name for run in result.runs} & {"plain", "context", "ridge-onehot"} == {used}


def test_an_unseen_type_without_a_profile_is_refused(data, tmp_path):
    (data / "cell_baseline.csv").unlink()
    refused(pertcast("cv", "ridge", "--data", data, "--out", tmp_path / "runs"), "Unknown cell type 'type 7'")
    table = pd.read_parquet(data / "de_train.parquet")
    (data / "id_map.csv").write_text("id,cell_type,sm_name\n0,type 0,new\n")
    assert len(table)
    recipe = tmp_path / "ridge.toml"
    recipe.write_text('model = "ridge"\nreason = "x"\n[features]\nblocks = ["cell_baseline"]\n')
    done = pertcast("cv", recipe, "--data", data, "--out", tmp_path / "runs", "--folds", "random")
    refused(done, "block 'cell_baseline' needs a table of untreated cells, which the data folder lacks")
    assert not list((tmp_path / "runs").rglob("DONE.json"))


def test_what_others_are_compared_to_is_known_before_anything_is_fitted(data, tmp_path):
    done = pertcast("cv", "ridge", "--data", data, "--out", tmp_path / "runs", "--against", "ridgge")
    refused(done, "Unknown recipe to compare with 'ridgge'. Did you mean 'ridge'")
    assert not (tmp_path / "runs").exists()


def test_the_main_job_on_an_unseen_type(data, recipes, tmp_path):
    preset = tmp_path / "preset.toml"
    preset.write_text(f'reason = "tests"\nrecipes = ["{recipes[1]}"]\nfolds = "celltype"\n')
    out = tmp_path / "out.csv"
    done = pertcast("submission", "--data", data, "--out", out, "--preset", preset, *places(tmp_path), "--json")
    assert done.code == 0, done.err
    assert len(pd.read_csv(out)) == DRUGS
