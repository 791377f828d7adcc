"""Fitting weights: they minimise what they should, and the way to fit them is chosen on rows they did not see."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize

from pertcast.weights import (
    averaged_weights,
    choose_ways,
    equal_weights,
    fit_weights,
    grams_of,
    greedy_weights,
    splits,
    standard_error,
    ways,
)


def noisy(y, seed, noises=(0.5, 1.0, 2.0)):
    rng = np.random.default_rng(seed)
    return [y + s * rng.normal(size=y.shape) for s in noises]


def mrrmse(y, p):
    return np.sqrt(((y - p) ** 2).mean(1)).mean()


def blend(members, weights):
    return sum(w * m for w, m in zip(weights, members, strict=True))


@pytest.fixture
def y():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 25)) * rng.exponential(2, size=(60, 1))


def test_row_errors_equal_the_definition(y):
    """Oracle: genes written out; the same for one member made of all."""
    members, weights = noisy(y, 2), np.array([0.2, 0.7, 0.4])
    grams = grams_of(members, y)
    expected = np.sqrt(((y - blend(members, weights)) ** 2).mean(1))
    assert_allclose(grams.row_rmse(weights), expected, rtol=1e-9)
    assert_allclose(grams.blended(weights).row_rmse(np.ones(1)), expected, rtol=1e-9)


def test_profiles_are_blended_as_predictions_are(y):
    profiles = np.random.default_rng(3).normal(size=y.shape)
    members, weights = noisy(y, 4), np.array([0.2, 0.7, 0.4])
    blended = grams_of(members, y, profiles).blended(weights)
    assert_allclose(blended.profile[:, 0], (blend(members, weights) * profiles).sum(1), rtol=1e-9)


def test_weights_minimise_mrrmse(y):
    """Oracle: scipy's general optimiser on the plain definition."""
    members = noisy(y, 1)
    weights = fit_weights(grams_of(members, y))

    def loss(w):
        return mrrmse(y, blend(members, w))

    best = minimize(loss, np.full(3, 1 / 3), bounds=[(0, None)] * 3, method="L-BFGS-B", options={"ftol": 1e-14})
    assert loss(weights) <= best.fun + 1e-6
    assert_allclose(weights, best.x, atol=2e-3)


def test_a_perfect_member_gets_all_and_an_opposite_one_nothing(y):
    assert_allclose(fit_weights(grams_of([y, -y], y)), [1, 0], atol=1e-5)
    assert_allclose(fit_weights(grams_of([y / 2], y)), [2], atol=1e-5)  # the scale is fitted without a prior


def test_shrinkage_draws_to_the_given_weights(y):
    """By hand: one member of half size, all rows alike. (a + s a) w = a * 2 + s a * 1, so w = (2 + s) / (1 + s)."""
    one = np.tile(y[:1], (5, 1))
    grams = grams_of([one / 2], one + 1e-3)  # no row exact, so that no weight of a row is infinite
    for shrinkage in (0.5, 1.0, 3.0):
        expected = (2 + shrinkage) / (1 + shrinkage)
        assert_allclose(fit_weights(grams, shrinkage=shrinkage, towards=np.ones(1)), [expected], atol=0.01)
    grams = grams_of(noisy(y, 1), y)
    towards = np.array([0.0, 0.5, 0.5])
    assert_allclose(fit_weights(grams, shrinkage=1e6, towards=towards), towards, atol=1e-4)


def test_equal_weights_are_those_of_the_best(y):
    grams = grams_of(noisy(y, 5, (2.0, 0.5, 1.0)), y)
    assert_allclose(equal_weights(grams, 1), [0, 1, 0])
    assert_allclose(equal_weights(grams, 2), [0, 0.5, 0.5])
    assert_allclose(equal_weights(grams, 9), [1 / 3] * 3)


