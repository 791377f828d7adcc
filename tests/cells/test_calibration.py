"""How far t from generated cells can be trusted, on rows whose truth is planted."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.optimize import nnls
from scipy.stats import norm

from pertcast.cells import calibration
from pertcast.cells.calibration import Calibration, shared_by_types, with_expected_p
from pertcast.de.log10_p import signed_log10_p
from pertcast.types import Examples


def planted(n=1000, genes=100):
    """Responses in three directions; t has them times 1/2, 1 and 2, and noise everywhere. Half of the rows are weak."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(genes, 3)))[0].T  # (3, g)
    size = np.where(np.arange(n) % 2, 6.0, 0.05)
    scores = rng.choice([-1.0, 1.0], size=(n, 3)) * [9.0, 6.0, 3.0] * size[:, None]
    y = scores @ axes
    t = scores * [0.5, 1.0, 2.0] @ axes + 0.3 * rng.normal(size=(n, genes))
    return t, made(y, np.array(["a", "b", "c", "d"], dtype=object)[np.arange(n) // 2 % 4])


def made(y, cell_type, compound=None):
    """Training rows, each of a compound of its own where none is named."""
    compound = np.arange(len(y)).astype(str).astype(object) if compound is None else compound
    return Examples(np.arange(len(y)), cell_type, compound, tuple(f"g{j}" for j in range(y.shape[1])), y=y)


def rmse(y, prediction):
    return np.sqrt(np.square(y - prediction).mean(axis=1))


def test_every_direction_gets_its_own_gain():
    t, rows = planted()
    again = Calibration.of(t, rows, train=rows).apply(t, rows.cell_type)
    y = rows.y
    scale = (t * y).sum() / np.square(t).sum()
    strong = np.arange(len(t)) % 2 == 1
    assert rmse(y, again)[strong].mean() < 0.3 * rmse(y, scale * t)[strong].mean()  # one scale for all cannot


def test_weak_rows_are_held_back_and_strong_ones_are_not():
    """The noise of a row of nothing is 0.3 in all genes; it is left out, and strong rows keep their size."""
    t, rows = planted()
    found = Calibration.of(t, rows, train=rows)
    size = np.sqrt(np.square(found.apply(t, rows.cell_type)).mean(axis=1))
    strong = np.arange(len(t)) % 2 == 1
    assert np.abs(size / np.sqrt(np.square(rows.y).mean(axis=1)) - 1)[strong].max() < 0.15
    assert size[~strong].max() < 0.5 * 0.3


def test_gains_are_those_of_least_squares_on_equal_rows():
    """With many rows alike, pseudo-rows hardly count: scipy's non-negative least squares, direction by direction."""
    rng = np.random.default_rng(2)
    axes = np.linalg.qr(rng.normal(size=(40, 3)))[0].T
    scores = rng.choice([-1.0, 1.0], size=(4000, 3)) * [20.0, 18.0, 16.0]
    t, y = scores * [2.0, 1.0, -1.0] @ axes, scores @ axes
    rows = made(y, np.array(["a"] * 4000, dtype=object))
    found = Calibration.of(t, rows, train=rows)
    known = np.abs(found.axes[:3] @ axes.T).argmax(axis=1)
    expected = [nnls((t @ axes.T)[:, [k]], (y @ axes.T)[:, k])[0][0] for k in range(3)]
    assert_allclose(expected, [0.5, 1.0, 0.0], atol=1e-12)
    assert_allclose(found.gain[:3], np.array(expected)[known], atol=0.02)


def test_what_cell_types_share_is_told_from_what_compounds_do():
    """Planted: a type's own profile beside those of compounds; a row is counted by the inverse of its size."""
    rng = np.random.default_rng(0)
    own, of_compound = rng.normal(size=(3, 50)), rng.normal(size=(40, 50)) * np.repeat([0.1, 20.0], [36, 4])[:, None]
    types, compounds = np.repeat(np.arange(3), 40), np.tile(np.arange(40), 3)
    y = own[types] + of_compound[compounds]
    rows = made(y, np.array(["a", "b", "c"], dtype=object)[types], compounds.astype(str).astype(object))
    found = shared_by_types(rows, ("a", "b", "c"))
    assert_allclose(found[3], found[:3].mean(axis=0))
    apart = np.square(found[:3] - own).mean() / np.square(own).mean()
    plain = np.square([y[types == k].mean(axis=0) - own[k] for k in range(3)]).mean() / np.square(own).mean()
    assert apart < 0.3 * plain  # a mean has the strong compounds in it


def test_what_a_cell_type_shares_by_hand():
    """One type, three rows alike of three compounds: the row means are y; 3 / 13 of it, then what compounds leave."""
    y = np.full((3, 2), 6.0)
    rows = made(y, np.array(["a"] * 3, dtype=object))
    shared, compound = 0.0, 0.0
    for _ in range(5):
        shared = 3 * (6 - compound) / 13
        compound = (6 - shared) / 3
    assert_allclose(shared_by_types(rows, ("a",)), shared)


@pytest.mark.parametrize("t", [-6.0, -1.5, 0.0, 0.3, 1.0, 3.0, 12.0])
def test_the_p_value_is_the_expected_one(t):
    """By scipy's integral of signed -log10 p over a normal t; near 0 it is half as much again as that of the mean."""

    def signed(x):
        return -np.sign(x) * (np.log(2) + norm.logsf(abs(x))) / np.log(10)

    expected = quad(lambda x: signed(x) * norm.pdf(x - t), t - 9, t + 9, points=[0.0], limit=200)[0]
    found = signed_log10_p(with_expected_p(np.array([[t]])), np.inf)[0, 0]
    assert_allclose(found, expected, rtol=1.5e-2, atol=1e-3)
    if t == 0.3:
        assert expected > 1.5 * signed(t)


def test_what_is_said_too_loud_is_said_with_caution(monkeypatch):
    """One row in five is said with t of 6 and measures nothing: in t that is one error, in p-values a dear one."""
    rng = np.random.default_rng(3)
    sign, right = rng.choice([-1.0, 1.0], size=(300, 1)), np.arange(300)[:, None] % 5 > 0
    t = np.where(right, 2.0, 6.0) * sign + 0.5 * rng.normal(size=(300, 20))
    rows = made(np.where(right, 2.0, 0.0) * sign + rng.normal(size=(300, 20)), np.array(["a"] * 300, dtype=object))
    errors, loud = [], []
    for shares in (calibration.CAUTION, (1.0,)):
        monkeypatch.setattr(calibration, "CAUTION", shares)
        said = signed_log10_p(Calibration.of(t, rows, train=rows).apply(t, rows.cell_type), np.inf)
        errors.append(rmse(signed_log10_p(rows.y, np.inf), said).mean())
        loud.append(np.abs(said[::5]).mean())
    assert errors[0] < 0.97 * errors[1]
    assert loud[0] < 0.6 * loud[1]


@pytest.mark.parametrize("few", [1, 2])
def test_few_rows_do(few):
    t, rows = planted()
    given = rows.take(np.arange(few))
    assert np.isfinite(Calibration.of(t[:few], given, train=given).apply(t, rows.cell_type)).all()


def test_comes_back_from_its_parts():
    t, rows = planted()
    found = Calibration.of(t, rows, train=rows)
    again = Calibration.restored(*found.parts())
    assert_allclose(again.apply(t, rows.cell_type), found.apply(t, rows.cell_type), rtol=0)
