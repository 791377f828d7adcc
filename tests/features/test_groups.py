"""Sums of groups against a slow loop."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pertcast.features.groups import group_sums


@pytest.mark.parametrize("shape", [(20,), (20, 3), (20, 2, 3), (20, 0, 2), (0, 4)])
def test_sums_of_groups_are_those_of_a_loop(shape):
    rng = np.random.default_rng(0)
    values, group = rng.normal(size=shape), rng.integers(4, size=shape[0])
    wanted = np.zeros((6, *shape[1:]))  # nothing is in the last two groups
    for row, number in zip(values, group, strict=True):
        wanted[number] += row
    assert_allclose(group_sums(values, group, 6), wanted, atol=1e-12)
