"""Weights of log counts against R's limma."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from de.limma_case import case, counts, some
from pertcast.de.voom import voom
from pertcast.errors import InputError


def test_equals_limma():
    design, want = np.array(case()["design"]), case()["voom"]
    sizes = counts().sum(axis=1) * np.array(case()["tmm"])
    got = voom(counts(), design, lib_size=sizes)
    assert_allclose(got.log2_cpm[:, some()].T, want["e"], rtol=1e-6)
    assert_allclose(got.weights[:, some()].T, want["w"], rtol=1e-6)
    assert_allclose(got.weights.sum(axis=1), want["w_sum"], rtol=1e-6)
    assert_allclose(voom(counts(), design).weights[:, some()].T, want["plain_w"], rtol=1e-6)


def test_weights_follow_known_variances():
    """Simulated Poisson counts: the variance of log2 counts is 1 / (mean log(2)^2), and weights are its inverse."""
    rng = np.random.default_rng(0)
    mean = np.exp(rng.uniform(np.log(20), np.log(5000), 2000))
    result = voom(rng.poisson(mean, (20, 2000)), np.ones((20, 1)))
    ratio = result.weights.mean(axis=0) / (mean * np.log(2) ** 2)
    assert_allclose(np.median(ratio), 1, rtol=0.1)
    assert np.corrcoef(np.log(result.weights.mean(axis=0)), np.log(mean))[0, 1] > 0.98


def test_genes_without_counts_do_not_bend_the_trend():
    rng = np.random.default_rng(1)
    table, design = rng.poisson(30, (6, 50)) + 1, np.repeat(np.eye(2), 3, axis=0)
    empty = np.concatenate([table, np.zeros((6, 30), int)], axis=1)
    assert_allclose(voom(empty, design).weights[:, :50], voom(table, design).weights)


def test_faults():
    with pytest.raises(InputError, match="needs 2 genes with counts, got 1"):
        voom(np.array([[3, 0], [4, 0], [7, 0]]), np.ones((3, 1)))
    with pytest.raises(InputError, match="one replicate only"):
        voom(np.array([[3, 1], [4, 2]]), np.eye(2), names=["a", "b"])
    with pytest.raises(InputError, match="do not vary"):
        voom(np.full((4, 5), 7), np.ones((4, 1)))
