"""Metrics of patterns over genes against scikit-learn, scipy, slow loops and numbers worked by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array
from scipy.spatial.distance import cosine
from scipy.stats import pearsonr, ttest_ind
from sklearn.metrics import r2_score

from pertcast.errors import InputError
from pertcast.metrics import structure
from pertcast.metrics.structure import (
    delta_pearson,
    mmd,
    r2_of_means,
    skill_of_means,
    squared_pearson_of_means,
    top_genes_overlap,
    welch_t,
)


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    level = rng.uniform(0, 3, 15)
    change = rng.normal(0, 0.5, 15)
    control = rng.normal(level, 1, (40, 15))
    return rng.normal(level + change, 1, (30, 15)), rng.normal(level + 0.8 * change, 1, (25, 15)), control


def test_against_outside_implementations(cells):
    """S003-09."""
    true, predicted, control = cells
    t, p, c = (side.mean(axis=0) for side in cells)
    assert_allclose(r2_of_means(y_true=true, y_pred=predicted), r2_score(t, p), rtol=1e-12)
    assert_allclose(squared_pearson_of_means(y_true=true, y_pred=predicted), pearsonr(t, p)[0] ** 2, rtol=1e-12)
    assert_allclose(
        delta_pearson(y_true=true, y_pred=predicted, y_control=control), pearsonr(t - c, p - c)[0], rtol=1e-12
    )
    assert_allclose(welch_t(true, control), np.abs(ttest_ind(true, control, equal_var=False).statistic), rtol=1e-10)
    want = [set(np.argsort(-np.abs(ttest_ind(s, control, equal_var=False)[0]))[:5]) for s in (true, predicted)]
    assert top_genes_overlap(y_true=true, y_pred=predicted, y_control=control, k=5) == len(want[0] & want[1]) / 5


@pytest.mark.parametrize(("scale", "offset"), [(2.0, 0.0), (1.0, 10.0)])
def test_scaled_and_shifted_predictions_lose_r2_and_keep_squared_pearson(cells, scale, offset):
    """S003-09, R31."""
    true = cells[0]
    predicted = scale * true + offset
    assert_allclose(squared_pearson_of_means(y_true=true, y_pred=predicted), 1.0)
    assert r2_of_means(y_true=true, y_pred=predicted) < 0
    assert_allclose(r2_of_means(y_true=true, y_pred=true), 1.0)


def test_skill_is_0_for_no_change_and_1_for_the_truth(cells):
    true, _, control = cells
    assert_allclose(skill_of_means(y_true=true, y_pred=control, y_control=control), 0.0, atol=1e-12)
    assert_allclose(skill_of_means(y_true=true, y_pred=true, y_control=control), 1.0)
    half = (true.mean(axis=0) + control.mean(axis=0)) / 2
    assert_allclose(skill_of_means(y_true=true, y_pred=half[None], y_control=control), 0.75)  # a quarter is left
    assert np.isnan(delta_pearson(y_true=true, y_pred=control, y_control=control))


def test_direction_of_changes(cells):
    """S003-09: the cosine by scipy; the share of right signs by a loop; no change moves nowhere."""
    true, predicted, control = cells
    t, p, c = (side.mean(axis=0) for side in cells)
    sides = {"y_true": true, "y_pred": predicted, "y_control": control}
    assert_allclose(structure.delta_cosine(**sides), 1 - cosine(t - c, p - c), rtol=1e-12)
    right = sum((a > 0) == (b > 0) for a, b in zip(t - c, p - c, strict=True)) / 15
    assert structure.direction_accuracy(**sides) == pytest.approx(right)
    still = {**sides, "y_pred": control}
    assert structure.delta_cosine(**still) == 0
    assert structure.direction_accuracy(**still) == 0
    shifted = {**sides, "y_true": control + 1, "y_pred": control + 3}
    assert structure.delta_cosine(**shifted) == pytest.approx(1)  # of a change that all genes share
    nothing = {**sides, "y_true": control}
    assert np.isnan(structure.delta_cosine(**nothing))
    assert np.isnan(structure.direction_accuracy(**nothing))


def test_gene_correlations_are_numpys(cells):
    """S000-11: constant genes are left out; independent noise loses what planted modules give."""
    true, predicted, _ = cells
    upper = np.triu_indices(15, 1)
    want = pearsonr(*(np.corrcoef(side.T)[upper] for side in (true, predicted)))[0]
    assert_allclose(structure.gene_correlation(y_true=true, y_pred=predicted), want, rtol=1e-9)
    flat = predicted.copy()
    flat[:, 3] = 0.1
    others = [j for j in range(15) if j != 3]
    left = structure.gene_correlation(y_true=true[:, others], y_pred=predicted[:, others])
    assert_allclose(structure.gene_correlation(y_true=true, y_pred=flat), left, rtol=1e-9)
    rng = np.random.default_rng(2)
    modules = [np.repeat(rng.normal(size=(400, 3)), 5, axis=1) + 0.5 * rng.normal(size=(400, 15)) for _ in range(2)]
    assert structure.gene_correlation(y_true=modules[0], y_pred=modules[1]) > 0.95
    assert abs(structure.gene_correlation(y_true=modules[0], y_pred=rng.normal(size=(400, 15)))) < 0.3
    assert np.isnan(structure.gene_correlation(y_true=true[:, :2], y_pred=predicted[:, :2]))  # one pair


def test_mmd_against_a_slow_loop(cells):
    true, predicted = cells[0][:7], cells[1][:5]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(true) for b in true[i + 1 :]]
    width = np.median(apart)
    k = lambda a, b: np.exp(-(np.linalg.norm(a - b) ** 2) / (2 * width**2))  # noqa: E731
    within = [np.mean([k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (true, predicted)]
    want = sum(within) - 2 * np.mean([k(a, b) for a in true for b in predicted])
    assert_allclose(mmd(y_true=true, y_pred=predicted), want, rtol=1e-10)


def test_mmd_sees_spread_and_is_small_for_one_distribution():
    rng = np.random.default_rng(1)
    true, same, wide = rng.normal(size=(300, 4)), rng.normal(size=(300, 4)), 3 * rng.normal(size=(300, 4))
    assert abs(mmd(y_true=true, y_pred=same)) < 0.01
    assert mmd(y_true=true, y_pred=wide) > 0.1


def test_sparse_cells_give_the_same(cells):
    true, predicted, control = (np.where(side > 1, side, 0) for side in cells)
    sparse = {"y_true": csr_array(true), "y_pred": csr_array(predicted)}
    dense = {"y_true": true, "y_pred": predicted}
    for metric in (r2_of_means, squared_pearson_of_means, mmd):
        assert_allclose(metric(**sparse), metric(**dense), rtol=1e-12)
    for metric in (delta_pearson, skill_of_means, top_genes_overlap):
        more = {"k": 3} if metric is top_genes_overlap else {}
        got = metric(**sparse, y_control=csr_array(control), **more)
        assert_allclose(got, metric(**dense, y_control=control, **more), rtol=1e-12)


def test_what_cannot_be_scored_is_refused(cells):
    true, predicted, control = cells
    with pytest.raises(InputError, match=r"k from 1 to the number of genes, 15; got 20"):
        top_genes_overlap(y_true=true, y_pred=predicted, y_control=control)
    with pytest.raises(InputError, match=r"at least 2 cells a side, got 1 and 25"):
        mmd(y_true=true[:1], y_pred=predicted)
    with pytest.raises(InputError, match=r"width must be above 0, got 0.0"):
        mmd(y_true=np.ones((5, 15)), y_pred=predicted)
    with pytest.raises(InputError, match=r"at least 2 cells a side, got 1 and 40"):
        top_genes_overlap(y_true=true[:1], y_pred=predicted, y_control=control, k=3)
