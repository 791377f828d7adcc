"""The interval of a mean over groups, against scipy where groups are rows, a slow loop where they are not, by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from pertcast.metrics.bootstrap import DRAWS, centred_interval, interval


def test_groups_of_one_row_are_the_ordinary_bootstrap():
    """Against scipy's percentile method: two samplings of the same distribution, within their own noise."""
    values = np.random.default_rng(1).gamma(2.0, size=60)
    own = interval(values, np.arange(60).astype(object))
    other = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    noise = 0.15 * values.std() / np.sqrt(60)
    assert_allclose(own, other, atol=noise)
    assert own[0] < values.mean() < own[1]


def test_groups_are_drawn_whole():
    """Against a loop that puts the drawn groups' rows together, with the same draws."""
    rng = np.random.default_rng(2)
    groups = rng.choice(["a", "b", "c", "d", "e"], size=23).astype(object)
    values = rng.normal(size=23) + (groups == "a") * 2
    names = np.unique(groups.astype(str))
    drawn = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    means = [np.concatenate([values[groups == names[k]] for k in draw]).mean() for draw in drawn]
    assert_allclose(interval(values, groups), np.quantile(means, [0.025, 0.975]), rtol=1e-9)


def test_rows_that_err_together_widen_the_interval():
    """Ten copies of each row tell no more than the row: by compound the interval stays, by row it shrinks."""
    values = np.random.default_rng(3).normal(size=40)
    alone = np.diff(interval(values, np.arange(40).astype(object)))
    copies, compound = np.repeat(values, 10), np.repeat(np.arange(40), 10).astype(object)
    assert_allclose(np.diff(interval(copies, compound)), alone, rtol=1e-9)
    assert_allclose(np.diff(interval(copies, np.arange(400).astype(object))), alone / np.sqrt(10), rtol=0.15)


def test_one_group_and_equal_values_have_no_width():
    """By hand: there is one group to draw, or one value to average."""
    assert interval(np.array([1.0, 2.0, 6.0]), np.array(["x"] * 3, dtype=object)) == (3.0, 3.0)
    assert interval(np.full(5, 0.5), np.arange(5).astype(object)) == (0.5, 0.5)


def test_order_of_rows_and_names_of_groups_do_not_count():
    rng = np.random.default_rng(4)
    values, groups = rng.normal(size=30), rng.integers(6, size=30)
    order = rng.permutation(30)
    first = interval(values, groups.astype(object))
    assert_allclose(interval(values[order], groups[order].astype(object)), first, rtol=1e-9)
    assert_allclose(interval(values, np.array([f"drug {g}" for g in groups], dtype=object)), first, rtol=1e-9)


def test_same_seed_same_interval_other_seed_another():
    """R38."""
    values, groups = np.random.default_rng(5).normal(size=30), np.arange(30).astype(object)
    assert interval(values, groups) == interval(values, groups)
    assert interval(values, groups, seed=1) != interval(values, groups)


@pytest.mark.parametrize("size", [1, 4])
def test_it_covers_the_truth_about_as_often_as_it_says(size):
    """Of 200 samples of 60 groups, 95 % should hold the true mean; 3 standard errors of that share are allowed."""
    rng = np.random.default_rng(6)
    hit = 0
    for _ in range(200):
        compound = np.repeat(np.arange(60), size)
        values = rng.normal(size=60)[compound] + 0.5 * rng.normal(size=len(compound))
        low, high = interval(values, compound.astype(object))
        hit += low <= 0 <= high
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200) - 0.01 <= hit / 200 <= 1


def test_centred_interval_by_hand():
    """Draws that all lie above the score: moved so that their mean is the score, then the 2.5 and 97.5 % quantiles."""
    draws = np.linspace(11, 13, 201)  # mean 12, quantiles 11.05 and 12.95
    assert_allclose(centred_interval(10.0, draws), (9.05, 10.95))
