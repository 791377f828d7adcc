"""The benchmark of models of cells: hold-outs are never trained on, conditions without effect are named."""

import json

import numpy as np
import pytest
from scipy.sparse import csr_array

from commands import pertcast, refused
from pertcast.cells.variable_genes import variable_genes

GENES, CELLS = 240, 40


def make_file(path, *, effect: float, seed: int = 0):
    """Write three types, untreated and treated; the treatment multiplies 20 genes by exp(effect)."""
    import anndata
    import pandas as pd

    rng = np.random.default_rng(seed)
    base, blocks, obs = np.exp(rng.normal(0, 1, GENES)), [], []
    for kind in ("a", "b", "c"):
        own = base * np.exp(0.3 * rng.normal(size=GENES))
        for condition in ("control", "drug"):
            mean = own * np.exp(np.where(np.arange(GENES) < 20, effect * (condition == "drug"), 0))
            blocks.append(rng.poisson(mean * rng.gamma(3, 1 / 3, (CELLS, GENES))))
            obs += [(condition, kind)] * CELLS
    x = np.concatenate(blocks).astype(np.float32)
    table = pd.DataFrame(obs, columns=["condition", "kind"], index=[f"cell{i}" for i in range(len(x))])
    anndata.AnnData(csr_array(x), obs=table, var=pd.DataFrame(index=[f"G{j}" for j in range(GENES)])).write_h5ad(path)
    return path


def run(path, out, *more):
    return pertcast("cells", "benchmark", path, "--holdout-key", "kind", "--out", out, *more)


def test_every_model_on_every_hold_out(tmp_path):
    data = make_file(tmp_path / "cells.h5ad", effect=1.5)
    done = run(data, tmp_path / "out", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told == json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert [table["title"] for table in told["holdouts"]] == [f"drug in {kind}" for kind in "abc"]
    scores = {line["name"]: line["scores"] for line in told["mean"]["lines"]}
    assert scores["no-change"]["skill DE"] == pytest.approx(0, abs=1e-6)
    assert scores["context-transfer"]["skill DE"] > 0.6
    assert scores["half of the truth"]["skill DE"] > scores["no-change"]["skill DE"]
    for column in ("skill", "energy distance"):
        by_hand = np.mean([t["lines"][0]["scores"][column] for t in told["holdouts"]])
        assert scores["no-change"][column] == pytest.approx(by_hand)
    assert told["remarks"] == []
    assert (tmp_path / "out" / "benchmark.png").read_bytes()[:4] == b"\x89PNG"


def test_held_out_cells_are_never_trained_on(tmp_path):
    """Poisoned held-out cells change their scores, and no prediction: the other hold-outs' references aside."""
    import anndata

    data = make_file(tmp_path / "cells.h5ad", effect=1.5)
    cells = anndata.read_h5ad(data)
    x = cells.X.toarray()
    poisoned = ((cells.obs.kind == "b") & (cells.obs.condition == "drug")).to_numpy()
    x[poisoned] += 50
    cells.X = csr_array(x)
    cells.write_h5ad(tmp_path / "poisoned.h5ad")
    found = []
    for path in (data, tmp_path / "poisoned.h5ad"):
        done = run(path, tmp_path / path.stem, "--holdout", "b", "--models", "context-transfer,no-change", "--json")
        found.append({line["name"]: line["scores"] for line in json.loads(done.out)["mean"]["lines"]})
    assert found[1]["context-transfer"]["Wasserstein"] > 3 * found[0]["context-transfer"]["Wasserstein"]
    assert found[1]["no-change"]["skill"] == pytest.approx(0, abs=1e-6)


def test_a_condition_without_effect_is_named(tmp_path):
    done = run(make_file(tmp_path / "cells.h5ad", effect=0.0), tmp_path / "out", "--models", "no-change")
    assert done.code == 0
    assert "No measurable effect that contexts share: drug" in done.err


def test_wrong_names_are_refused(tmp_path):
    data = make_file(tmp_path / "cells.h5ad", effect=1.0)
    wrong = run(data, tmp_path / "out", "--models", "no-chance")
    refused(wrong, "Unknown model of cells 'no-chance'. Did you mean 'no-change'")
    refused(run(data, tmp_path / "out", "--holdout", "z"), "Unknown context 'z'")
    refused(run(data, tmp_path / "out", "--condition", "drugs"), "Unknown condition 'drugs'. Did you mean 'drug'")
    assert not (tmp_path / "out").exists()


def test_variable_genes_are_the_overdispersed_ones():
    """Of genes of like means, those drawn with a tenfold dispersion."""
    rng = np.random.default_rng(0)
    mean = rng.uniform(1, 3, 200)
    size = np.where(np.arange(200) < 20, 0.3, 3.0)
    y = np.log1p(rng.negative_binomial(size, size / (size + mean), (500, 200)))
    assert set(variable_genes(csr_array(y.astype(float)), 20)) == set(range(20))
