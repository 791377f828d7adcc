"""Truncated SVD of the responses against scikit-learn's PCA and TruncatedSVD."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cases import make_question
from pertcast.errors import InputError
from pertcast.features.target_svd import TargetSVD
from pertcast.validation.folds import STRATEGIES, make_folds


def responses(n, g, rank=6, noise=0.1):
    rng = np.random.default_rng(0)
    size = np.geomspace(30, 3, rank)  # well separated, so that single components can be compared
    y = (rng.normal(size=(n, rank)) * size) @ rng.normal(size=(rank, g)) / np.sqrt(g) + rng.normal(1, noise, (n, g))
    return y.astype(np.float32)


SHAPES = pytest.mark.parametrize("shape", [(40, 1500), (90, 37)])  # fewer rows than genes, and more


@SHAPES
def test_components_and_scores_equal_pca(shape):
    y = responses(*shape)
    svd, oracle = TargetSVD.fit(y, 5), PCA(5, svd_solver="full").fit(y.astype(float))
    signs = np.sign((svd.components * oracle.components_).sum(axis=1))
    assert_allclose(svd.components, oracle.components_ * signs[:, None], atol=1e-5)
    assert_allclose(svd.singular_values, oracle.singular_values_, rtol=1e-6)
    assert_allclose(svd.encode(y), oracle.transform(y) * signs, atol=1e-3)


@SHAPES
def test_uncentred_equals_truncated_svd(shape):
    y = responses(*shape)
    svd, oracle = TargetSVD.fit(y, 4, center=False), TruncatedSVD(4, algorithm="arpack").fit(y.astype(float))
    assert_allclose(svd.decode(svd.encode(y)), oracle.inverse_transform(oracle.transform(y)), atol=1e-3)
    assert_array_equal(svd.mean, 0)


@SHAPES
@pytest.mark.parametrize("scale", [False, True])
def test_full_rank_comes_back(shape, scale):
    """S004-11: reconstruction error below 1e-4, for responses as large as signed log10 p get."""
    y = responses(*shape) * 5
    svd = TargetSVD.fit(y, 10_000, scale=scale)
    assert svd.k == min(shape[0] - 1, shape[1])  # k is capped at the rank
    assert np.abs(svd.decode(svd.encode(y)) - y).max() < 1e-4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_scaler_and_svd_with_every_split(strategy):
    """S004-11: fitted on the training rows of any fold it is scikit-learn's StandardScaler and TruncatedSVD there and
    on held-out rows; of full rank it gives the training rows back.
    """
    question, _ = make_question(types=5, compounds=10, genes=60)
    for fold in make_folds(strategy, question):
        train, valid = question.y[fold.train], question.y[fold.valid]
        full = TargetSVD.fit(train, 10_000, scale=True)
        assert np.abs(full.decode(full.encode(train)) - train).max() < 1e-4
        svd = TargetSVD.fit(train, 4, scale=True)
        oracle = make_pipeline(StandardScaler(), TruncatedSVD(4, algorithm="arpack")).fit(train.astype(float))
        expected = oracle.inverse_transform(oracle.transform(valid.astype(float)))
        assert_allclose(svd.decode(svd.encode(valid)), expected, atol=1e-3)
        assert np.abs(expected - valid).max() > 0.1  # four directions do not hold a held-out row


def test_row_rmse_is_exact_in_score_space():
    y = responses(40, 1500)
    svd = TargetSVD.fit(y, 5)
    predicted = svd.encode(y) + np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    in_scores = (((svd.encode(y) - predicted) ** 2).sum(axis=1) + svd.residual_norm2(y)) / y.shape[1]
    in_genes = ((y - svd.decode(predicted).astype(float)) ** 2).mean(axis=1)
    assert_allclose(in_scores, in_genes, rtol=1e-5)
    assert_allclose(svd.residual_norm2(y), ((y - svd.decode(svd.encode(y))) ** 2).sum(axis=1), rtol=1e-4)


def test_scaling_gives_every_gene_the_same_weight():
    """PCA of standardised genes; a gene that never varies divides by 1."""
    y = responses(40, 300)
    y[:, 7] = 2.0
    svd = TargetSVD.fit(y, 3, scale=True)
    spread = np.where(y.std(axis=0) > 0, y.std(axis=0), 1)
    oracle = PCA(3, svd_solver="full").fit((y - y.mean(axis=0)) / spread)
    assert_allclose(svd.singular_values, oracle.singular_values_, rtol=1e-4)
    assert_allclose(svd.decode(svd.encode(y))[:, 7], 2.0, rtol=1e-6)


def test_largest_loading_of_each_component_is_positive():
    svd = TargetSVD.fit(responses(40, 300), 6)
    largest = np.abs(svd.components).argmax(axis=1)
    assert (svd.components[np.arange(6), largest] > 0).all()


def test_genes_are_matched_by_name():
    """S004-02: shuffling the genes shuffles the decoded genes and leaves the scores as they are."""
    y = responses(40, 300)
    order = np.random.default_rng(2).permutation(300)
    plain, shuffled = TargetSVD.fit(y, 6), TargetSVD.fit(y[:, order], 6)
    assert_allclose(shuffled.encode(y[:, order]), plain.encode(y), atol=1e-3)
    assert_allclose(shuffled.decode(shuffled.encode(y[:, order])), plain.decode(plain.encode(y))[:, order], atol=1e-4)


def test_scores_of_a_row_do_not_depend_on_its_companions():
    y = responses(40, 1500)
    svd = TargetSVD.fit(y[:30], 6)
    assert_allclose(svd.encode(y[33:34])[0], svd.encode(y[30:])[3], atol=1e-5)


def test_arrays_restore_it():
    y = responses(40, 300)
    for scale in (False, True):
        svd = TargetSVD.fit(y, 4, scale=scale)
        again = TargetSVD.from_arrays(svd.arrays())
        assert_array_equal(again.decode(again.encode(y)), svd.decode(svd.encode(y)))


def test_memory_stays_near_that_of_the_responses():
    """A double-precision copy would take twice the responses' own memory; a block of genes does not."""
    y = responses(100, 18_000)
    tracemalloc.start()
    svd = TargetSVD.fit(y, 20)
    svd.encode(y)
    svd.residual_norm2(y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.9 * y.nbytes


def test_nothing_to_decompose_is_said():
    with pytest.raises(InputError, match=r"responses \(5 rows x 4 genes\) do not vary"):
        TargetSVD.fit(np.full((5, 4), 3.0, np.float32), 2)
    with pytest.raises(InputError, match="number of target components is 0"):
        TargetSVD.fit(responses(10, 20), 0)
