"""How alike the errors of members are, against the genes written out."""

import numpy as np
from numpy.testing import assert_allclose

from pertcast.diversity import diversity
from pertcast.weights import grams_of


def cosine(a, b):
    return np.mean([x @ z / np.sqrt((x @ x) * (z @ z)) for x, z in zip(a, b, strict=True)])


def test_cosines_follow_the_slow_loop():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(30, 12))
    members = [y + rng.normal(size=y.shape), 0.5 * y, rng.normal(size=y.shape)]
    found = diversity(("a", "b", "c"), grams_of(members, y))
    for i in range(3):
        assert_allclose(found.alone[i], np.sqrt(((y - members[i]) ** 2).mean(1)).mean())
        for j in range(3):
            assert_allclose(found.errors[i, j], cosine(members[i] - y, members[j] - y))
            assert_allclose(found.predictions[i, j], cosine(members[i], members[j]))


def test_twins_and_opposites():
    """By hand: errors of +1 and -1 everywhere go against each other; a member errs as itself does."""
    y = np.arange(6.0).reshape(2, 3)
    found = diversity(("up", "down", "half"), grams_of([y + 1, y - 1, y + 0.5], y))
    assert_allclose(found.errors, [[1, -1, 1], [-1, 1, -1], [1, -1, 1]])
    lines = found.text().split("\n")
    assert lines[1:] == ["  half 0.5000", "  up   1.0000  1.00", "  down 1.0000 -1.00 -1.00"]
    assert found.as_dict()["mrrmse"] == {"up": 1.0, "down": 1.0, "half": 0.5}
