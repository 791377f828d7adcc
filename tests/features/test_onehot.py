"""One-hot blocks against scikit-learn's encoder."""

import numpy as np
from numpy.testing import assert_array_equal
from sklearn.preprocessing import OneHotEncoder

from pertcast.features.onehot import Vocabulary, onehot_block

TRAIN = np.array(["NK", "B", "NK", "Myeloid"], dtype=object)
ROWS = np.array(["B", "Treg", "NK", "Myeloid", ""], dtype=object)


def test_vocabulary_is_sorted_and_unique_and_keeps_0_for_unknown_names():
    vocabulary = Vocabulary.fit(TRAIN)
    assert vocabulary.names == ("B", "Myeloid", "NK")
    assert_array_equal(vocabulary.encode(ROWS), [1, 0, 3, 2, 0])
    assert vocabulary == Vocabulary.fit(TRAIN[::-1])  # order of appearance does not matter


def test_onehot_equals_scikit_learn_with_zeros_for_unknown_names():
    block = onehot_block(ROWS, Vocabulary.fit(TRAIN))
    oracle = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(TRAIN[:, None])
    assert_array_equal(block.dense(), oracle.transform(ROWS[:, None]))
    assert block.table.dtype == np.float32
    assert block.table.shape == (4, 3)
    assert not block.dense()[1].any()


def test_width_follows_the_data():
    """R39."""
    block = onehot_block(np.array(["a"], dtype=object), Vocabulary.fit(f"compound {i}" for i in range(37)))
    assert block.dense().shape == (1, 37)
    assert onehot_block(ROWS, Vocabulary.fit([])).dense().shape == (5, 0)
