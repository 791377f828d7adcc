"""The additive floor: joint effects, honest shrinkage."""

import numpy as np
from numpy.testing import assert_allclose

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.features.assemble import assemble
from pertcast.models.additive import _Layout
from pertcast.models.registry import build


def test_effects_equal_ridge_on_one_hot_columns():
    """Oracle: the same penalised least squares written out."""
    rng = np.random.default_rng(0)
    of_type, of_compound = rng.integers(3, size=30), rng.integers(7, size=30)
    of_type[:3], of_compound[:7] = range(3), range(7)
    y = rng.normal(size=(30, 5))
    x = np.concatenate([np.eye(3)[of_type], np.eye(7)[of_compound]], axis=1)
    penalty = np.diag([2.0] * 3 + [0.5] * 7)
    assert_allclose(_Layout(of_type, of_compound).effects(y, (2.0, 0.5)), np.linalg.solve(x.T @ x + penalty, x.T @ y))


def test_left_out_errors_equal_leaving_out():
    """Oracle: fit n times without one row. Every effect keeps a row, so that columns stay the same."""
    of_type, of_compound = np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)
    y = np.random.default_rng(1).normal(size=(12, 5))
    layout = _Layout(of_type, of_compound)
    for i in range(12):
        rest = np.arange(12) != i
        effects = _Layout(of_type[rest], of_compound[rest]).effects(y[rest], (1.5, 0.7))
        error = ((y[i] - effects[of_type[i]] - effects[3 + of_compound[i]]) ** 2).sum()
        assert_allclose(layout.left_out_errors(y, (1.5, 0.7))[i], error)


def test_a_cell_type_measured_with_strong_compounds_only_is_not_called_strong():
    """Effects of the compounds alone: the rare type has none of its own, though its mean is far from zero."""
    question, _ = make_question(types=4, compounds=12, asked=9, noise=0.01)
    strength = {f"drug {c}": 5.0 if c >= 9 else 0.1 for c in range(12)}  # the rare type knows drugs 9 to 11
    profile = np.random.default_rng(0).normal(size=(12, 37))
    y = np.stack([strength[name] * profile[int(name.split()[1])] for name in question.compound]).astype(np.float32)
    from dataclasses import replace

    rows = assemble(replace(question, y=y), FeatureConfig(), train=np.arange(len(question)), valid=np.arange(0))
    predicted = build("additive").fit(rows.train).predict(rows.test)
    truth = np.stack([0.1 * profile[int(name.split()[1])] for name in question.test_compound])
    by_mean = build("cell-type-mean").fit(rows.train).predict(rows.test)
    assert np.abs(predicted - truth).mean() < 0.2 * np.abs(by_mean - truth).mean()
