"""Pictures: whole files, the same bytes twice, and what they draw read back from the axes."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from cases import make_question
from pertcast.errors import InputError
from pertcast.report import pictures
from pertcast.validation.scores import make_table, score_rows
from pertcast.workflow import Scope


def report(compounds=6, title="MRRMSE of rows", folds=2, model="model"):
    rng = np.random.default_rng(0)
    n = 4 * compounds
    compound = np.array([f"compound {k % compounds}" for k in range(n)], dtype=object)
    y = rng.normal(size=(n, 30))
    scored = [
        score_rows("zeros", "floor", y_true=y, y_pred=np.zeros_like(y)),
        score_rows(model, "model", y_true=y, y_pred=0.5 * y),
        score_rows("oracle", "ceiling", y_true=y, y_pred=0.9 * y),
    ]
    parts = {f"fold-{k}": np.arange(n) % folds == k for k in range(folds)}
    table = make_table(title, scored, compound=compound, parts=parts)
    return table, Scope(compound, np.array(["B cells"] * n, dtype=object), y, 0.5 * y)


@pytest.mark.parametrize(
    "shape", [{}, {"compounds": 1}, {"compounds": 200, "folds": 24}, {"title": "very long " * 30, "model": "m" * 60}]
)
def test_a_report_is_a_whole_picture_and_the_same_twice(tmp_path, shape):
    """Same scores, same bytes: no date, no version in the file. Long names and titles do not break it."""
    table, scope = report(**shape)
    for name in ("one.png", "two.png"):
        pictures.draw_report(tmp_path / name, table, scope)
    data = (tmp_path / "one.png").read_bytes()
    assert data == (tmp_path / "two.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.endswith(b"IEND\xaeB`\x82")
    assert b"Software" not in data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_nothing_half_drawn_is_left(tmp_path):
    table, scope = report()
    with pytest.raises(InputError, match="report.png' cannot be written: .* Its folder does not exist"):
        pictures.draw_report(tmp_path / "nowhere" / "report.png", table, scope)
    (tmp_path / "report.png").write_bytes(b"old")
    broken = Scope(scope.compound[:3], scope.cell_type, scope.y_true, scope.y_pred)
    with pytest.raises(ValueError):
        pictures.draw_report(tmp_path / "report.png", table, broken)
    assert [path.name for path in tmp_path.iterdir()] == ["report.png"]
    assert (tmp_path / "report.png").read_bytes() == b"old"


def test_the_table_is_drawn_as_it_stands():
    """Every line's score and interval, best at the top, and the best floor as a dashed line."""
    table, scope = report()
    left, *_ = pictures.report_figure(table, scope).axes
    ticks = dict(zip([t.get_text() for t in left.get_yticklabels()], left.get_yticks(), strict=True))
    assert sorted(ticks, key=ticks.get, reverse=True) == ["oracle", "model", "zeros"]
    drawn = {}
    for line in left.lines:
        x, y = line.get_xdata(), line.get_ydata()
        if len(x) == 2 and y[0] == y[1]:
            drawn[y[0]] = tuple(x)
    for line in table.lines:
        assert drawn[ticks[line.name]] == (line.low, line.high)
    dashed = [line.get_xdata()[0] for line in left.lines if line.get_linestyle() == "--"]
    assert dashed == [table.line("zeros").mrrmse]
    assert table.title in left.get_title()


def test_long_names_stay_in_their_panel():
    """Names are cut and titles broken, or one of them would squeeze everything else."""
    table, scope = report(title="very long " * 30, model="m" * 60)
    left, *_ = pictures.report_figure(table, scope).axes
    assert max(len(t.get_text()) for t in left.get_yticklabels()) <= 36
    assert max(map(len, left.get_title().splitlines())) <= pictures.TITLE_WIDTH


def test_compounds_are_drawn_worst_first():
    """Against a loop: the forty compounds with the largest mean error."""
    rng = np.random.default_rng(1)
    compound = np.array([f"c{k:02d}" for k in rng.integers(60, size=300)], dtype=object)
    errors = rng.gamma(2.0, size=300)
    axes = Figure().subplots()
    pictures.draw_compounds(axes, errors, compound)
    means = {name: errors[compound == name].mean() for name in set(compound)}
    expected = sorted(means, key=means.get, reverse=True)[: pictures.MOST_COMPOUNDS]
    assert [t.get_text() for t in axes.get_yticklabels()] == expected
    dots, ticks = axes.lines
    assert len(dots.get_xdata()) == np.isin(compound, expected).sum()
    assert_allclose(ticks.get_xdata(), [means[name] for name in expected])


def test_the_row_of_median_error_is_drawn():
    """Measured against predicted, on one scale."""
    table, scope = report()
    errors = np.sqrt(((scope.y_true - scope.y_pred) ** 2).mean(1))
    right = pictures.report_figure(table, scope).axes[2]
    row = int(np.flatnonzero(np.isclose(errors, np.sort(errors)[len(errors) // 2]))[0])
    assert_allclose(right.lines[0].get_ydata(), scope.y_true[row])
    assert_allclose(right.lines[0].get_xdata(), scope.y_pred[row])
    assert scope.compound[row] in right.get_title()
    assert right.get_xlim() == right.get_ylim()


def test_pairs_are_drawn_where_they_belong():
    """Measured, asked for, neither: a pixel each, against the question's own pairs."""
    question, _ = make_question(types=3, compounds=5, asked=2)
    axes = Figure().subplots()
    pictures.draw_pairs(axes, question)
    image = np.asarray(axes.images[0].get_array())
    white = (image == 1).all(axis=2)
    assert image.shape[:2] == (3, 5)
    assert not white.any()  # 15 pairs: 13 measured, 2 asked for
    yellow = (image[:, :, 2] < 0.25) & (image[:, :, 0] > 0.9)
    assert yellow.sum() == 2
    types = [t.get_text() for t in axes.get_yticklabels()]
    assert types[np.flatnonzero(yellow.any(axis=1))[0]] == question.target_types[0]


def test_strength_and_agreement_are_drawn(tmp_path):
    """Strongest group first; responses to one compound agree more than responses to two, as planted."""
    question, _ = make_question()
    strength = np.sqrt((question.y**2).mean(1))
    left, right = Figure().subplots(1, 2)
    pictures.draw_strength(left, strength, question.compound)
    names = [t.get_text() for t in left.get_xticklabels()]
    means = [strength[question.compound == name].mean() for name in names]
    assert means == sorted(means, reverse=True)
    pictures.draw_agreement(right, question)
    different, alike = (float(t.get_text().split("mean ")[1][:-1]) for t in right.get_legend().get_texts())
    assert alike > different + 0.3
