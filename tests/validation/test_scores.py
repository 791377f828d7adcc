"""The score table, worked by hand: means, differences to the best floor, parts, order, verdicts."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pertcast.errors import InputError
from pertcast.validation.scores import Scored, make_table, score_rows

COMPOUND = np.array(["a", "a", "b", "b"], dtype=object)
PARTS = {"T": np.array([True, True, False, False]), "fold-0": np.array([True, False, True, False])}


def scored(name, kind, *rmse):
    return Scored(name, kind, np.array(rmse))


@pytest.fixture
def table():
    rows = [
        scored("zeros", "floor", 2.0, 2.0, 4.0, 4.0),  # 3
        scored("gene-mean", "floor", 2.0, 2.0, 3.0, 3.0),  # 2.5, the best floor
        scored("good", "model", 1.0, 2.0, 2.0, 2.0),  # 1.75
        scored("bad", "model", 3.0, 3.0, 3.0, 3.0),  # 3
        scored("oracle", "ceiling", 1.0, 1.0, 1.0, 1.0),
    ]
    return make_table("by hand", rows, compound=COMPOUND, parts={**PARTS, "empty": np.zeros(4, bool)})


def test_scores_and_differences_by_hand(table):
    """S004-14: model minus best floor, row by row, in every line."""
    assert table.best_floor == "gene-mean"
    assert {line.name: line.mrrmse for line in table.lines} == {
        "zeros": 3.0, "gene-mean": 2.5, "good": 1.75, "bad": 3.0, "oracle": 1.0,
    }  # fmt: skip
    assert {line.name: line.v_floor for line in table.lines} == {
        "zeros": 0.5, "gene-mean": 0.0, "good": -0.75, "bad": 0.5, "oracle": -1.5,
    }  # fmt: skip


def test_the_interval_is_of_paired_differences(table):
    """Good: differences -1 0 -1 -1, so means by compound -0.5 and -1; draws of two compounds reach just these."""
    good = table.line("good")
    assert (good.v_floor_low, good.v_floor_high) == (-1.0, -0.5)
    assert (good.low, good.high) == (1.5, 2.0)
    floor = table.line("gene-mean")
    assert (floor.v_floor_low, floor.v_floor_high) == (0.0, 0.0)
    assert good.v_floor_high < good.high - floor.low  # what intervals of the two scores alone would allow


def test_parts_by_hand(table):
    """Cell types and folds; a part without rows is left out."""
    assert table.columns == ("T", "fold-0")
    assert table.line("good").parts == {"T": 1.5, "fold-0": 1.5}
    assert table.line("zeros").parts == {"T": 2.0, "fold-0": 3.0}


def test_ceiling_first_then_models_then_floors_best_first(table):
    assert [line.name for line in table.lines] == ["oracle", "good", "bad", "gene-mean", "zeros"]


def test_a_model_below_a_floor_is_said_to_be_so(table):
    """Only models, only worse ones; a floor that is worse than the best is no news."""
    assert table.verdicts() == ["bad is worse than the floor 'gene-mean' by 0.5000 (interval +0.0000 to +1.0000)."]


def test_a_line_may_be_added(table):
    more = table.with_scored(scored("blend", "model", 1.0, 1.0, 2.0, 2.0))
    assert more.line("blend").v_floor == -1.0
    assert len(more.lines) == len(table.lines) + 1
    for line in table.lines:
        assert more.line(line.name) == line
    better = table.with_scored(scored("additive", "floor", 1.0, 1.0, 1.5, 1.5))
    assert (better.best_floor, better.line("good").v_floor) == ("additive", 0.5)


def test_a_table_without_a_floor_is_refused():
    with pytest.raises(InputError, match="at least one floor beside the models, got none"):
        make_table("none", [scored("good", "model", 1.0)], compound=COMPOUND[:1], parts={})


def test_rows_are_scored_by_the_metric():
    """By hand: errors (3, 3) and (0, 4) have the row-wise RMSE 3 and sqrt(8); the second row correlates fully."""
    y = np.array([[1.0, 2.0], [1.0, 5.0]])
    row = score_rows("x", "model", y_true=y, y_pred=y + np.array([[3.0, 3.0], [0.0, 4.0]]), note="why")
    assert_allclose(row.rmse, [3.0, np.sqrt(8.0)])
    assert_allclose(row.pearson, [1.0, 1.0])
    assert row.note == "why"


def test_as_plain_data(table):
    """What --json prints: everything a line holds, and the verdicts."""
    data = json.loads(json.dumps(table.as_dict(), allow_nan=False))
    assert data["best_floor"] == "gene-mean"
    assert data["verdicts"] == table.verdicts()
    line = next(line for line in data["lines"] if line["name"] == "good")
    assert (line["kind"], line["mrrmse"], line["v_floor"], line["parts"]["T"]) == ("model", 1.75, -0.75, 1.5)


def test_paired_comparison_by_hand(table):
    """Good minus bad: -2 -1 -1 -1; by compound -1.5 and -1, by cell type -2 and -1 (three rows); best first."""
    kinds = np.array(["T", "B", "B", "B"], dtype=object)
    (found,) = table.paired("bad", kinds)
    assert (found.name, found.difference) == ("good", -1.25)
    assert found.over_compounds == (-1.5, -1.0)
    assert found.over_cell_types == (-2.0, -1.0)
    assert found.text().startswith("good minus bad: -1.2500 (95 % interval -1.5000 to -1.0000 over compounds, -2.0000")
    assert [one.name for one in table.paired("gene-mean", kinds)] == ["good", "bad"]
