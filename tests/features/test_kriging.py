"""Kriging over cell types, against a Gaussian process written out, numbers by hand, and poisoned rows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Ridge

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.features import kriging
from pertcast.features.assemble import assemble
from pertcast.features.kriging import KrigingRows, Sources, krige


@pytest.fixture
def table():
    """Five cell types, fourteen compounds, a third of the pairs missing: types, compounds, scores (n, 6)."""
    rng = np.random.default_rng(0)
    pairs = np.array([(t, c) for t in range(1, 6) for c in range(1, 15) if rng.random() < 0.67])
    types, compounds = pairs.T
    z = rng.normal(size=(6, 6))[types] + rng.normal(size=(15, 6))[compounds] * 2 + rng.normal(size=(len(pairs), 6))
    return types, compounds, z


def test_effects_of_cell_types_are_those_of_a_ridge(table):
    """Both effects penalised by pseudo-rows: scikit-learn's ridge, each column scaled by the root of its penalty."""
    types, compounds, z = table
    one_hot_types, one_hot_compounds = np.eye(5)[types - 1], np.eye(14)[compounds - 1]
    design = np.hstack(
        [one_hot_types / np.sqrt(kriging.EFFECT_ROWS), one_hot_compounds / np.sqrt(kriging.COMPOUND_ROWS)]
    )
    oracle = Ridge(alpha=1.0, fit_intercept=False).fit(design, z - z.mean(0)).coef_.T[:5] / np.sqrt(kriging.EFFECT_ROWS)
    sources = Sources.fit(types, compounds, z)
    fitted = z - z.mean(0) - sources.rest  # (n, 6)  the effect of each row's type
    assert_allclose(fitted, oracle[types - 1], atol=1e-10)


def test_the_answer_is_that_of_a_gaussian_process(table):
    """Conditional mean of a joint normal, written out with an explicit inverse."""
    types, compounds, z = table
    sources = Sources.fit(types, compounds, z)
    likeness = np.array([0.9, 0.1, 0.5, 0.3, 0.0])
    compound = int(np.argmax(np.bincount(compounds)))
    rows = np.flatnonzero(compounds == compound)
    prior = sources.likeness[np.ix_(types[rows] - 1, types[rows] - 1)] + kriging.NOISE * np.eye(len(rows))
    gain = likeness[types[rows] - 1] @ np.linalg.inv(prior)
    answer, trust = sources.answer(compound, likeness)
    assert_allclose(answer, gain @ sources.rest[rows], atol=1e-10)
    expected = [gain.sum(), likeness[types[rows] - 1].max(), gain @ likeness[types[rows] - 1]]
    assert_allclose(trust, [*expected, np.log1p(len(rows)), np.log1p(np.linalg.norm(answer))], atol=1e-10)


def test_a_lone_source_by_hand():
    """One source of likeness 0.6: the answer is 0.6 / (1 + noise) of its response, less its type's effect."""
    types, compounds, z = np.array([1, 1, 2]), np.array([1, 2, 2]), np.array([[3.0, 1.0], [-3.0, -1.0], [1.0, 0.0]])
    sources = Sources.fit(types[:2], compounds[:2], z[:2])
    assert_allclose(sources.rest, z[:2], atol=1e-12)  # both means are 0
    answer, _ = sources.answer(1, np.array([0.6]))
    assert_allclose(answer, 0.6 / (1 + kriging.NOISE) * z[0], atol=1e-12)


def test_likeness_is_a_covariance_and_finds_twins():
    """Two cell types that answer alike are most alike; the matrix has ones and no negative eigenvalue."""
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(40, 5))
    responses = [shared, shared + 0.1 * rng.normal(size=(40, 5)), rng.normal(size=(40, 5))]
    sources = Sources.fit(np.repeat([1, 2, 3], 40), np.tile(np.arange(40), 3), np.concatenate(responses))
    assert_allclose(np.diag(sources.likeness), 1)
    assert np.linalg.eigvalsh(sources.likeness).min() > -1e-12
    assert sources.likeness[0, 1] > 0.7 > 0.5 > sources.likeness[0, 2]


def test_a_row_never_sees_its_own_response(table):
    """R03: poison one training row; its own description does not move by one bit, others' do."""
    types, compounds, z = table
    before = krige(types, compounds, z, (types, compounds), parts=compounds % 3)
    for row in (0, 7, len(z) - 1):
        poisoned = z.copy()
        poisoned[row] = 1e6
        after = krige(types, compounds, poisoned, (types, compounds), parts=compounds % 3)
        for name in ("effect", "answer", "trust"):
            assert_array_equal(getattr(after, name)[row], getattr(before, name)[row])
        assert (np.abs(after.answer - before.answer).max(1) > 1).sum() > 5


def test_a_training_row_is_described_as_if_its_part_were_not_there(table):
    """Cross-fitting says what fitting without the part says of the part's rows."""
    types, compounds, z = table
    inside = krige(types, compounds, z, (types, compounds), parts=compounds % 3)
    hidden = (types == 2) & (compounds % 3 == 1)
    outside = krige(types[~hidden], compounds[~hidden], z[~hidden], (types[hidden], compounds[hidden]))
    for name in ("effect", "answer", "trust"):
        assert_array_equal(getattr(inside, name)[hidden], getattr(outside, name))


def test_names_that_training_lacks(table):
    """An unseen compound gets the cell type's effect alone; an unseen cell type the overall mean and a base answer."""
    types, compounds, z = table
    asked = np.array([1, 0, 0]), np.array([0, 1, 0])
    got = krige(types, compounds, z, asked)
    assert_array_equal(got.answer[[0, 2]], 0)
    assert_array_equal(got.trust[[0, 2]], 0)
    assert_allclose(got.effect[1:], np.tile(z.mean(0), (2, 1)), rtol=1e-6)
    assert np.abs(got.answer[1]).max() > 0


def test_one_cell_type_alone_has_no_sources():
    types, compounds, z = np.ones(4, int), np.arange(1, 5), np.random.default_rng(0).normal(size=(4, 3))
    got = krige(types, compounds, z, (types, compounds), parts=compounds % 2)
    assert_array_equal(got.answer, 0)
    assert np.isfinite(got.effect).all()


def test_rows_by_name_survive_saving():
    question, _ = make_question()
    everything = np.arange(len(question))
    rows = assemble(question, FeatureConfig(), train=everything, valid=everything[:0])
    fitted = KrigingRows.fit(rows.train, question.y)
    loaded = KrigingRows.from_saved(fitted.arrays(), fitted.facts())
    assert_array_equal(loaded.outside(rows.test).columns(4), fitted.outside(rows.test).columns(4))
    assert fitted.inside().columns(4).shape == (len(question), 17)
