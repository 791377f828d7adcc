"""Nearest compounds: profiles, neighbours and their average against slow loops and hand-worked numbers."""

from dataclasses import replace

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.features.assemble import assemble
from pertcast.models import nearest
from pertcast.models.registry import build

BLOCKS = ("cell_type", "compound", "morgan")


def rows_of(question, train=None, valid=None):
    train = np.arange(len(question)) if train is None else train
    valid = np.arange(0) if valid is None else valid
    return assemble(question, FeatureConfig(blocks=BLOCKS), train=train, valid=valid)


def test_profiles_leave_the_own_cell_type_out():
    """Oracle: a loop over rows."""
    rng = np.random.default_rng(0)
    of_type, of_compound, y = rng.integers(1, 4, size=30), rng.integers(1, 6, size=30), rng.normal(size=(30, 3))
    asked_type, asked_compound = np.array([0, 1, 2, 3, 1]), np.array([1, 2, 5, 0, 9])
    profile, known = nearest._profiles(asked_type, asked_compound, (of_type, of_compound, y), smooth=0.5)
    for i in range(5):
        others = y[(of_compound == asked_compound[i]) & (of_type != asked_type[i])]
        assert_allclose(profile[i], others.sum(0) / (len(others) + 0.5), atol=1e-12)
        assert known[i] == (len(others) > 0)


def test_effects_solve_their_penalised_equations():
    """Oracle: ridge on one-hot columns with the two penalties, at convergence."""
    of_type, of_compound = np.repeat([1, 2, 3], 8), np.tile(np.arange(1, 9), 3)
    y = np.random.default_rng(1).normal(size=(24, 2))
    x = np.concatenate([np.eye(3)[of_type - 1], np.eye(8)[of_compound - 1]], axis=1)
    penalty = np.diag([nearest.TYPE_PSEUDO] * 3 + [1.0] * 8)
    expected = np.linalg.solve(x.T @ x + penalty, x.T @ y)[:3]
    effects = nearest._type_effects(of_type, of_compound, y, smooth=1.0)
    assert_allclose(effects[1:], expected, atol=1e-3)
    assert_array_equal(effects[0], 0)


def test_answer_equals_a_slow_loop():
    """Every asked row by hand: weights of its neighbours, and the additive answer among them."""
    question, _ = make_question()
    rows = rows_of(question)
    model = build("nearest", {"smooth": 2.0}).fit(rows.train)
    store, asked = nearest._Store.of(model.arrays, smooth=2.0), model._asked(rows.test)
    choice = (3.0, 0.7, 0.4)
    got = store.answer(asked, store.neighbours(asked), choice, unseen=False)
    for i in range(len(rows.test)):
        near = store.neighbours(asked).profile[i]
        top, bottom = choice[2] * near, choice[2]
        for j in range(len(rows.train)):
            other = store.profiles[j]
            cosine = max(near @ other / np.linalg.norm(near) / np.linalg.norm(other), 0)
            if rows.train.compound[j] == rows.test.compound[i]:
                cosine = 1.0
            same = rows.train.cell_type[j] == rows.test.cell_type[i]
            alike = model.arrays["similarity"][asked.of_type[i], store.of_type[j] - 1]
            weight = cosine**3 * (1.0 if same else 0.7 * max(alike, 0))
            top, bottom = top + weight * store.deviations[j], bottom + weight
        assert_allclose(got[i], store.effects[asked.of_type[i]] + top / bottom, atol=1e-9)


def test_rows_left_out_see_neither_themselves_nor_most_of_their_cell_type():
    """A row that is predicted to choose the settings is hidden as the question hides rows."""
    question, _ = make_question()
    model = build("nearest").fit(rows_of(question).train)
    store = nearest._Store.of(model.arrays, smooth=1.0)
    rows = np.arange(10)
    allowed = store.neighbours(store.asked(rows), without=rows).allowed
    same_type = store.of_type[rows][:, None] == store.of_type[None, :]
    same_compound = store.of_compound[rows][:, None] == store.of_compound[None, :]
    assert not allowed[np.arange(10), rows].any()
    assert 0 < allowed[same_type].mean() < 0.5
    assert allowed[~same_type].all()
    unseen = store.neighbours(store.asked(rows), without=rows, unseen=True).allowed
    assert not unseen[same_compound].any()


def test_a_twin_in_structure_answers_for_an_unseen_compound():
    """A compound that training lacks, with the structure of one that it has, gets close to that one's response."""
    question, _ = make_question(noise=0.01)
    smiles = question.smiles.copy()
    twins = np.isin(question.compound, ["drug 10", "drug 11"])
    smiles[question.compound == "drug 11"] = smiles[question.compound == "drug 10"][0]
    y = question.y.copy()
    y[question.compound == "drug 11"] = y[question.compound == "drug 10"]
    hidden = question.compound == "drug 11"
    rows = rows_of(replace(question, smiles=smiles, y=y), np.flatnonzero(~hidden), np.flatnonzero(hidden))
    settings = {"structure_sharpness": [8.0], "pseudo": [0.01], "similar_types": [0.1]}
    predicted = build("nearest", settings).fit(rows.train).predict(rows.valid)
    truth = y[question.compound == "drug 11"]
    assert twins.sum() == 2 * hidden.sum()
    assert np.linalg.norm(predicted - truth) < 0.3 * np.linalg.norm(truth - rows.train.y.mean(0))


def test_seen_and_unseen_compounds_are_answered_by_their_own_settings():
    question, _ = make_question()
    hidden = question.compound == "drug 0"
    rows = rows_of(question, np.flatnonzero(~hidden), np.flatnonzero(hidden))
    model = build("nearest").fit(rows.train)
    before = model.predict(rows.valid), model.predict(rows.test.take(np.arange(1, 4)))
    model.arrays["unseen"] = np.array([1.0, 0.0, 1e9])  # all weight on the answer without neighbours
    after = model.predict(rows.valid), model.predict(rows.test.take(np.arange(1, 4)))
    assert np.abs(before[0] - after[0]).max() > 1e-3
    assert_array_equal(before[1], after[1])
