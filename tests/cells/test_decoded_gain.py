"""Decoded means put right until drawn cells have the wanted log means, and draws whose sums are known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from cell_cases import make_cells
from pertcast.cells.count_shift import CountShift
from pertcast.cells.decoded_gain import SEARCHED, control_cells, find_gain, with_sums
from pertcast.cells.registry import build

N, G = 4000, 8


def poisson(rate, seed):
    return csr_array(np.random.default_rng(seed).poisson(rate, (N, G)).astype(np.float32))


def test_factors_are_those_that_were_planted():
    """Poisson counts of known rates: what the log means of drawn cells ask for is the log ratio of the rates."""
    rng = np.random.default_rng(0)
    rate, factor, total = rng.uniform(0.2, 3, G), rng.uniform(-1.5, 1.5, G), rng.uniform(500, 2000, N)
    before, after = poisson(rate, 1), poisson(rate * np.exp(factor), 2)
    log_mean = lambda x: np.log1p(x.toarray() / total[:, None] * 1e4).mean(axis=0)  # noqa: E731
    shift = log_mean(after) - log_mean(before)
    found = find_gain(lambda gain: poisson(rate * np.exp(gain), 3), before, total, shift, np.zeros(G))
    assert_allclose(found, factor, atol=0.2)
    assert_allclose(log_mean(poisson(rate * np.exp(found), 3)), log_mean(after), rtol=0.1)


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_sums_are_the_expected_ones(factor):
    """To a molecule; counts stay whole, and those of a gene that is right already stay as they are."""
    drawn = poisson(np.linspace(0.1, 4, G), 0)
    expected = drawn.toarray() * np.r_[1.0, np.full(G - 1, factor)]
    got = with_sums(drawn, csr_array(expected), np.ones(N), rng=np.random.default_rng(1)).toarray()
    assert (np.abs(got.sum(axis=0) - expected.sum(axis=0)) <= 1).all()
    assert_array_equal(got[:, 0], drawn.toarray()[:, 0])
    assert (np.sign(got - drawn.toarray()) * (factor - 1) >= 0).all()
    assert_array_equal(got, np.round(got))


def test_cells_that_means_are_told_by():
    """Of the context alone, few of them several times over; of all contexts where it has none."""
    cells = make_cells(cells=240, genes=240)
    known = CountShift.of(cells)
    own = control_cells(known, "type0", batch="plate1")
    assert set(own.context) == {"type0"}
    assert set(own.batch) == {"plate1"}
    assert SEARCHED[0] <= len(own) <= SEARCHED[1]
    rows = {row.tobytes() for row in cells.x[cells.untreated & (cells.context == "type0")].toarray()}
    assert {row.tobytes() for row in own.x.toarray().astype(np.float32)} == rows
    assert set(control_cells(known, "elsewhere", batch="plate0").context) == {"type0", "type1", "type2"}


def test_the_vae_meets_the_transferred_means():
    """Mean log values of drawn cells in a context where `down` was never measured, all genes that the network sees."""
    cells = make_cells(cells=1500, genes=240)
    model = build("zinb-vae", {"hidden": 16, "latent": 4, "most_genes": 60, "training": {"epochs": 5}}).fit(
        cells, seed=0
    )
    control = cells.take(cells.untreated & (cells.context == "type2"))
    total = control.x.sum(axis=1)[:, None]
    log_mean = lambda x: np.log1p(x.toarray()[:, model.rest.chosen] / total * 1e4).mean(axis=0)  # noqa: E731
    made = model.predict(control, "down", seed=0, sample=True)
    want = model.rest.shift.means.shift("down", "type2")[model.rest.chosen]
    got = log_mean(made.x) - log_mean(control.x)
    assert np.sqrt(np.mean((got - want) ** 2)) < 0.25 * np.sqrt(np.mean(want**2))
