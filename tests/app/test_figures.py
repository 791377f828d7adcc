"""Figures of the app: every number that is drawn is the one that was given."""

import numpy as np

from pertcast.app.figures import LABELLED, board_figure, curves_figure, labels, picked_figure, waterfall_figure
from pertcast.app.page_leaderboard import board_table, remarks
from pertcast.leaderboard import Board, Standing
from pertcast.predict import Forecast


def forecast(values):
    genes = tuple(f"G{k}" for k in range(len(values)))
    return Forecast("B cells", "CCO", None, "CCO", genes, np.array(values), (), None, (), True)


def standing(name, kind, score, run="", v_floor=0.0):
    return Standing(name, kind, run, score, score - 0.1, score + 0.2, None, v_floor)


BOARD = Board(
    "rows", "zeros", True,
    (
        standing("oracle", "ceiling", 0.5), standing("ridge", "model", 0.9, "ridge-aaaa1111", -0.1),
        standing("ridge", "model", 1.2, "ridge-bbbb2222", 0.2), standing("zeros", "floor", 1.0, "zeros-cccc3333"),
    ),
)  # fmt: skip


def test_curves_are_the_states_beside_the_unchanged_cell():
    share = np.linspace(0, 1, 4)
    perturbed, unperturbed = np.arange(8.0).reshape(4, 2), np.zeros((4, 2))
    figure = curves_figure(share, perturbed, unperturbed, ["A", "B"])
    assert [trace.name for trace in figure.data] == ["A", "A, unchanged cell", "B", "B, unchanged cell"]
    np.testing.assert_array_equal(figure.data[2].y, perturbed[:, 1])
    np.testing.assert_array_equal(figure.data[3].y, unperturbed[:, 1])
    assert figure.data[3].line.dash == "dash"


def test_the_waterfall_falls_and_names_its_ends():
    """Sorted by numpy; the outermost genes of each side, and no other, stand beside it by name."""
    values = np.random.default_rng(0).permutation(np.linspace(-3, 5, 41))
    *lines, bars = waterfall_figure(forecast(values)).data
    drawn = np.concatenate([trace.y for trace in lines])
    np.testing.assert_array_equal(drawn, np.sort(values)[::-1])
    order = np.argsort(-values)
    ends = [*order[:LABELLED], *order[-LABELLED:]]
    assert list(bars.y) == [f"G{k}" for k in ends]
    np.testing.assert_array_equal(bars.x, values[ends])
    hovered = dict(zip(np.concatenate([trace.text for trace in lines]), drawn, strict=True))
    assert hovered["G7"] == values[7]


def test_a_waterfall_of_few_genes_of_one_direction():
    *lines, bars = waterfall_figure(forecast([1.0, 2.0, 3.0])).data
    assert [len(trace.y) for trace in lines] == [3, 0]
    assert list(bars.y) == ["G2", "G0"]


def test_the_board_has_a_point_with_its_interval_for_every_line():
    figure = board_figure(BOARD)
    points = {
        (trace.name, name): (x, x - low, x + high)
        for trace in figure.data
        for name, x, low, high in zip(trace.y, trace.x, trace.error_x.arrayminus, trace.error_x.array, strict=True)
    }
    assert len(points) == 4
    np.testing.assert_allclose(points["model", "ridge (bbbb2222)"], (1.2, 1.1, 1.4))
    np.testing.assert_allclose(points["ceiling", "oracle"], (0.5, 0.4, 0.7))
    assert figure.layout.shapes[0].x0 == 1.0
    assert list(figure.layout.yaxis.categoryarray) == labels(BOARD)[::-1]


def test_a_model_below_its_floor_is_said_to_be():
    (best, lost) = remarks(BOARD)
    assert "the floor 'zeros'" in best
    assert lost == "ridge (bbbb2222) is worse than the floor 'zeros' by 0.2000."
    table = board_table(BOARD)
    assert list(table["MRRMSE"]) == [0.5, 0.9, 1.2, 1.0]
    assert list(table["kind"]) == ["ceiling", "model", "model", "floor"]


def test_the_picked_cell_is_marked_where_it_lies():
    figure = picked_figure(board_figure(BOARD), np.array([1.5, -2.0]))
    assert (figure.data[-1].x[0], figure.data[-1].y[0]) == (1.5, -2.0)
