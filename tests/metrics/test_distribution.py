"""Distances between samples of cells against scipy, all pairs by hand and numbers worked on paper (S002-11)."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse, stats
from scipy.spatial.distance import cdist

from pertcast.errors import InputError
from pertcast.metrics import distribution
from pertcast.metrics.distribution import METRICS, energy_distance, evaluate, wasserstein


def counts(seed: int, cells: int, genes: int = 7, mean: float = 3.0):
    rng = np.random.default_rng(seed)
    return rng.negative_binomial(1, 1 / (1 + mean), (cells, genes)).astype(np.float32)


@st.composite
def samples(draw):
    """Two samples of unequal size, many ties and zeros."""
    n, m, seed = draw(st.integers(1, 30)), draw(st.integers(1, 30)), draw(st.integers(0, 999))
    return counts(seed, n), counts(seed + 1000, m, mean=draw(st.sampled_from([0.3, 3.0, 30.0])))


@settings(max_examples=60, deadline=None)
@given(samples())
def test_wasserstein_is_scipys_gene_by_gene(pair):
    y, p = pair
    oracle = [stats.wasserstein_distance(y[:, j], p[:, j]) for j in range(y.shape[1])]
    assert_allclose(distribution.per_gene_wasserstein(y_true=y, y_pred=p), oracle, rtol=1e-9, atol=1e-12)
    assert_allclose(wasserstein(y_true=y, y_pred=p), np.mean(oracle), rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(samples())
def test_energy_distance_is_the_sum_over_all_pairs(pair):
    y, p = pair
    by_hand = 2 * cdist(y, p).mean() - cdist(y, y).mean() - cdist(p, p).mean()
    assert_allclose(energy_distance(y_true=y, y_pred=p), by_hand, rtol=1e-7, atol=1e-6)


def test_energy_distance_of_one_gene_is_scipys():
    y, p = counts(0, 90, genes=1), counts(1, 40, genes=1, mean=5.0)
    oracle = stats.energy_distance(y[:, 0], p[:, 0])  # scipy gives the root
    assert_allclose(energy_distance(y_true=y, y_pred=p, root=True), oracle, rtol=1e-6)
    assert_allclose(energy_distance(y_true=y, y_pred=p), oracle**2, rtol=1e-6)


def test_unbiased_energy_distance_pairs_no_cell_with_itself():
    """By all pairs; and two samples of one distribution lie on both sides of 0, as the biased form never does."""
    y, p = counts(0, 30), counts(1, 20, mean=4.0)
    within = [cdist(side, side).sum() / (len(side) * (len(side) - 1)) for side in (y, p)]
    by_hand = 2 * cdist(y, p).mean() - sum(within)
    assert_allclose(distribution.unbiased_energy_distance(y_true=y, y_pred=p), by_hand, rtol=1e-9)
    rng = np.random.default_rng(0)
    same = [
        distribution.unbiased_energy_distance(y_true=rng.normal(size=(15, 3)), y_pred=rng.normal(size=(9, 3)))
        for _ in range(300)
    ]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(300)
    assert min(same) < 0 < max(same)
    with pytest.raises(InputError, match="at least 2 cells a side, got 30 and 1"):
        distribution.unbiased_energy_distance(y_true=y, y_pred=p[:1])


def test_totals_over_genes_are_numpys():
    """Genes with too many zeros make up for those with too few in the total alone."""
    y, p = counts(0, 50), counts(1, 80, mean=1.0)
    total = p.var(0, ddof=1).sum() / y.var(0, ddof=1).sum()
    assert_allclose(distribution.total_variance_ratio(y_true=y, y_pred=p), total, rtol=1e-6)
    assert_allclose(
        distribution.total_zero_share_error(y_true=y, y_pred=p), abs((p == 0).mean() - (y == 0).mean()), rtol=1e-9
    )
    crossed = {"y_true": np.array([[0.0, 1.0]]), "y_pred": np.array([[1.0, 0.0]])}
    assert distribution.total_zero_share_error(**crossed) == 0
    assert distribution.zero_share_error(**crossed) == 1
    assert np.isnan(distribution.total_variance_ratio(y_true=np.ones((4, 2)), y_pred=np.ones((4, 2))))


def test_moments_and_zeros_are_numpys():
    y, p = counts(0, 50), counts(1, 80, mean=1.0)
    gap = p.mean(0) - y.mean(0)
    assert_allclose(distribution.mae_of_means(y_true=y, y_pred=p), np.abs(gap).mean(), rtol=1e-6)
    assert_allclose(distribution.mse_of_means(y_true=y, y_pred=p), (gap**2).mean(), rtol=1e-6)
    ratio = np.median(p.var(0, ddof=1) / y.var(0, ddof=1))
    assert_allclose(distribution.variance_ratio(y_true=y, y_pred=p), ratio, rtol=1e-6)
    zeros = np.abs((p == 0).mean(0) - (y == 0).mean(0)).mean()
    assert_allclose(distribution.zero_share_error(y_true=y, y_pred=p), zeros, rtol=1e-9)


def test_scores_worked_by_hand():
    """True 0 0 3 and predicted 1 1 per cell: quantiles differ by 1, 1 over two thirds and 2 over one third."""
    scores = evaluate(y_true=np.array([[0.0], [0.0], [3.0]]), y_pred=np.array([[1.0], [1.0]]))
    assert_allclose(scores.wasserstein, 2 / 3 * 1 + 1 / 3 * 2)
    assert_allclose(scores.mae_of_means, 0)
    assert_allclose(scores.energy_distance, 2 * (4 / 3) - 4 * 3 / 9)  # 2 E|x-y| = 2 (1+1+2)/3; E|x-x'| = 4 * 3 / 9
    assert_allclose(scores.zero_share_error, 2 / 3)
    assert scores.variance_ratio == 0


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
def test_sparse_and_dense_score_the_same(form):
    y, p = counts(0, 30), counts(1, 20, mean=5.0)
    assert evaluate(y_true=form(y), y_pred=form(p)) == evaluate(y_true=y, y_pred=p)


@settings(max_examples=30, deadline=None)
@given(samples())
def test_identical_samples_are_perfect(pair):
    scores = evaluate(y_true=pair[1], y_pred=pair[1])
    zero = [scores.mae_of_means, scores.mse_of_means, scores.wasserstein, scores.zero_share_error]
    assert zero == [0, 0, 0, 0]
    assert scores.energy_distance < 1e-6
    assert scores.variance_ratio == 1 or scores.constant_genes == scores.genes


@settings(max_examples=30, deadline=None)
@given(samples(), st.integers(0, 9))
def test_order_of_cells_changes_nothing(pair, seed):
    y, p = pair
    rng = np.random.default_rng(seed)
    shuffled = evaluate(y_true=y[rng.permutation(len(y))], y_pred=p[rng.permutation(len(p))])
    for name, value in evaluate(y_true=y, y_pred=p).as_dict().items():
        other = shuffled.as_dict()[name]
        assert (value is None and other is None) or abs(value - other) <= 1e-6 * max(1, abs(value)), name


@settings(max_examples=30, deadline=None)
@given(samples(), st.floats(-50, 50))
def test_a_shift_costs_its_size(pair, shift):
    y = pair[0].astype(float)
    assert_allclose(wasserstein(y_true=y, y_pred=y + shift), abs(shift), rtol=1e-9, atol=1e-9)


def test_drawn_cells_do_not_depend_on_their_order_and_repeat_by_seed():
    y, p = counts(0, 300), counts(1, 200, mean=4.0)
    rng = np.random.default_rng(5)
    one = energy_distance(y_true=y, y_pred=p, most=100, seed=1)
    assert_allclose(energy_distance(y_true=rng.permutation(y), y_pred=rng.permutation(p), most=100, seed=1), one)
    assert energy_distance(y_true=y, y_pred=sparse.csr_array(p), most=100, seed=1) == one
    assert energy_distance(y_true=y, y_pred=p, most=100, seed=2) != one
    assert energy_distance(y_true=y, y_pred=y, most=100) < 1e-6
    full = energy_distance(y_true=y, y_pred=p)
    assert abs(one - full) < 0.5 * full + 0.2  # a draw of the same cells, not of something else


def test_constant_genes_are_left_out_of_the_variance_ratio_and_counted():
    y, p = counts(0, 40), counts(1, 40)
    y[:, 2] = 0.1  # whose variance is not 0 in floating point if taken from sums of squares
    scores = evaluate(y_true=y, y_pred=p)
    assert scores.constant_genes == 1
    others = [j for j in range(7) if j != 2]
    assert_allclose(scores.variance_ratio, np.median(p[:, others].var(0) / y[:, others].var(0)), rtol=1e-6)
    nothing = evaluate(y_true=y[:, [2]], y_pred=p[:, [2]])
    assert np.isnan(nothing.variance_ratio)
    assert json.loads(json.dumps(nothing.as_dict(), allow_nan=False))["variance_ratio"] is None


def test_blocks_of_genes_change_nothing(monkeypatch):
    y, p = counts(0, 30, genes=23), counts(1, 20, genes=23)
    whole = evaluate(y_true=y, y_pred=p)
    monkeypatch.setattr("pertcast.metrics.samples.BLOCK", 150)  # three genes at once
    for name, value in evaluate(y_true=y, y_pred=p).as_dict().items():
        assert_allclose(value, whole.as_dict()[name], rtol=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_card_and_takes_names_only(name):
    card = METRICS[name].__doc__
    assert "Range" in card
    assert "best" in card
    assert "Source:" in card
    with pytest.raises(TypeError, match="positional"):
        METRICS[name](counts(0, 3), counts(1, 3))


def test_all_faults_are_named_at_once():
    bad = counts(0, 4)
    bad[1, 1] = np.nan
    with pytest.raises(InputError, match=r"(?s)2 problems.*y_true holds 1 values.*y_pred must be numbers.*\(0, 7\)"):
        evaluate(y_true=bad, y_pred=counts(0, 4)[:0])
    with pytest.raises(InputError, match="y_true has 7, y_pred 6"):
        evaluate(y_true=counts(0, 4), y_pred=counts(0, 4)[:, :6])
