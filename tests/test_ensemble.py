"""Blending: scales and strength only where they help elsewhere, out-of-fold rows only, and honest about it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pertcast.ensemble import Blend, Step, blend_members, fit_blend
from pertcast.errors import InputError
from pertcast.row_strength import RowStrength
from pertcast.types import Fold, Predictions, Question
from pertcast.validation.cross_validate import OutOfFold
from pertcast.weights import grams_of


def members_of(y, rng, noises=(0.5, 1.0, 2.0)):
    return [y + s * rng.normal(size=y.shape) for s in noises]


def mrrmse(y, p):
    return np.sqrt(((y - p) ** 2).mean(1)).mean()


@pytest.fixture
def y():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 25)) * rng.exponential(2, size=(60, 1))


def blend_of(y, members, cell_type, fold, targets, profiles=None):
    names = tuple(f"m{i}" for i in range(len(members)))
    return fit_blend(names, grams_of(members, y, profiles), cell_type=cell_type, fold=fold, target_types=targets)


def one_type(rows):
    return np.array(["A"] * rows, dtype=object)


def test_scales_by_cell_type_only_where_they_help_elsewhere(y):
    cell_type = np.array(["A", "B"] * 30, dtype=object)
    fold = np.arange(60) // 20
    halved = np.where((cell_type == "A")[:, None], y / 2, y)
    blend, _ = blend_of(y, [halved], cell_type, fold, ["A"])
    assert set(blend.scales) == {"A"}
    assert_allclose(blend.scales["A"] * blend.weights[0], 2, rtol=0.05)
    blend, _ = blend_of(y, members_of(y, np.random.default_rng(3)), cell_type, fold, ["A"])
    assert blend.scales == {}
    assert "a scale by cell type not used: it would" in blend.text()


def test_row_strength_only_where_it_helps_elsewhere():
    """Planted: the larger a prediction, the more of it is true. Then without: what it would gain or lose is said."""
    rng = np.random.default_rng(6)
    p = rng.normal(size=(200, 20)) * rng.uniform(0.3, 3, size=(200, 1))
    size, fold = np.sqrt((p**2).mean(1, keepdims=True)), np.arange(200) % 4
    noise = 0.2 * rng.normal(size=p.shape)
    blend, weights = blend_of(p * size**0.4 + noise, [p], one_type(200), fold, ["A"])
    assert blend.strength is not None
    assert blend.as_dict()["steps"]["row strength"]["used"] is True
    assert "row strength gains" in blend.text()
    assert np.corrcoef(np.log(weights[:, 0]), np.log(size[:, 0]))[0, 1] > 0.95
    assert mrrmse(p * size**0.4, p * weights) < 0.5 * mrrmse(p * size**0.4, p)
    blend, weights = blend_of(p + noise, [p], one_type(200), fold, ["A"])
    assert blend.strength is None
    assert "row strength not used: it would" in blend.text()
    assert blend.as_dict()["row_strength"] is None
    assert np.ptp(weights) < 0.05


def test_a_step_must_gain_twice_its_standard_error():
    assert Step("s", gain=0.021, error=0.01).used
    assert not Step("s", gain=0.019, error=0.01).used
    assert Step("s", gain=0.019, error=0.01).text() == "s not used: it would gain 0.0190 +- 0.0100 on other folds"
    assert Step("s", gain=-0.5, error=0.01).text() == "s not used: it would lose 0.5000 +- 0.0100 on other folds"


def test_every_decision_is_nested():
    """The weights that score a row come from a blend fitted, choices included, on the other folds alone."""
    rng = np.random.default_rng(7)
    y = rng.normal(size=(90, 15)) * rng.exponential(2, size=(90, 1))
    members, profiles, fold = members_of(y, rng, (1.0, 1.5, 3.0)), rng.normal(size=y.shape), np.arange(90) // 30
    cell_type = np.array(["A", "B"] * 45, dtype=object)
    _, weights = blend_of(y, members, cell_type, fold, ["A"], profiles)
    for k in range(3):
        inside, own = fold != k, fold == k
        parts = [[m[rows] for m in members] for rows in (inside, own)]
        blend, _ = blend_of(y[inside], parts[0], cell_type[inside], fold[inside], ["A"], profiles[inside])
        given = blend.row_weights(grams_of(parts[1], y[own], profiles[own]), cell_type[own])
        assert_allclose(weights[own], given, rtol=1e-9)


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
    """A member that says ten times as much, whose weight learns that, and then says a hundred times as much."""
    y = np.random.default_rng(9).normal(size=(40, 3)).astype(np.float32)
    names, none = np.array([f"drug {i}" for i in range(40)], dtype=object), np.array([None] * 40, dtype=object)
    types = np.array(["A"] * 40, dtype=object)
    question = Question(tuple("abc"), types, names, none, y, np.arange(2), types[:2], names[:2], none[:2])
    fold = np.arange(40) // 10
    folds = [Fold(f"{k}", np.flatnonzero(fold != k), np.flatnonzero(fold == k), "rows") for k in range(4)]
    held_out = OutOfFold(np.arange(40), fold, np.ones(40, bool), {"a": 10 * y})
    test = {"a": Predictions(np.arange(2), question.genes, np.array([[100.0] * 3, [-100] * 3]))}
    blended = blend_members(question, held_out, test, folds=folds)
    assert_allclose(blended.test, [y.max(0), y.min(0)])
    assert np.abs(blended.held_out - y).max() < 0.01


def test_strength_is_applied_to_genes_as_to_inner_products(y):
    """By hand for the first row; and what scores out-of-fold rows is what is written for test rows."""
    strength = RowStrength(np.array([0.1, 0.0]), np.array([2.0, 0.5]), 0.05, np.array([0.2, 0.1, 0.03, -0.02, 0.01]))
    blend = Blend(("a", "b", "c"), np.array([0.5, 0.3, 0.1]), {"B": 1.5}, strength)
    rng = np.random.default_rng(8)
    members, cell_type = members_of(y, rng), np.array(["A", "B"] * 30, dtype=object)
    profiles = rng.normal(size=y.shape) / 5
    values = blend.apply(dict(zip("abc", members, strict=True)), cell_type, profiles=profiles)
    weights = blend.row_weights(grams_of(members, y, profiles), cell_type)
    assert_allclose(values, sum(w[:, None] * m for w, m in zip(weights.T, members, strict=True)), rtol=1e-9)
    p = 0.5 * members[0][0] + 0.3 * members[1][0] + 0.1 * members[2][0]
    size = (np.log(np.sqrt((p**2).mean())) - 0.1) / 2
    agreement = p @ profiles[0] / np.sqrt(p @ p) / 0.5
    log_factor = 0.05 + 0.2 * size + 0.1 * agreement
    log_factor += 0.03 * (size**2 - 1) - 0.02 * (agreement**2 - 1) + 0.01 * size * agreement
    assert_allclose(values[0], p * np.exp(log_factor), rtol=1e-9)


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
    question = Question(tuple("abcdefghij"), cell_type, names, none, y, np.arange(2), cell_type[:2], asked, none[:2])
    number = np.arange(80) // 5 % 4
    rows = np.argsort(number, kind="stable")
    by_fold = {name: values[rows] for name, values in members.items()}
    held_out = OutOfFold(rows, number[rows], seen[rows], by_fold)
    said = {"id": 0.1, "chemistry": 0.2}
    test = {name: Predictions(np.arange(2), question.genes, np.full((2, 10), v)) for name, v in said.items()}
    folds = [Fold(f"{k}", np.flatnonzero(number != k), np.flatnonzero(number == k), "rows") for k in range(4)]
    blended = blend_members(question, held_out, test, folds=folds)
    assert_allclose(blended.test, [[0.1] * 10, [0.2] * 10], atol=0.02)
    assert mrrmse(y[rows], blended.held_out) < 0.05
    assert "Compounds unseen in training. Ways to fit the weights" in blended.report()
    assert "  chemistry " in blended.report()
    assert set(blended.blends) == {"seen", "unseen"}


def test_nothing_to_fit_on_is_said():
    with pytest.raises(InputError, match="needs out-of-fold rows, got none"):
        blend_of(np.zeros((0, 3)), [np.zeros((0, 3))], np.array([], object), np.array([], int), [])
