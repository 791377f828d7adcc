"""Panels of stories and benchmarks, read back from what was drawn."""

import numpy as np

from pertcast.report.story import panels_figure
from pertcast.stories.story import Panel, Series


def test_more_models_than_colours_are_told_apart():
    """Twenty models as points: every one is drawn, and no two look alike."""
    series = tuple(Series(f"model {k}", np.array([float(k)]), np.array([1.0])) for k in range(20))
    (axes,) = panels_figure([Panel("scores", "skill", "distance", "points", series)], "title").axes
    looks = {(line.get_color(), line.get_marker()) for line in axes.lines}
    assert [line.get_label() for line in axes.lines] == [one.name for one in series]
    assert len(looks) == 20
