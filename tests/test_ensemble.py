"""Blending: the weights minimise what they should, on out-of-fold rows only, and are honest about it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from pertcast.ensemble import Blend, blend_members, fit_blend, fit_weights, grams_of
from pertcast.errors import InputError
from pertcast.types import Predictions, Question
from pertcast.validation.cross_validate import OutOfFold


def members_of(y, rng, noises=(0.5, 1.0, 2.0)):
    return [y + s * rng.normal(size=y.shape) for s in noises]


def mrrmse(y, p):
    return np.sqrt(((y - p) ** 2).mean(1)).mean()


@pytest.fixture
def y():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 25)) * rng.exponential(2, size=(60, 1))


def test_weights_minimise_mrrmse(y):
    """Oracle: scipy's general optimiser on the plain definition."""
    members = members_of(y, np.random.default_rng(1))
    weights = fit_weights(grams_of(members, y))

    def loss(w):
        return mrrmse(y, sum(a * m for a, m in zip(w, members, strict=True)))

    best = minimize(loss, np.full(3, 1 / 3), bounds=[(0, None)] * 3, method="L-BFGS-B", options={"ftol": 1e-14})
    assert loss(weights) <= best.fun + 1e-6
    assert_allclose(weights, best.x, atol=2e-3)


def test_a_perfect_member_gets_all_and_an_opposite_one_nothing(y):
    assert_allclose(fit_weights(grams_of([y, -y], y)), [1, 0], atol=1e-5)
    assert_allclose(fit_weights(grams_of([y / 2], y)), [2], atol=1e-5)  # the scale is fitted without a prior


def test_row_errors_equal_the_definition(y):
    members = members_of(y, np.random.default_rng(2))
    weights = np.array([0.2, 0.7, 0.4])
    blend = sum(w * m for w, m in zip(weights, members, strict=True))
    assert_allclose(grams_of(members, y).row_rmse(weights), np.sqrt(((y - blend) ** 2).mean(1)), rtol=1e-9)


def blend_of(y, members, cell_type, fold, targets):
    names = tuple(f"m{i}" for i in range(len(members)))
    return fit_blend(names, grams_of(members, y), cell_type=cell_type, fold=fold, target_types=targets)


def test_scales_by_cell_type_only_where_they_help_elsewhere(y):
    cell_type = np.array(["A", "B"] * 30, dtype=object)
    fold = np.arange(60) // 20
    halved = np.where((cell_type == "A")[:, None], y / 2, y)
    blend, _ = blend_of(y, [halved], cell_type, fold, ["A"])
    assert set(blend.scales) == {"A"}
    assert_allclose(blend.scales["A"] * blend.weights[0], 2, rtol=0.05)
    blend, _ = blend_of(y, members_of(y, np.random.default_rng(3)), cell_type, fold, ["A"])
    assert blend.scales == {}
    assert "no scales by cell type" in blend.reason


def test_each_row_is_scored_with_weights_of_other_folds(y):
    """Poisoning one fold's truth leaves the weights of its own rows as they were, and moves those of the others."""
    members = members_of(y, np.random.default_rng(4))
    cell_type, fold = np.array(["A"] * 60, dtype=object), np.arange(60) // 20
    _, before = blend_of(y, members, cell_type, fold, ["A"])
    poisoned = y.copy()
    poisoned[fold == 1] = 1e3
    _, after = blend_of(poisoned, members, cell_type, fold, ["A"])
    assert_allclose(after[fold == 1], before[fold == 1])
    assert np.abs(after[fold == 0] - before[fold == 0]).max() > 0.01


def test_blend_is_clipped_to_the_training_range():
    blend = Blend(("a",), np.array([2.0]), {"B": 3.0}, "")
    reach = np.full(2, 5)
    values = blend.apply({"a": np.array([[1.0, -4], [1, 1]])}, np.array(["A", "B"]), low=-reach, high=reach)
    assert_allclose(values, [[2, -5], [5, 5]])


def test_seen_and_unseen_compounds_get_weights_of_their_own():
    """One member knows compounds seen in training, the other the unseen ones."""
    rng = np.random.default_rng(5)
    y = rng.normal(size=(80, 10)).astype(np.float32)
    seen = np.arange(80) < 40
    good, bad = y.copy(), rng.normal(size=y.shape).astype(np.float32)
    members = {
        "id": np.where(seen[:, None], good, bad),
        "chemistry": np.where(seen[:, None], bad, good),
    }
    names = np.array([f"drug {i}" for i in range(80)], dtype=object)
    cell_type = np.array(["A"] * 80, dtype=object)
    none = np.array([None] * 80, dtype=object)
    asked = np.array(["drug 3", "never seen"], dtype=object)
    question = Question(
        tuple("abcdefghij"), cell_type, names, none, y, np.arange(2), cell_type[:2], asked, none[:2]
    )
    held_out = OutOfFold(np.arange(80), np.arange(80) % 4, seen, members)
    said = {"id": 0.1, "chemistry": 0.2}
    test = {name: Predictions(np.arange(2), question.genes, np.full((2, 10), v)) for name, v in said.items()}
    blended = blend_members(question, held_out, test)
    assert_allclose(blended.test, [[0.1] * 10, [0.2] * 10], atol=0.02)
    assert mrrmse(y, blended.held_out) < 0.05
    assert set(blended.blends) == {"seen", "unseen"}


def test_nothing_to_fit_on_is_said():
    with pytest.raises(InputError, match="needs out-of-fold rows, got none"):
        blend_of(np.zeros((0, 3)), [np.zeros((0, 3))], np.array([], object), np.array([], int), [])
