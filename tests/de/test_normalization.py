"""Factors, counts per million and the filter against R's edgeR, and numbers worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from de.limma_case import case, counts, samples, some
from pertcast.de import normalization as de
from pertcast.errors import InputError


def sizes() -> np.ndarray:
    return counts().sum(axis=1) * np.array(case()["tmm"])


def test_tmm_equals_edger():
    assert_allclose(de.tmm_factors(counts()), case()["tmm"], rtol=1e-8)
    assert_allclose(de.tmm_factors(counts(), reference=2), case()["tmm_reference"], rtol=1e-8)
    trimmed = de.tmm_factors(counts(), log_ratio_trim=0.1, sum_trim=0.2, a_cutoff=-12)
    assert_allclose(trimmed, case()["tmm_trim"], rtol=1e-8)


def test_tmm_equals_edger_where_upper_quartiles_are_zero():
    """The reference is then the sample with the largest sum of roots."""
    assert_allclose(de.tmm_factors(np.array(case()["odd"]).T), case()["odd_tmm"], rtol=1e-8)


def test_log2_cpm_equals_edger():
    assert_allclose(de.log2_cpm(counts(), sizes())[:, some()].T, case()["cpm"], rtol=1e-8)
    assert_allclose(de.log2_cpm(counts(), prior_count=0.5)[:, some()].T, case()["cpm_prior"], rtol=1e-8)


def test_log2_cpm_of_voom_by_hand():
    """Counts 3 and 5 of a total of 8: (3.5, 5.5) of 9 million; an empty sample: 0.5 of 1 million."""
    got = de.log2_cpm_voom(np.array([[3, 5], [0, 0]]))
    assert_allclose(got, np.log2([[3.5e6 / 9, 5.5e6 / 9], [0.5e6, 0.5e6]]))
    assert_allclose(de.log2_cpm_voom(np.array([[3, 5]]), np.array([6.0])), np.log2([[0.5e6, 5.5e6 / 7]]))


def test_filter_equals_edger():
    kept = de.filter_by_expression(counts(), samples()["compound"].to_numpy())
    assert_array_equal(kept, case()["kept_group"])
    design = np.array(case()["design"])
    assert_array_equal(de.filter_by_expression(counts(), design=design, lib_size=sizes()), case()["kept_design"])
    assert_array_equal(de.filter_by_expression(counts()), case()["kept_all"])  # 18 of one group: more than large_n
    assert 0 < np.sum(case()["kept_all"]) < np.sum(case()["kept_group"]) < 300


@given(st.integers(0, 2**32), st.integers(2, 6))
def test_factors_have_mean_one_and_do_not_depend_on_the_order_of_genes(seed, n):
    rng = np.random.default_rng(seed)
    table = rng.negative_binomial(2, 0.02, (n, 80)) + 1
    factors = de.tmm_factors(table)
    assert_allclose(np.exp(np.log(factors).mean()), 1)
    assert_allclose(de.tmm_factors(table[:, rng.permutation(80)]), factors, rtol=1e-9)


def test_equal_samples_of_any_depth_have_factor_one():
    table = np.random.default_rng(0).poisson(50, (1, 40)) * np.array([[1], [3], [10]])
    assert_allclose(de.tmm_factors(table), 1)
    assert_array_equal(de.tmm_factors(table[:1]), [1.0])


def test_samples_that_share_no_gene_have_factor_one():
    assert_array_equal(de.tmm_factors(np.array([[5, 0, 3, 0], [0, 7, 0, 2]])), [1.0, 1.0])


def test_faults():
    with pytest.raises(InputError, match=r"samples without any count: 1 \(numbered from 0\)"):
        de.tmm_factors(np.array([[1, 2], [0, 0]]))
    with pytest.raises(InputError, match="finite and not negative"):
        de.log2_cpm(np.array([[1, -2]]))
    with pytest.raises(InputError, match="2 finite numbers above 0"):
        de.log2_cpm(np.ones((2, 2)), np.array([1.0, 0.0]))
    with pytest.raises(InputError, match="from 0 to 1, got 2"):
        de.tmm_factors(np.ones((2, 2)), reference=2)
    with pytest.raises(InputError, match=r"in \[0, 0.5\)"):
        de.tmm_factors(np.ones((2, 2)), sum_trim=0.5)
    with pytest.raises(InputError, match="prior count must be above 0"):
        de.log2_cpm(np.ones((2, 2)), prior_count=0)
    with pytest.raises(InputError, match="each of 2 samples, got 3"):
        de.filter_by_expression(np.ones((2, 2)), np.array(["a", "b", "b"]))
