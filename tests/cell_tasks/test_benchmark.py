"""The benchmark of models of cells: nothing held out is trained on, nothing done twice, every number can be redone."""

import json
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array

from command_line import partials, pertcast, refused
from pertcast.cell_tasks.benchmark import _recipes
from pertcast.cells.registry import entries
from pertcast.cells.variable_genes import variable_genes
from pertcast.validation.cell_splits import read_splits

GENES, CELLS = 240, 40
QUICK = "model = 'zinb-vae'\nreason = 'quick'\n[settings]\nhidden = 8\nlatent = 3\n[settings.training]\nepochs = 2\n"


def make_file(path, *, effect: float = 1.5, conditions=("drug",), cells: int = CELLS, seed: int = 0):
    """Write three types, untreated and treated; a treatment multiplies 20 genes by exp(effect)."""
    rng = np.random.default_rng(seed)
    base, blocks, obs = np.exp(rng.normal(0, 1, GENES)), [], []
    for kind in ("a", "b", "c"):
        own = base * np.exp(0.3 * rng.normal(size=GENES))
        for number, condition in enumerate(("control", *conditions)):
            moved = (np.arange(GENES) // 20 == number - 1) & (number > 0)
            blocks.append(rng.poisson(own * np.exp(effect * moved) * rng.gamma(3, 1 / 3, (cells, GENES))))
            obs += [(condition, kind)] * cells
    x = np.concatenate(blocks).astype(np.float32)
    table = pd.DataFrame(obs, columns=["condition", "kind"], index=[f"cell{i}" for i in range(len(x))])
    ad.AnnData(csr_array(x), obs=table, var=pd.DataFrame(index=[f"G{j}" for j in range(GENES)])).write_h5ad(path)
    return path


def run(path, out, *more):
    return pertcast("cells", "benchmark", path, "--holdout-key", "kind", "--out", out, "--jobs", "1", *more)


def facts(done):
    assert done.code == 0, done.err
    return json.loads(done.out)


def scores_of(table):
    return {line["name"]: line["scores"] for line in table["lines"]}


def test_every_model_on_every_hold_out(tmp_path):
    """The default list is the default model and every registered floor; means are means, the ceiling is a ceiling."""
    done = run(make_file(tmp_path / "cells.h5ad"), tmp_path / "out", "--json")
    told = facts(done)
    assert told == json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert [table["title"] for table in told["holdouts"]] == [f"drug in {kind}" for kind in "abc"]
    roles = {line["name"]: line["role"] for line in told["mean"]["lines"]}
    floors = {name for name, entry in entries().items() if entry.floor}
    assert roles == {"context-transfer": "model", **dict.fromkeys(floors, "floor"), "half of the truth": "ceiling"}
    scores = scores_of(told["mean"])
    assert scores["no-change"]["skill DE"] == 0
    assert scores["no-change"]["delta Pearson"] is None
    assert scores["context-transfer"]["skill DE"] > 0.6
    for column in ("skill", "energy distance", "MMD2"):
        by_hand = np.mean([scores_of(table)["no-change"][column] for table in told["holdouts"]])
        assert scores["no-change"][column] == pytest.approx(by_hand)
    assert told["calibrated"]["no-change"]["skill DE"] == 0
    assert told["calibrated"]["half of the truth"]["skill DE"] == 1
    low, high = told["intervals"]["context-transfer"]["skill DE"]
    assert low < scores["context-transfer"]["skill DE"] < high
    assert told["no_measurable_effect"] == []
    assert told["harmless_pairs"]["no-change"] == 3
    assert (tmp_path / "out" / "benchmark.png").read_bytes()[:4] == b"\x89PNG"
    table = pd.read_csv(tmp_path / "out" / "benchmark.csv")
    assert len(table) == 3 * len(roles)
    assert table[table.model == "no-change"]["energy distance"].mean() == pytest.approx(
        scores["no-change"]["energy distance"]
    )


def test_held_out_cells_are_never_trained_on(tmp_path):
    """Poisoned held-out cells change their scores, and no prediction: the other hold-outs' references aside."""
    data = make_file(tmp_path / "cells.h5ad")
    cells = ad.read_h5ad(data)
    x = cells.X.toarray()
    poisoned = ((cells.obs.kind == "b") & (cells.obs.condition == "drug")).to_numpy()
    x[poisoned] += 50
    cells.X = csr_array(x)
    cells.write_h5ad(tmp_path / "poisoned.h5ad")
    found = []
    for path in (data, tmp_path / "poisoned.h5ad"):
        done = run(path, tmp_path / path.stem, "--holdout", "b", "--models", "context-transfer,no-change", "--json")
        found.append(scores_of(facts(done)["mean"]))
    assert found[1]["context-transfer"]["Wasserstein"] > 3 * found[0]["context-transfer"]["Wasserstein"]
    assert found[1]["no-change"]["skill"] == 0


def test_finished_units_are_not_done_again_and_an_interrupted_run_ends_the_same(tmp_path):
    """Units are skipped by content: what is whole stays untouched, what is missing, harmed or other is made again."""
    data, out = make_file(tmp_path / "cells.h5ad"), tmp_path / "out"
    arguments = (data, out, "--models", "no-change,log-mean-shift", "--json")
    first = facts(run(*arguments, "--holdout", "b"))
    units = sorted(path.parent for path in out.rglob("DONE.json"))
    assert len(units) == 3  # two models and the ceiling
    whole = run(*arguments)
    kept = {path: (path / "DONE.json").stat().st_mtime_ns for path in units}
    assert len(list(out.rglob("DONE.json"))) == 9
    assert scores_of(facts(whole)["holdouts"][1]) == scores_of(first["holdouts"][0])
    bytes_before = [(out / name).read_bytes() for name in ("benchmark.json", "benchmark.csv", "splits.json")]
    others = sorted({path.parent for path in out.rglob("DONE.json")} - set(units))
    shutil.rmtree(others[0])  # as if interrupted before it was renamed
    (others[1] / "scores.json").write_text("{}")  # harmed
    (others[2] / "seconds.json").unlink()  # which is no part of the result
    assert run(*arguments).out == whole.out
    assert [(out / name).read_bytes() for name in ("benchmark.json", "benchmark.csv", "splits.json")] == bytes_before
    assert {path: (path / "DONE.json").stat().st_mtime_ns for path in units} == kept
    make_file(data, seed=1)
    assert run(*arguments).out != whole.out  # other data, other units
    assert partials(tmp_path) == []


@pytest.mark.slow
def test_processes_side_by_side_end_the_same(tmp_path):
    data = make_file(tmp_path / "cells.h5ad")
    arguments = ("--models", "no-change,log-mean-shift", "--json")
    one = run(data, tmp_path / "one", *arguments)
    two = pertcast("cells", "benchmark", data, "--holdout-key", "kind", "--out", tmp_path / "two", "--jobs", 2,
                   *arguments)  # fmt: skip
    assert one.out == two.out
    for path in (tmp_path / "one").rglob("DONE.json"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_pairs_are_held_out_in_rotation(tmp_path):
    """R06, R08: the manifest names what each split holds out; no cell id and no pair stands on both sides of one, and
    every pair is held out once.
    """
    data = make_file(tmp_path / "cells.h5ad", conditions=("x", "y", "z"), cells=15)
    done = run(data, tmp_path / "out", "--folds", "pair", "--models", "no-change,log-mean-shift", "--json")
    told = facts(done)
    rotated = ["x in a", "y in b", "z in c", "x in b", "y in c", "z in a", "x in c", "y in a", "z in b"]
    assert [table["title"] for table in told["holdouts"]] == rotated
    obs = ad.read_h5ad(data).obs
    pairs = np.array([f"{one} / {other}" for one, other in zip(obs.condition, obs.kind, strict=True)])
    splits = read_splits(tmp_path / "out" / "splits.json", np.array(obs.index, dtype=object))
    assert len(splits) == 3
    for split in splits:
        held = set(pairs[split.valid])
        assert held.isdisjoint(pairs[split.train])
        assert set(obs.index[split.valid]).isdisjoint(obs.index[split.train])
        assert split.holds_out == "pair: " + ", ".join(sorted(held))
        assert len(split.train) + len(split.valid) == len(obs)
    assert len(list((tmp_path / "out").rglob("DONE.json"))) == 9  # a fit per split, not one per pair


def test_groups_of_models_stand_for_their_members():
    """`all` has every model that learns conditions, `floors` every floor; a name that comes twice is one."""
    learns = {name for name, entry in entries().items() if getattr(entry.model, "learns_conditions", True)}
    problems = []
    assert set(_recipes(("all",), problems)) == learns
    assert "gene-regression" not in learns  # its conditions are genes set to counts
    floors = {name for name, entry in entries().items() if entry.floor}
    assert set(_recipes(("default", "floors", "no-change", "context-transfer"), problems)) == {
        "context-transfer",
        *floors,
    }
    assert list(_recipes((), problems))[0] == "context-transfer"
    assert problems == []


def test_seeds_are_averaged_with_their_sd(tmp_path):
    """A preset by path is a model of its own; means and sds by pandas."""
    (tmp_path / "quick.toml").write_text(QUICK)
    data = make_file(tmp_path / "cells.h5ad")
    models = f"zinb-vae:{tmp_path / 'quick.toml'},no-change"
    told = facts(run(data, tmp_path / "out", "--models", models, "--seeds", 2, "--holdout", "a", "--json"))
    rows = pd.read_csv(tmp_path / "out" / "benchmark.csv").query("model == 'zinb-vae:quick'")
    assert list(rows.seed) == [0, 1]
    scores = scores_of(told["mean"])["zinb-vae:quick"]
    assert_allclose(scores["Wasserstein"], rows["Wasserstein"].mean())
    assert_allclose(told["seed_sd"]["zinb-vae:quick"]["Wasserstein"], rows["Wasserstein"].std())
    assert rows["Wasserstein"].std() > 0
    assert told["seed_sd"]["no-change"]["Wasserstein"] == 0  # nothing is drawn
    (behind,) = told["below_floors"]  # two epochs teach nothing
    assert behind.startswith("zinb-vae:quick is behind a floor in skill by ")
    assert f"skill DE by {-scores['skill DE']:.3f} (no-change, " in behind
    floor = scores_of(told["mean"])["no-change"]
    gap = scores["Wasserstein"] - floor["Wasserstein"]
    assert (f"Wasserstein by {gap:.3f} (no-change)" in behind) == (gap > 0)


def test_totals_over_all_genes_are_those_of_the_cell_a_prediction_was_made_from(tmp_path):
    """Half of the genes are dropped from the file; with their counts in a column, scores by hand from numpy."""
    data = ad.read_h5ad(make_file(tmp_path / "cells.h5ad"))
    data.obs["full"] = np.asarray(data.X.sum(axis=1)).ravel()
    data = data[:, :120].copy()
    data.write_h5ad(tmp_path / "half.h5ad")
    arguments = (tmp_path / "half.h5ad", tmp_path / "out", "--models", "no-change", "--holdout", "a", "--json")
    scores = scores_of(facts(run(*arguments, "--total-key", "full"))["mean"])
    y = np.log1p(data.X.toarray() / data.obs.full.to_numpy()[:, None] * 1e4)
    kind, treated = data.obs.kind.to_numpy(), (data.obs.condition == "drug").to_numpy()
    genes = variable_genes(csr_array(y[~(treated & (kind == "a"))]), 2000)
    truth, control = y[treated & (kind == "a")][:, genes].mean(0), y[~treated & (kind == "a")][:, genes].mean(0)
    assert_allclose(scores["no-change"]["MSE"], np.square(truth - control).mean(), rtol=1e-5)
    assert scores_of(facts(run(*arguments))["mean"])["no-change"]["MSE"] != scores["no-change"]["MSE"]


def test_a_condition_without_effect_is_named_and_harm_counted(tmp_path):
    data = make_file(tmp_path / "cells.h5ad", effect=0.0)
    done = run(data, tmp_path / "out", "--models", "no-change,default,mean-shift")
    assert done.code == 0
    assert "No measurable effect that contexts share: drug" in done.out
    assert "of 3 pairs: context-transfer 3, " in done.out
    told = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert told["no_measurable_effect"] == ["drug"]
    skills = [scores_of(table)["mean-shift"]["skill"] for table in told["holdouts"]]
    assert told["harmless_pairs"]["mean-shift"] == sum(skill >= 0 for skill in skills)


def test_all_faults_are_named_at_once(tmp_path):
    data, out = make_file(tmp_path / "cells.h5ad"), tmp_path / "out"
    wrong = run(data, out, "--models", "no-chance,zinb-vae:quik", "--holdout", "z", "--condition", "drugs",
                "--folds", "pairs", "--total-key", "n_counts")  # fmt: skip
    refused(wrong, "has 6 problems")
    for part in (
        "Unknown model of cells 'no-chance'. Did you mean 'no-change'", "Unknown preset 'quik'", "Unknown context 'z'",
        "Unknown condition 'drugs'. Did you mean 'drug'", "Unknown way to hold out 'pairs'. Did you mean 'pair'",
        "Unknown column of obs 'n_counts'",
    ):  # fmt: skip
        assert part in wrong.err, part
    assert not out.exists()


def test_faults_of_the_file_are_named_at_once(tmp_path):
    cells = ad.read_h5ad(make_file(tmp_path / "cells.h5ad"))
    x = cells.X.toarray()
    x[3, 3] = np.nan
    cells.X = x
    cells.obs_names = ["cell0", *cells.obs_names[:-1]]
    cells.write_h5ad(tmp_path / "bad.h5ad")
    done = run(tmp_path / "bad.h5ad", tmp_path / "out")
    refused(done, "(?s)2 problems.*1 cell ids occur more than once: cell0.*1 values that are NaN")


def test_too_few_cells_are_refused_where_they_were_asked_for_and_told_where_not(tmp_path):
    """Type c has 4 treated cells; type b no untreated ones, so nothing can be asked of it."""
    cells = ad.read_h5ad(make_file(tmp_path / "cells.h5ad", cells=20))
    treated = (cells.obs.condition == "drug").to_numpy()
    kind = cells.obs.kind.to_numpy()
    few = np.flatnonzero((kind == "c") & treated)[4:]
    keep = ~np.isin(np.arange(len(kind)), few)
    cells[keep].copy().write_h5ad(tmp_path / "few.h5ad")
    done = run(tmp_path / "few.h5ad", tmp_path / "out", "--models", "no-change", "--json")
    assert [table["title"] for table in facts(done)["holdouts"]] == ["drug in a", "drug in b"]
    refused(
        run(tmp_path / "few.h5ad", tmp_path / "no", "--models", "no-change", "--holdout", "c"),
        r"needs 10 untreated cells .* these contexts do not: c \(20 untreated, at most 4 of a condition\)",
    )
    cells[keep & ((kind != "b") | treated)].copy().write_h5ad(tmp_path / "alone.h5ad")
    told = facts(run(tmp_path / "alone.h5ad", tmp_path / "alone", "--models", "no-change", "--json"))
    assert [table["title"] for table in told["holdouts"]] == ["drug in a"]  # b has no untreated cells
    one = cells[kind == "a"].copy()
    one.write_h5ad(tmp_path / "one.h5ad")
    refused(run(tmp_path / "one.h5ad", tmp_path / "no"), "all cells are of one context, a; with one held out, another")
    cells[~treated].copy().write_h5ad(tmp_path / "untreated.h5ad")
    refused(run(tmp_path / "untreated.h5ad", tmp_path / "no"), "'control' in every cell; at least one other condition")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (lambda total: ["many"] * len(total), "column 'full' is to hold total counts, but holds text"),
        (lambda total: total - (np.arange(len(total)) == 1), "below the given counts in 1 cells, first in 'cell1'"),
        (lambda total: np.where(np.arange(len(total)) == 2, np.nan, total), "in 1 cells, first in 'cell2'"),
    ],
)
def test_totals_that_cannot_be_are_refused(column, message, tmp_path):
    cells = ad.read_h5ad(make_file(tmp_path / "cells.h5ad", cells=12))
    cells.obs["full"] = column(np.asarray(cells.X.sum(axis=1)).ravel())
    cells.write_h5ad(tmp_path / "total.h5ad")
    refused(run(tmp_path / "total.h5ad", tmp_path / "out", "--total-key", "full"), message)