def test_greedy_selection_follows_the_slow_loop(y):
    """Caruana 2004, written out: try every member at every step on the genes themselves."""
    members = noisy(y, 6, (0.8, 1.0, 1.2))
    chosen, best, best_error = [], None, np.inf
    for _ in range(40):
        tried = [mrrmse(y, np.mean([members[i] for i in [*chosen, j]], axis=0)) for j in range(3)]
        chosen.append(int(np.argmin(tried)))
        if min(tried) < best_error - 1e-9:
            best, best_error = np.bincount(chosen, minlength=3) / len(chosen), min(tried)
    assert_allclose(greedy_weights(grams_of(members, y)), best)
    assert best.min() > 0  # three members of like error: all are wanted


def test_greedy_selection_reaches_the_best_small_average(y):
    """No average of up to four picks, tried one by one, is better."""
    members = noisy(y, 7, (0.8, 1.0, 1.2))
    picks = (c for k in range(1, 5) for c in combinations_with_replacement(range(3), k))
    exhaustive = min(mrrmse(y, np.mean([members[i] for i in pick], axis=0)) for pick in picks)
    assert mrrmse(y, blend(members, greedy_weights(grams_of(members, y)))) <= exhaustive + 1e-9


def test_splits_cover_every_row_once_and_never_its_own_fold():
    fold = np.array([0, 2, 2, 0, 5])
    parts = list(splits(fold))
    assert_array_equal(np.sort(np.concatenate([rows for _, rows in parts])), np.arange(5))
    for inside, rows in parts:
        assert set(fold[inside]).isdisjoint(fold[rows])
    ((inside, rows),) = splits(np.zeros(3, int))
    assert_array_equal(inside, rows)


def test_members_of_like_worth_count_alike(y):
    """Nothing speaks for unequal weights."""
    grams, fold = grams_of(noisy(y, 8, (0.05, 0.05, 0.05)), y), np.arange(60) % 4
    names, errors = choose_ways(grams, fold)
    assert "equal weights of all" in names
    assert set(errors) == set(ways(3))
    assert_allclose(averaged_weights(grams, names), 1 / 3, atol=0.05)


def test_a_member_that_stands_out_is_not_diluted(y):
    members = [y / 2 + 0.01, *noisy(y, 9, (3.0, 3.0))]
    names, errors = choose_ways(grams_of(members, y), np.arange(60) % 4)
    assert names == ("non-negative",)  # the only way that can double it
    assert errors["non-negative"] < 0.1 < errors["equal weights of all"]


def test_ways_that_do_about_equally_well_are_averaged(y):
    """Two members that err alike and a poor one: ways that keep to the two are as good as each other and count."""
    shared = noisy(y, 11, (0.1,))[0]
    grams, fold = grams_of(noisy(shared, 12, (0.02, 0.02, 1.0)), y), np.arange(60) % 4
    names, errors = choose_ways(grams, fold)
    assert set(names) == {name for name, error in errors.items() if error <= 1.004 * min(errors.values())}
    assert len(names) > 1
    assert "equal weights of all" not in names
    assert_allclose(averaged_weights(grams, names), sum(ways(3)[name](grams) for name in names) / len(names))


def test_ways_are_judged_on_folds_that_they_were_not_fitted_on(y):
    """The error told of every way is that of weights fitted without the row's fold, taken from the genes."""
    members, fold = noisy(y, 10), np.arange(60) // 20
    _, errors = choose_ways(grams_of(members, y), fold)
    parts = []
    for k in range(3):
        inside, rows = fold != k, fold == k
        weights = greedy_weights(grams_of([m[inside] for m in members], y[inside]))
        parts.append(np.sqrt(((y[rows] - blend([m[rows] for m in members], weights)) ** 2).mean(1)))
    assert_allclose(errors["greedy selection"], np.concatenate(parts).mean(), rtol=1e-9)


def test_standard_error_by_hand():
    """Of -1, 1, 3: deviation sqrt(8 / 3), over sqrt(3)."""
    assert_allclose(standard_error(np.array([-1.0, 1, 3])), np.sqrt(8) / 3)
