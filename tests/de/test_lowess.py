"""Lowess against R's, and laws of local lines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from de.limma_case import case
from pertcast.de.lowess import lowess
from pertcast.errors import InputError


@pytest.mark.parametrize(
    ("kind", "options"),
    [("default", {}), ("half", {"span": 0.5}), ("once", {"span": 0.2, "iterations": 0}),
     ("every", {"span": 0.1, "delta": 0.0})],
)  # fmt: skip
def test_equals_r(kind, options):
    """Points with many ties and heavy tails."""
    want = case()["lowess"]
    x, y = np.array(want["x"]), np.array(want["y"])
    got = lowess(x, y, **options)
    assert_allclose(got[np.argsort(x, kind="stable")], want[kind], rtol=1e-8, atol=1e-9)


def test_equals_r_where_a_window_holds_ties_alone():
    x = np.tile([1.0, 2, 3], 4)
    got = lowess(x, np.arange(1.0, 13), span=0.3)
    assert_allclose(got[np.argsort(x, kind="stable")], case()["lowess"]["tied"], rtol=1e-8)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.3, 1), st.floats(-5, 5))
def test_a_line_is_its_own_curve(seed, span, slope):
    x = np.random.default_rng(seed).normal(size=60)
    assert_allclose(lowess(x, 3 + slope * x, span=span, iterations=0), 3 + slope * x, atol=1e-6)


def test_one_point_far_off_hardly_moves_the_curve():
    x = np.linspace(0, 1, 101)
    y = np.sin(6 * x)
    spoilt = y.copy()
    spoilt[50] += 100
    assert np.abs(lowess(x, spoilt, span=0.3) - lowess(x, y, span=0.3)).max() < 0.01
    assert np.abs(lowess(x, spoilt, span=0.3, iterations=0) - lowess(x, y, span=0.3, iterations=0)).max() > 1


def test_one_point_is_its_own_curve():
    assert lowess(np.array([2.0]), np.array([5.0])) == [5.0]


def test_faults():
    with pytest.raises(InputError, match="as many of one as of the other"):
        lowess(np.zeros(3), np.zeros(2))
    with pytest.raises(InputError, match="finite"):
        lowess(np.zeros(2), np.array([0.0, np.nan]))
    with pytest.raises(InputError, match=r"span must be in \(0, 1\].*got span 0"):
        lowess(np.zeros(2), np.zeros(2), span=0)
