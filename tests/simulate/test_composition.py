"""The composition benchmark: four classes, what training shows, and a score that a slow loop confirms."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pertcast.errors import InputError
from pertcast.simulate.composition import (
    CLASSES,
    as_one,
    baseline_predictions,
    score_baselines,
    score_classes,
    simulate_composition,
)


@pytest.fixture(scope="module")
def benchmark():
    return simulate_composition(8000, 20, seed=1)


def parents(benchmark, kind):
    mechanistic = {gene.name: gene.parents for gene in benchmark.train.model.mechanistic}
    of_kind = [gene for gene, own in zip(benchmark.train.genes, benchmark.classes, strict=True) if own == kind]
    return {gene: mechanistic.get(gene, ()) for gene in of_kind}


def test_genes_are_split_50_20_20_10(benchmark):
    """S002-14: and each class hangs on as many genes as it should."""
    sizes = [int((benchmark.classes == name).sum()) for name in CLASSES]
    assert sizes == [10, 4, 4, 2]
    for name, n in zip(CLASSES, (0, 1, 2, 2), strict=True):
        assert {len(own) for own in parents(benchmark, name).values()} == {n}
    assert len(benchmark.train) == 8000
    assert len(benchmark.test) == 4000


def test_training_never_sets_both_parents_of_an_unseen_composition(benchmark):
    """S002-14: it sets each of them alone, and both parents of the seen ones together."""
    trained = [set(condition.set) for condition in benchmark.train.conditions]
    asked = [set(condition.set) for condition in benchmark.test.conditions]
    for pair in parents(benchmark, "unseen").values():
        assert set(pair) not in trained
        assert set(pair) in asked
        assert all({gene} in trained for gene in pair)
    for pair in parents(benchmark, "seen").values():
        assert set(pair) in trained
        assert set(pair) in asked


def test_cells_are_what_their_condition_says(benchmark):
    for part in (benchmark.train, benchmark.test):
        for i, condition in enumerate(part.conditions):
            rows = part.condition == i
            assert rows.any()
            for gene, value in condition.set.items():
                assert_array_equal(part.counts[rows, part.genes.index(gene)], value)
    assert_allclose(np.mean(benchmark.train.condition == 0), 0.4, atol=1e-9)


def test_cells_follow_the_oracle(benchmark):
    """R22: mean of counts minus expected counts, in standard errors; simulated."""
    oracle = benchmark.test.oracle()
    off = (benchmark.test.counts - oracle.mean).mean(0)
    assert (np.abs(off) < 4.5 * np.sqrt(oracle.variance.mean(0) / len(benchmark.test))).all()


def test_scores_equal_a_slow_loop(benchmark):
    """S002-14: entry by entry, only genes that the condition concerns and leaves free."""
    test, guess, truth = benchmark.test, baseline_predictions(benchmark)["additive"], benchmark.truth
    own = {gene.name: gene.parents for gene in test.model.mechanistic}
    squares = {name: [] for name in CLASSES}
    for i in range(len(test)):
        done = test.conditions[test.condition[i]].set
        for j, gene in enumerate(test.genes):
            if gene not in done and all(parent in done for parent in own.get(gene, ())):
                squares[benchmark.classes[j]].append((guess[i, j] - truth[i, j]) ** 2)
    got = score_baselines(benchmark)["additive"]
    for name in CLASSES:
        assert_allclose(got[name].mse, np.mean(squares[name]), rtol=1e-9)
        assert got[name].entries == len(squares[name])


def test_floors_and_ceiling_are_in_order(benchmark):
    """S002-14: additive shifts solve single genes and fail on compositions, the oracle is exact."""
    scores = score_baselines(benchmark)
    assert all(scores["oracle"][name].mse == 0 for name in CLASSES)
    assert all(scores["no-change"][name].relative == 1 for name in CLASSES)
    assert scores["additive"]["dependent"].relative < 0.05
    for name in ("seen", "unseen"):
        assert 0.05 < scores["additive"][name].relative < 0.9
        assert scores["mean-shift"][name].relative > scores["additive"][name].relative
    assert scores["no-change"]["independent"].mse < 0.1


def test_one_table_keeps_every_condition(benchmark):
    cells, part = as_one(benchmark)
    assert_array_equal(part == "train", np.arange(12_000) < 8000)
    want = benchmark.train.log_likelihood_sum()[0] + benchmark.test.log_likelihood_sum()[0]
    assert_allclose(cells.log_likelihood_sum()[0], want, rtol=1e-12)


def test_same_seed_same_cells_and_no_draw_is_shared():
    one, two, other = (simulate_composition(500, 12, seed=seed) for seed in (1, 1, 2))
    assert_array_equal(one.test.counts, two.test.counts)
    assert (one.test.counts != other.test.counts).any()
    assert (one.train.counts[:250] != one.test.counts).any()


def test_what_cannot_be_is_refused(benchmark):
    with pytest.raises(InputError, match="need at least 10 genes, got 9"):
        simulate_composition(500, 9, seed=1)
    with pytest.raises(InputError, match="need at least .* cells, got 5"):
        simulate_composition(5, 20, seed=1)
    same = {
        "truth": benchmark.truth, "classes": benchmark.classes, "asked": benchmark.asked, "no_change": benchmark.truth,
    }  # fmt: skip
    with pytest.raises(InputError, match="Prediction has shape"):
        score_classes(benchmark.truth[:5], **same)
    broken = benchmark.truth.copy()
    broken[0, 0] = np.nan
    with pytest.raises(InputError, match="1 entries that are not finite"):
        score_classes(broken, **same)
