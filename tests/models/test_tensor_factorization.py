"""Tensor factorisation: each step against its normal equations, and planted products found again."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from pertcast.models import tensor_factorization as tf
from pertcast.models.registry import build
from pertcast.types import Examples


def small(seed=0, n=40):
    rng = np.random.default_rng(seed)
    of_type, of_compound = rng.integers(1, 4, size=n), rng.integers(1, 9, size=n)
    rows = tf._Rows(of_type, of_compound, rng.normal(size=(n, 6)), np.zeros(n), (3, 8))
    factors = tf._Factors(rng.normal(size=(4, 6)), rng.normal(size=(4, 6, 2)), rng.normal(size=(9, 2)))
    return rows, factors, rng.uniform(0.5, 2, size=n)


def test_codes_are_ridge_regressions():
    """Oracle: one compound at a time, its rows stacked."""
    rows, factors, weight = small()
    codes = tf._codes(rows, factors, weight, 0.7)
    for compound in np.unique(rows.of_compound):
        mine = np.flatnonzero(rows.of_compound == compound)
        x = np.concatenate([np.sqrt(weight[i]) * factors.gains[rows.of_type[i]] for i in mine])
        y = np.concatenate([np.sqrt(weight[i]) * (rows.scores[i] - factors.effects[rows.of_type[i]]) for i in mine])
        assert_allclose(codes[compound], np.linalg.solve(x.T @ x + 0.7 * np.eye(2), x.T @ y))


def test_gains_without_room_to_depart_are_common_to_all():
    rows, factors, weight = small(1)
    gains = tf._gains(rows, factors, weight, 1e12).gains
    assert_allclose(gains, np.repeat(gains[:1], 4, axis=0), atol=1e-6)


def planted(noise=0.02):
    """Every type measures the same compounds in its own gain; most of the last type is missing."""
    rng = np.random.default_rng(2)
    gain, profile = np.array([1.0, 0.5, 2.0, 1.5, 3.0]), rng.normal(size=(30, 3)) @ rng.normal(size=(3, 20))
    of_type, of_compound = (axis.ravel() for axis in np.indices((5, 30)))
    y = gain[of_type][:, None] * profile[of_compound] + noise * rng.normal(size=(150, 20))
    hidden = (of_type == 4) & (of_compound >= 8)
    names = np.array([f"t{i}" for i in of_type], object), np.array([f"c{i:02d}" for i in of_compound], object)
    rows = Examples(np.arange(150), *names, tuple(f"G{i}" for i in range(20)), {}, y.astype(np.float32))
    return rows.take(np.flatnonzero(~hidden)), rows.take(np.flatnonzero(hidden))


def test_a_gain_is_found_from_few_rows_where_additive_effects_fail():
    """Strength times gain: eight rows tell the gain of a cell type, and so all its other answers."""
    train, asked = planted()
    settings = {"rank": 3, "code_penalties": [0.1], "gain_penalties": [0.1]}
    model = build("tensor-factorization", settings).fit(train, seed=0)
    error = np.sqrt(((model.predict(asked.without_y()) - asked.y) ** 2).mean())
    additive = np.sqrt(((build("additive").fit(train, seed=0).predict(asked.without_y()) - asked.y) ** 2).mean())
    assert error < 0.5 * additive


def test_penalties_are_those_that_leave_the_smallest_errors():
    """A penalty that forbids all codes loses to one that allows them."""
    train, _ = planted()
    settings = {"rank": 3, "code_penalties": [1e6, 0.1], "gain_penalties": [0.1]}
    assert_array_equal(build("tensor-factorization", settings).fit(train, seed=0).arrays["penalties"], [0.1, 0.1])


def test_unknown_names_get_the_common_answer():
    """An unknown compound has no code; an unknown cell type has no effect and the common gains."""
    _, factors, _ = small(3)
    codes = factors.codes.copy()
    codes[0] = 0
    factors = tf._Factors(factors.effects, factors.gains, codes)
    assert_allclose(factors.answer(np.array([2]), np.array([0])), factors.effects[[2]])
    assert_allclose(factors.answer(np.array([0]), np.array([5]))[0], factors.effects[0] + factors.gains[0] @ codes[5])
