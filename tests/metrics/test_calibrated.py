"""Scores between floor and ceiling, worked by hand."""

import math

import pytest

from pertcast.metrics.calibrated import calibrated


@pytest.mark.parametrize(
    ("better", "value", "floor", "ceiling", "want"),
    [
        ("higher", 0.6, 0.2, 1.0, 0.5),
        ("higher", 0.0, 0.2, 1.0, -0.25),  # worse than the floor
        ("lower", 3.0, 4.0, 2.0, 0.5),
        ("lower", 5.0, 4.0, 2.0, -0.5),
        ("one", 2.0, 4.0, 1.0, 0.5),  # half of the way on the log scale, whether too wide
        ("one", 0.5, 0.25, 1.0, 0.5),  # or too narrow
    ],
)
def test_by_hand(better, value, floor, ceiling, want):
    assert calibrated(value=value, floor=floor, ceiling=ceiling, better=better) == pytest.approx(want)


@pytest.mark.parametrize("better", ["higher", "lower", "one"])
def test_floor_is_0_and_ceiling_1(better):
    floor, ceiling = (0.3, 0.9) if better != "lower" else (0.9, 0.3)
    of = {"floor": floor, "ceiling": ceiling, "better": better}
    assert calibrated(value=floor, **of) == pytest.approx(0)
    assert calibrated(value=ceiling, **of) == pytest.approx(1)


def test_a_ceiling_that_is_no_better_than_the_floor_calibrates_nothing():
    assert math.isnan(calibrated(value=0.5, floor=0.4, ceiling=0.4))
    assert math.isnan(calibrated(value=0.5, floor=0.4, ceiling=0.6, better="lower"))
    assert math.isnan(calibrated(value=0.5, floor=math.nan, ceiling=0.6))
    assert math.isnan(calibrated(value=0.0, floor=0.5, ceiling=0.9, better="one"))  # no variance at all
