"""The demo competition: honest about being simulated, the same bytes for the same seed, calibrated to the real one."""

import json
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pertcast import workflow
from pertcast.errors import InputError
from pertcast.io.atomic import digest_file
from pertcast.io.tables import read_competition, read_predictions, read_solution
from pertcast.metrics.rowwise import mrrmse
from pertcast.simulate.chemistry import build_compounds
from pertcast.simulate.competition import SIZES, _Biology, potencies, simulate_competition
from pertcast.simulate.demo import write_demo

# COMPETITION facts of the real table: RMS of the mean profile and mean per-gene sd, by cell type.
REAL = {
    "B cells": (1.88, 3.41),
    "Myeloid cells": (2.51, 3.93),
    "NK cells": (0.77, 2.09),
    "T cells CD4+": (0.45, 1.77),
    "T cells CD8+": (0.18, 1.02),
    "T regulatory cells": (0.71, 2.03),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "tiny"
    return folder, write_demo(folder, size="tiny", seed=0)


@cache
def small(seed):
    return simulate_competition(SIZES["small"], seed=seed)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_sizes_are_as_promised(size):
    config = SIZES[size]
    promised = {"tiny": (60, 12, 4), "small": (1000, 100, 6)}
    assert (config.genes, config.compounds, len(config.cell_types)) == promised[size]


def test_the_folder_passes_its_own_check(tiny):
    folder, facts = tiny
    assert workflow.check(folder) == []
    competition = read_competition(folder)
    assert competition.simulated
    assert "SIMULATED" in (folder / "README.md").read_text().splitlines()[0]
    assert json.loads((folder / "truth.json").read_text()) == facts
    assert list(competition.genes) == sorted(set(competition.genes))
    assert competition.train["control"].groupby(competition.train["sm_name"]).first().sum() == 2  # positive controls


def test_same_seed_same_bytes(tiny, tmp_path):
    """R38."""
    write_demo(tmp_path / "again", size="tiny", seed=0)
    write_demo(tmp_path / "other", size="tiny", seed=1)
    for path in sorted(tiny[0].iterdir()):
        assert digest_file(path) == digest_file(tmp_path / "again" / path.name), path.name
    assert digest_file(tiny[0] / "de_train.parquet") != digest_file(tmp_path / "other" / "de_train.parquet")


def test_the_oracle_scores_what_truth_json_says(tiny):
    folder, facts = tiny
    competition = read_competition(folder)
    ids = competition.test["id"].to_numpy()
    solution = read_solution(folder / "solution.parquet", ids=ids, genes=competition.genes)
    oracle = read_predictions(folder / "oracle.parquet", ids=ids, genes=competition.genes)
    assert mrrmse(y_true=solution.y, y_pred=oracle) == pytest.approx(facts["mrrmse_oracle"]["all"], abs=1e-5)
    public = solution.usage == "Public"
    assert mrrmse(y_true=solution.y[public], y_pred=oracle[public]) == pytest.approx(
        facts["mrrmse_oracle"]["Public"], abs=1e-5
    )


def test_public_and_private_are_split_by_compound(tiny):
    competition = read_competition(tiny[0])
    solution = read_solution(tiny[0] / "solution.parquet", ids=competition.test["id"].to_numpy())
    usage = dict.fromkeys(competition.test["sm_name"])
    for compound in usage:
        assert len(set(solution.usage[(competition.test["sm_name"] == compound).to_numpy()])) == 1


def row_sizes(y):
    return np.sqrt((y**2).mean(axis=1))


def compound_means(demo, y):
    return np.stack([y[demo.pairs.train[:, 1] == c].mean(0) for c in range(demo.config.compounds)])


def asked_as_in_the_real_competition(demo):
    """Hold the rows to predict to their published scores.

    Zeros: 0.39 * 0.666 + 0.61 * 0.902 = 0.81; noise alone is RMS 0.6 here, and there less than the 0.547 of the best on
    the public part. Compound means of 35 or 36 principal components score 0.909 and 0.923 of zeros, the best entries
    0.80 to 0.82: the ceiling must lie below.
    """
    zeros = row_sizes(demo.y_test).mean()
    assert 0.8 < zeros < 1.0
    left, values, right = np.linalg.svd(demo.y_train, full_matrices=False)
    smooth = (left[:, :36] * values[:36]) @ right[:36]
    of_compound = compound_means(demo, smooth)[demo.pairs.test[:, 1]]
    assert row_sizes(demo.y_test - of_compound).mean() / zeros == pytest.approx(0.91, abs=0.08)
    assert row_sizes(demo.y_test - demo.oracle_test).mean() < 0.82 * zeros
    rare = demo.pairs.train[:, 0] >= len(demo.config.cell_types) - demo.config.rare
    assert row_sizes(demo.y_train[rare]).mean() > 2 * zeros  # the known compounds are the strong ones


def left_out_compound_mean(demo, y):
    """Six random folds of rows; a compound that training lacks is predicted by the gene means."""
    of_compound, fold = demo.pairs.train[:, 1], np.random.default_rng(0).permutation(len(y)) % 6
    prediction = np.empty_like(y)
    for row in range(len(y)):
        same = (of_compound == of_compound[row]) & (fold != fold[row])
        prediction[row] = y[same if same.any() else fold != fold[row]].mean(0)
    return prediction


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_every_seed_has_the_scales_of_the_real_competition(seed):
    """Zeros on the training rows: 1.28; a compound's mean over the other rows, in random folds: 1.0717 / 1.2818."""
    demo = small(seed)
    y = demo.y_train
    assert row_sizes(y).mean() == pytest.approx(1.28, abs=0.15)
    share = row_sizes(y - left_out_compound_mean(demo, y)).mean() / row_sizes(y).mean()
    assert share == pytest.approx(0.836, abs=0.06)
    asked_as_in_the_real_competition(demo)


def test_cell_types_of_one_lineage_are_alike():
    """Untreated log expression, measured: CD8+ differs from CD4+ by sd 0.34, from NK by 0.54, from B by 0.63, from
    myeloid cells by 0.95. Here by 0.3 times the square root of the branches between them.
    """
    config = SIZES["full"]
    biology = _Biology.draw(config, rng=np.random.default_rng(0))
    base = {cell.name: sum(biology.branches[name][0] for name in cell.branches) for cell in config.cell_types}
    apart = {name: (base["T cells CD8+"] - other).std() for name, other in base.items()}
    expected = {"T cells CD4+": 0.424, "NK cells": 0.520, "B cells": 0.6, "Myeloid cells": 0.794}
    assert_allclose([apart[name] for name in expected], list(expected.values()), rtol=0.03)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_oracle_beats_everything_that_needs_no_learning(seed):
    """A ceiling that a mean could reach would be none: additive with the best fixed shrinkage included."""
    demo = small(seed)
    y, pairs = demo.y_train, demo.pairs
    of_type, of_compound = pairs.train.T
    type_mean = np.stack([y[of_type == t].mean(0) for t in range(len(demo.config.cell_types))])
    compound_mean = compound_means(demo, y)
    rest = y - type_mean[of_type]
    effect = np.stack([rest[of_compound == c].mean(0) for c in range(demo.config.compounds)])
    asked_type, asked_compound = pairs.test.T
    floors = [np.zeros_like(demo.y_test), y.mean(0), type_mean[asked_type], compound_mean[asked_compound]]
    floors += [type_mean[asked_type] + share * effect[asked_compound] for share in (0.3, 0.6, 1.0)]
    best = min(mrrmse(y_true=demo.y_test, y_pred=np.broadcast_to(floor, demo.y_test.shape)) for floor in floors)
    assert mrrmse(y_true=demo.y_test, y_pred=demo.oracle_test) < 0.85 * best


def test_structure_decides():
    """Compounds of one scaffold share a mechanism far more often than compounds of different ones."""
    demo = small(0)
    scaffold = np.array([compound.scaffold for compound in demo.compounds])
    same = scaffold[:, None] == scaffold
    np.fill_diagonal(same, False)
    alike = demo.drugs.mechanism[:, None] == demo.drugs.mechanism
    assert alike[same].mean() > 3 * alike[~same & ~np.eye(len(same), dtype=bool)].mean()


def test_compounds_are_distinct_molecules():
    from rdkit import Chem

    compounds = build_compounds(146, rng=np.random.default_rng(0))
    canonical = {Chem.CanonSmiles(compound.smiles) for compound in compounds}
    assert len(canonical) == len({compound.name for compound in compounds}) == 146
    assert not any("," in compound.name for compound in compounds)


def test_a_few_strong_compounds_dominate():
    """Heavy tail: the strongest twentieth holds most of the squared potency."""
    potency = potencies(146)
    squared = np.sort(potency**2)[::-1]
    assert squared[:8].sum() > 0.8 * squared.sum()
    assert (np.diff(potency) > 0).all()


def test_other_content_is_never_overwritten(tiny, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "de_train.parquet").write_text("precious")
    with pytest.raises(InputError, match=r"holds files that are no demo \(de_train.parquet\); nothing was written"):
        write_demo(mine, size="tiny")
    assert (mine / "de_train.parquet").read_text() == "precious"
    with pytest.raises(InputError, match=r"Unknown demo size 'tinny'. Did you mean 'tiny'\?"):
        write_demo(tmp_path / "x", size="tinny")
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(InputError, match="is a file, expected a folder"):
        write_demo(path, size="tiny")
    write_demo(tmp_path / "demo", size="tiny", seed=1)
    (tmp_path / "demo" / "my notes.txt").write_text("precious")
    with pytest.raises(InputError, match=r"no demo \(my notes.txt\)"):
        write_demo(tmp_path / "demo", size="tiny", seed=0)
    (tmp_path / "demo" / "my notes.txt").unlink()
    write_demo(tmp_path / "demo", size="tiny", seed=0)  # an older demo may go
    assert digest_file(tmp_path / "demo" / "truth.json") == digest_file(tiny[0] / "truth.json")


@pytest.mark.slow
def test_full_is_calibrated_to_the_real_competition():
    """Scales, tail, rank and sparsity pattern, on the real number of genes."""
    demo = simulate_competition(SIZES["full"], seed=0)
    y, pairs = demo.y_train, demo.pairs
    assert y.shape[0] == 614
    assert len(pairs.test) == 255
    assert mrrmse(y_true=y, y_pred=np.zeros_like(y)) == pytest.approx(1.28, abs=0.15)
    for number, cell_type in enumerate(demo.config.cell_types):
        rows = y[pairs.train[:, 0] == number]
        mean_profile, spread = REAL[cell_type.name]
        assert np.sqrt((rows.mean(0) ** 2).mean()) == pytest.approx(mean_profile, rel=0.25), cell_type.name
        assert rows.std(0).mean() == pytest.approx(spread, rel=0.25), cell_type.name
    values = np.linalg.eigvalsh(y @ y.T)[::-1]  # squared singular values
    assert values[:500].sum() >= 0.99 * values.sum()
    size = np.array([row_sizes(y[pairs.train[:, 1] == c]).mean() for c in range(demo.config.compounds)])
    assert np.sort(size)[::-1][:4].min() > 6
    assert_allclose(np.sort(size)[::-1][:5], [11.67, 8.72, 7.95, 7.20, 6.82], rtol=0.4)
    assert np.median(size) < 1.2
    asked_as_in_the_real_competition(demo)
