"""Untreated cells as features, against scikit-learn's principal components and distances by hand."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.errors import InputError
from pertcast.features.assemble import assemble
from pertcast.features.context import context_scores
from pertcast.features.fitted import Features
from pertcast.features.similarity import context_kernel
from pertcast.types import Block, Profiles

CONFIG = FeatureConfig(blocks=("cell_type", "cell_baseline", "cell_accessibility"))


@pytest.fixture(scope="module")
def question():
    return make_question()[0]


def built(question):
    """Hold every row of `type 1` out."""
    hidden = question.cell_type == "type 1"
    return assemble(question, CONFIG, train=np.flatnonzero(~hidden), valid=np.flatnonzero(hidden))


def test_scores_are_principal_components_in_one_unit():
    values = np.random.default_rng(0).normal(size=(6, 300)).astype(np.float32)
    scores = context_scores(values)
    expected = PCA().fit_transform(values.astype(float))[:, :5]
    expected = expected / np.sqrt((expected**2).sum(1).mean())
    signs = np.sign((scores * expected).sum(0))
    assert_allclose(scores, expected * signs, atol=1e-5)
    assert_allclose((scores**2).sum(1).mean(), 1, rtol=1e-5)
    assert_allclose(pdist(scores) / pdist(values), pdist(scores)[0] / pdist(values)[0], rtol=1e-4)
    assert_array_equal(context_scores(values[:1]), [[0]])


def test_a_cell_type_that_training_never_saw_is_described(question):
    """Its one-hot is zero, its untreated profile is not; every row of it has the same."""
    rows = built(question)
    assert not rows.valid.block("cell_type").dense().any()
    scores = context_scores(question.contexts["cell_baseline"].values)
    assert_array_equal(rows.valid.block("cell_baseline").dense(), np.tile(scores[1], (len(rows.valid), 1)))
    assert rows.valid.block("cell_accessibility").dense().any()


def test_saved_and_loaded(question, tmp_path):
    features = built(question).features
    features.save(tmp_path)
    names = np.array(["type 0", "type 1", "type 9"], dtype=object)
    asked = {"cell_type": names, "compound": names, "smiles": np.array([None] * 3, dtype=object)}
    before, after = (f.describe(np.arange(3), **asked) for f in (features, Features.load(tmp_path)))
    for name in CONFIG.blocks:
        assert_array_equal(before.block(name).dense(), after.block(name).dense())
    assert not after.block("cell_baseline").dense()[2].any()


def test_what_is_missing_is_named(question):
    with pytest.raises(InputError, match="block 'cell_baseline' needs a table of untreated cells"):
        built(replace(question, contexts={}))
    full = question.contexts["cell_baseline"]
    part = Profiles(full.cell_types[1:], full.values[1:])
    with pytest.raises(InputError, match="Table 'cell_baseline' lacks 1 of 4 cell types: type 0"):
        built(replace(question, contexts={**question.contexts, "cell_baseline": part}))


def test_kernel_by_hand():
    """exp(-squared distance / 2), and positive semidefinite over any types."""
    table = np.array([[0, 0], [1, 1], [2, 0]], np.float32)
    left, right = Block(table, np.array([2, 0])), Block(table, np.array([0, 1, 1]))
    expected = np.exp([[-2, -1, -1], [0, -1, -1]])
    assert_allclose(context_kernel(left, right), expected)
    many = Block(np.random.default_rng(0).normal(size=(30, 4)), np.arange(30))
    assert np.linalg.eigvalsh(context_kernel(many, many)).min() > -1e-10