def test_totals_of_log_values_are_refused(tmp_path):
    cells = ad.read_h5ad(make_file(tmp_path / "cells.h5ad", cells=12))
    cells.obs["full"] = np.asarray(cells.X.sum(axis=1)).ravel()
    cells.X = csr_array(np.log1p(cells.X.toarray() / cells.obs.full.to_numpy()[:, None] * 1e4))
    cells.write_h5ad(tmp_path / "log.h5ad")
    refused(run(tmp_path / "log.h5ad", tmp_path / "out", "--total-key", "full"), "the values are log1p already")
    told = facts(run(tmp_path / "log.h5ad", tmp_path / "out", "--models", "no-change", "--json"))
    assert scores_of(told["mean"])["no-change"]["skill"] == 0  # log values in, scored as they are


def test_cells_without_a_gene_to_score_are_refused(tmp_path):
    cells = ad.read_h5ad(make_file(tmp_path / "cells.h5ad", cells=12))
    x = np.zeros(cells.shape, np.float32)
    x[:5] = 1
    cells.X = csr_array(x)
    cells.write_h5ad(tmp_path / "empty.h5ad")
    refused(run(tmp_path / "empty.h5ad", tmp_path / "out", "--models", "no-change"), "no gene varies and is seen in 10")


def test_variable_genes_are_the_overdispersed_ones():
    """Of genes of like means, those drawn with a tenfold dispersion; a few stand alone in the outermost bins."""
    rng = np.random.default_rng(0)
    mean = rng.uniform(1, 3, 2000)
    size = np.where(np.arange(2000) < 200, 0.3, 3.0)
    y = np.log1p(rng.negative_binomial(size, size / (size + mean), (500, 2000)))
    assert (variable_genes(csr_array(y.astype(float)), 200) < 200).mean() > 0.95


def test_variable_genes_are_those_of_a_table_of_bins():
    """By pandas: bins of equal width, scores within a bin, 1 for a gene alone in its bin."""
    rng = np.random.default_rng(3)
    x = rng.poisson(np.exp(rng.normal(0, 1.5, 300)) * rng.gamma(2, 0.5, (200, 300))).astype(float)
    y = np.log1p(x)
    seen = np.flatnonzero((x > 0).sum(0) >= 10)
    mean, var = x[:, seen].mean(0), x[:, seen].var(0, ddof=1)
    table = pd.DataFrame({"spread": np.log(var / mean), "bin": pd.cut(np.log1p(mean), 20, labels=False)})
    groups = table.groupby("bin").spread
    score = ((table.spread - groups.transform("mean")) / groups.transform("std")).fillna(1.0)
    assert (groups.transform("size") == 1).any()
    want = seen[np.argsort(-score.to_numpy(), kind="stable")[:100]]
    assert set(variable_genes(csr_array(y), 100)) == set(want)
