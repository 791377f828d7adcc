"""The whole circle: cells of a simulated competition, a table from them, models of cells in the blend, its score."""

import json

import pandas as pd
import pytest
from numpy.testing import assert_allclose

from command_line import pertcast, places
from pertcast.config import load_recipe
from pertcast.runs import reads_cells

SMALL = """
model = "from-cells"
reason = "as small as it gets"
space = "t"

[settings]
model = "{model}"

[settings.settings]
{settings}

[settings.settings.training]
{training}
device = "cpu"
"""
MODELS = {
    "zinb-vae": ("hidden = 8\nlatent = 3\neffects = true", "epochs = 2"),
    "film-gan": ("axes = 4", "steps = 5\nvalid_share = 0.0"),
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("circle") / "demo"
    assert pertcast("demo", "--out", folder, "--size", "tiny", "--cells").code == 0
    return folder


@pytest.fixture(scope="module")
def done(demo):
    """A submission of two models of cells beside two of the table, and what it says."""
    recipes = demo.parent / "recipes"
    recipes.mkdir()
    for model, (settings, training) in MODELS.items():
        (recipes / f"{model}.toml").write_text(SMALL.format(model=model, settings=settings, training=training))
    preset = recipes / "circle.toml"
    listed = [*(f"{recipes}/{model}.toml" for model in MODELS), "ridge", "translation-t"]
    preset.write_text(f'reason = "tests"\nrecipes = {json.dumps(listed)}\n')
    out = demo.parent / "circle.csv"
    said = pertcast(
        "submission", "--data", demo, "--out", out, "--preset", preset, "--json", *places(demo.parent)
    )  # fmt: skip
    assert said.code == 0, said.err
    return json.loads(said.out), json.loads(out.with_suffix(".json").read_text()), said.err


def test_the_blend_is_compared_with_the_one_that_reads_no_cells(done):
    """What members that read cells change: on held-out rows and on the solution, as the two tables have it."""
    facts, _, err = done
    for where, paired in zip(("cv", "score"), facts["paired"], strict=True):
        lines = {line["name"]: line["mrrmse"] for line in facts[where]["lines"]}
        assert (paired["name"], paired["against"]) == ("blend", "blend without cells")
        assert_allclose(paired["difference"], lines["blend"] - lines["blend without cells"], atol=1e-6)
        low, high = paired["over_compounds"]
        assert low <= paired["difference"] <= high
    assert "On the held-out rows: blend minus blend without cells" in err
    assert "On the rows to predict: blend minus blend without cells" in err


def test_the_blend_without_cells_is_that_of_the_other_runs(done, demo, tmp_path):
    """`pertcast ensemble` of the runs that read no cells has its score, and nothing to compare."""
    facts, _, _ = done
    kept = ("ridge", "translation-t", "additive", "compound-mean", "cell-type-mean", "gene-mean", "zeros")
    runs = [path for name in kept for path in (demo.parent / "runs").glob(f"{name}-????????")]
    assert len(runs) == len(kept)
    alone = pertcast("ensemble", *runs, "--data", demo, "--out", tmp_path / "alone.csv", "--json")
    assert alone.code == 0, alone.err
    said = json.loads(alone.out)
    assert said["paired"] == []
    for where in ("cv", "score"):
        bare = next(line for line in facts[where]["lines"] if line["name"] == "blend without cells")
        blend = next(line for line in said[where]["lines"] if line["name"] == "blend")
        # Trees of the correction draw their features by place, and runs named in another order stand elsewhere.
        assert_allclose(bare["mrrmse"], blend["mrrmse"], rtol=1e-3)


def test_recipes_of_cells_are_known_by_what_they_read():
    names = ("cells-zinb-vae", "cells-film-gan", "cells-context-transfer", "ridge", "translation-t")
    assert [reads_cells(load_recipe(name)) for name in names] == [True, True, True, False, False]


def test_a_preset_that_needs_cells_says_so(tmp_path):
    """On a folder without cells nothing is fitted and nothing written."""
    assert pertcast("demo", "--out", tmp_path / "demo", "--size", "tiny").code == 0
    said = pertcast(
        "submission", "--data", tmp_path / "demo", "--out", tmp_path / "out.csv", "--preset", "cells", *places(tmp_path)
    )
    assert said.code == 2
    assert "needs the single cells behind the table" in said.err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
def test_the_whole_circle_at_its_printed_size(tmp_path):
    """1,000 genes, the preset `cells`: the table comes again, a model of cells counts and is not shown to harm."""
    demo = tmp_path / "demo"
    assert pertcast("demo", "--out", demo, "--size", "small", "--cells").code == 0
    assert pertcast("de", demo / "cells.h5ad", "--design", "demo", "--out", tmp_path / "de.parquet").code == 0
    asked = set(pd.read_csv(demo / "id_map.csv")["cell_type"])
    keys = ["cell_type", "sm_name"]
    own, again = (
        table[~table["cell_type"].isin(asked)].set_index(keys).sort_index()
        for table in map(pd.read_parquet, (demo / "de_train.parquet", tmp_path / "de.parquet"))
    )
    genes = list(own.columns[3:])
    assert len(genes) == 1000
    assert_allclose(again.loc[own.index, genes], own[genes], rtol=1e-6, atol=1e-9)

    out = tmp_path / "out.csv"
    said = pertcast(
        "submission", "--data", demo, "--out", out, "--preset", "cells", "--json", *places(tmp_path)
    )  # fmt: skip
    assert said.code == 0, said.err
    facts = json.loads(said.out)
    weights = json.loads(out.with_suffix(".json").read_text())["facts"]["blends"]["seen"]["weights"]
    assert max(weight for name, weight in weights.items() if name.startswith("cells-")) > 0.05
    held_out, solution = facts["paired"]
    assert held_out["difference"] < 0
    low, high = solution["over_compounds"]
    assert low <= 0
    assert high - low < 0.02
