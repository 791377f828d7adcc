"""Who wins against whom: distances by the metric itself, wins counted by hand."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cell_cases import make_cells
from pertcast.cells import registry
from pertcast.cells.log_scale import as_log1p
from pertcast.cells.wins import Wins, compare_models
from pertcast.errors import InputError
from pertcast.metrics.distribution import energy_distance


def test_scores_are_distances_averaged_over_contexts():
    """S003-16: `down` was measured in two contexts, `up` in three; only those count."""
    train, held = make_cells(), make_cells(seed=1)
    models = {name: registry.build(name).fit(train, seed=0) for name in ("no-change", "mean-shift", "quantile-map")}
    found = compare_models(models, held, seed=0)
    assert list(found.scores) == ["down", "up"]
    want = []
    for context in ("type0", "type1"):
        control = held.take(held.untreated & (held.context == context))
        true = held.take((held.condition == "down") & (held.context == context))
        want.append(energy_distance(y_true=as_log1p(true), y_pred=as_log1p(control)))
    assert_allclose(found.scores["down"]["no-change"], np.mean(want))
    assert "down" in found.against("quantile-map", "no-change")["wins"]


def test_wins_are_counted_by_condition():
    scores = Wins({"A": {"a": 1.0, "b": 2.0}, "B": {"a": 3.0, "b": 2.0}, "C": {"a": 1.0, "b": 1.0}})
    assert scores.against("a", "b") == {"wins": ["A"], "losses": ["B"]}
    assert scores.lines("a")[-1] == "a against b: 1 wins, 1 losses"
    assert scores.lines("a")[1].split() == ["A", "1", "2"]
    with pytest.raises(InputError, match=r"Unknown model 'c'"):
        scores.against("a", "c")


def test_nothing_to_compare_is_refused():
    cells = make_cells()
    model = registry.build("no-change").fit(cells, seed=0)
    with pytest.raises(InputError, match=r"No models were given"):
        compare_models({}, cells, seed=0)
    alone = cells.take(~cells.untreated)
    with pytest.raises(InputError, match=r"No context has untreated and perturbed cells .* 0 of them untreated"):
        compare_models({"none": model}, replace(alone), seed=0)
