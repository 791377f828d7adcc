"""Row strength: factors are found where they are planted, and know nothing of held-out rows."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize

from cases import make_question
from pertcast.row_strength import MOST, SHRINKAGE, compound_profiles, fit_row_strength, profiles_held_out
from pertcast.types import Fold
from pertcast.weights import grams_of


def planted(seed=0, rows=300, genes=30, power=0.3):
    """Truth is the prediction times size ** power: the larger, the more it deserves."""
    rng = np.random.default_rng(seed)
    p = rng.normal(size=(rows, genes)) * rng.uniform(0.3, 3, size=(rows, 1))
    size = np.sqrt((p**2).mean(1))
    profiles = rng.normal(size=p.shape) / np.sqrt(genes)
    return p, p * size[:, None] ** power + 0.2 * rng.normal(size=p.shape), profiles, size


def mrrmse(y, p):
    return np.sqrt(((y - p) ** 2).mean(1)).mean()


def test_planted_factors_are_found():
    p, y, profiles, size = planted()
    inner = grams_of([p], y, profiles)
    factor = fit_row_strength(inner).factor(inner)
    assert np.corrcoef(np.log(factor), np.log(size))[0, 1] > 0.98
    assert mrrmse(y, p * factor[:, None]) < 0.8 * mrrmse(y, p)


def test_planted_agreement_is_found():
    """Rows that follow their compound's profile are right, the others are noise: only the first keep their size."""
    rng = np.random.default_rng(1)
    u = rng.normal(size=(200, 40))
    u /= np.sqrt((u**2).sum(1, keepdims=True))
    right = np.arange(200) % 2 == 0
    noise = rng.normal(size=u.shape)
    p = np.where(right[:, None], 5 * u, noise / np.sqrt((noise**2).sum(1, keepdims=True)) * 5)
    y = np.where(right[:, None], 5 * u, 5 * rng.normal(size=u.shape) / np.sqrt(40))
    inner = grams_of([p], y, u)
    factor = fit_row_strength(inner).factor(inner)
    assert factor[right].min() > factor[~right].max()


def test_no_structure_gives_no_factors():
    rng = np.random.default_rng(2)
    p = rng.normal(size=(400, 30))
    inner = grams_of([p], p + rng.normal(size=p.shape), rng.normal(size=p.shape))
    assert np.abs(fit_row_strength(inner).factor(inner) - 1).mean() < 0.03


def test_factors_minimise_the_penalised_error():
    """Oracle: a general optimiser without derivatives, on the genes and the formula written out."""
    p, y, profiles, size = planted(seed=3, rows=80)
    model = fit_row_strength(grams_of([p], y, profiles))
    z = np.stack([np.log(size), (p * profiles).sum(1) / np.sqrt((p**2).sum(1))], axis=1)
    assert_allclose(model.center, z.mean(0))
    assert_allclose(model.spread, z.std(0))
    s, a = np.clip((z - z.mean(0)) / z.std(0), -2.5, 2.5).T
    x = np.stack([np.ones(80), s, a, s**2 - 1, a**2 - 1, s * a], axis=1)
    unit = np.sqrt((y**2).mean(1)).mean()

    def loss(b):
        return mrrmse(y, p * np.exp(x @ b)[:, None]) / unit + SHRINKAGE * (b[1:] ** 2).sum()

    found = np.concatenate([[model.intercept], model.slopes])
    options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-8, "fatol": 1e-12}
    best = minimize(loss, found + 0.05, method="Nelder-Mead", options=options)
    assert loss(found) <= best.fun + 1e-6


def test_factors_are_bounded_on_rows_unlike_any_seen():
    p, y, profiles, _ = planted(power=2.0)
    model = fit_row_strength(grams_of([p], y, profiles))
    far = grams_of([p * 1e6, p * 1e-6, p * 0], y, profiles)
    for member in range(3):
        factor = model.factor(far.blended(np.eye(3)[member]))
        assert 1 / MOST <= factor.min() <= factor.max() <= MOST


def test_profile_is_the_mean_direction_of_the_compound():
    """By hand: drug 0 in three of four types is in training; its product with a direction is the mean cosine."""
    question, _ = make_question()
    train = np.flatnonzero((question.compound != "drug 5") & (question.cell_type != "type 1"))
    asked = np.array(["drug 4", "drug 5", "never seen"], dtype=object)
    profiles = compound_profiles(question, train, asked)
    rows = question.y[train[question.compound[train] == "drug 4"]]
    direction = np.random.default_rng(0).normal(size=rows.shape[1])
    direction /= np.sqrt(direction @ direction)
    cosines = [row @ direction / np.sqrt(row @ row) for row in rows]
    assert len(cosines) == 3
    assert_allclose(profiles[0] @ direction, np.mean(cosines), rtol=1e-5)
    assert_array_equal(profiles[1:], 0)


@pytest.mark.parametrize("hidden", ["type 1", "type 2"])
def test_held_out_targets_do_not_reach_the_profiles(hidden):
    """S004-03, R03: poisoned held-out rows leave the profiles of their own fold as they were."""
    question, _ = make_question()
    rows = np.arange(len(question))
    valid = np.flatnonzero(question.cell_type == hidden)
    fold = Fold("one", np.setdiff1d(rows, valid), valid, "cell_type")
    before = profiles_held_out(question, [fold])
    poisoned = question.y.copy()
    poisoned[valid] = 1e6
    assert_array_equal(profiles_held_out(replace(question, y=poisoned), [fold]), before)
    poisoned[fold.train] += 1
    assert np.abs(profiles_held_out(replace(question, y=poisoned), [fold]) - before).max() > 0.01
