"""Cells at several times, and predictors asked about times that they never saw."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Ridge

from pertcast.errors import InputError
from pertcast.simulate.base import simulate_base
from pertcast.simulate.timecourse import (
    PENALTIES,
    NearestTime,
    SmoothRidge,
    TimeSplit,
    cell_times,
    evaluate_times,
    simulate_timecourse,
    split_times,
)


@pytest.fixture(scope="module")
def cells():
    return simulate_timecourse(8000, 10, seed=3)


def test_genes_follow_the_published_formula(cells):
    """S002-13, S002-15: expected counts are (g1 + g2^2) w t, cell by cell, at least 0.1."""
    for gene in cells.model.mechanistic:
        one, two = (cells.counts[:, cells.genes.index(parent)].astype(float) for parent in gene.parents)
        want = np.maximum(0.1, (one + two**2) * gene.mechanism.weight * cells.context.time)
        assert_allclose(cells.oracle().only(gene.name).mean[:, 0], want, rtol=1e-12)
    assert len(cells.model.mechanistic) == 2
    assert_array_equal(np.unique(cells.context.time, return_counts=True)[1], [1000] * 8)


def test_times_are_held_out_between_and_beyond():
    """S002-15: by hand for eight times."""
    assert split_times(np.arange(1.0, 9)) == TimeSplit((1.0, 2.0, 4.0, 5.0, 6.0), (3.0,), (7.0, 8.0))
    assert split_times(np.arange(5.0)) == TimeSplit((0.0, 1.0, 3.0), (2.0,), (4.0,))
    with pytest.raises(InputError, match="at least 5 distinct ones, got 4"):
        split_times(np.arange(4))


def test_unseen_times_are_predicted(cells):
    """S002-15: interpolation and extrapolation errors; smooth beats nearest beats no change, the oracle is exact."""
    errors = evaluate_times(cells)
    for part in ("interpolation", "extrapolation"):
        order = [errors[name][part].mse for name in ("oracle", "smooth-ridge", "nearest-time", "no-change")]
        assert order == sorted(order)
        assert order[0] == 0
        assert errors["smooth-ridge"][part].relative < 0.05
        assert errors["smooth-ridge"][part].correlation > 0.99
        assert errors["no-change"][part].relative == 1
    assert errors["smooth-ridge"]["extrapolation"].entries == 2 * 2000


def test_errors_equal_a_slow_computation(cells):
    """A predictor of ours that says 5 everywhere: its error is worked out from the truth."""

    class Five:
        def fit(self, parents, time, counts):
            assert set(time) == {1.0, 2.0, 4.0, 5.0, 6.0}  # held-out times never reach it
            return self

        def predict(self, parents, time):
            return np.full(len(parents), 5.0)

    got = evaluate_times(cells, predictors={"five": Five()})["five"]["interpolation"]
    rows = cells.context.time == 3
    truth = cells.oracle().only(*cells.model.names).mean[rows]
    assert_allclose(got.mse, np.mean([(5 - value) ** 2 for value in truth.ravel()]))
    assert np.isnan(got.correlation)


def test_the_ridge_is_scikit_learns():
    """Its penalty is that of the smallest generalised cross-validation error, found by a slow loop."""
    rng = np.random.default_rng(0)
    parents, time = rng.poisson(3, (200, 2)).astype(float), rng.uniform(0, 4, 200)
    y = rng.poisson((parents[:, 0] + 1) * (1 + time)).astype(float)
    one = np.column_stack([np.ones(200), parents])
    products = [one[:, i] * one[:, j] for i in range(3) for j in range(i, 3)]
    x = np.column_stack([column * time**power for column in products for power in (0, 1)])[:, 1:]
    x = (x - x.mean(0)) / x.std(0)

    def gcv(penalty):
        hat = x @ np.linalg.solve(x.T @ x + 200 * penalty * np.eye(x.shape[1]), x.T)
        rest = (y - y.mean()) - hat @ (y - y.mean())
        return rest @ rest / (199 - np.trace(hat)) ** 2

    best = min(PENALTIES, key=gcv)
    want = Ridge(200 * best).fit(x, y).predict(x)
    assert_allclose(SmoothRidge(1).fit(parents, time, y).predict(parents, time), np.maximum(0, want), rtol=1e-6)


def test_the_nearest_time_is_that_of_its_own_cells():
    """Two times with constant counts 2 and 9: asked at 1.4 and 4, it says 2 and 9."""
    time = np.repeat([1.0, 2.0], 20)
    parents = np.random.default_rng(0).poisson(2.0, (40, 2)).astype(float)
    fitted = NearestTime().fit(parents, time, np.where(time == 1, 2.0, 9.0))
    assert_allclose(fitted.predict(parents[:2], np.array([1.4, 4.0])), [2, 9], atol=1e-9)


def test_same_seed_same_cells():
    one, two, other = (simulate_timecourse(200, 5, seed=seed) for seed in (1, 1, 2))
    assert_array_equal(one.counts, two.counts)
    assert_array_equal(one.context.time, two.context.time)
    assert (one.counts != other.counts).any()


def test_what_cannot_be_is_refused(cells):
    with pytest.raises(InputError, match="2 genes are too few"):
        simulate_timecourse(100, 2, seed=1)
    with pytest.raises(InputError, match="3 cells are too few for 8 times"):
        simulate_timecourse(3, 5, seed=1)
    for times in ([1, 1], [-1.0, 2], [], [np.nan]):
        with pytest.raises(InputError, match="different numbers of at least 0"):
            cell_times(10, times, seed=1)
    with pytest.raises(InputError, match="no cell has the times 99"):
        evaluate_times(cells, split=TimeSplit((1.0,), (2.0,), (99.0,)))
    plain = simulate_base(100, 3, 0.8, seed=1)
    with pytest.raises(InputError, match="no gene has parents"):
        evaluate_times(plain, split=TimeSplit((0.0,), (0.0,), (0.0,)))
    with pytest.raises(InputError, match="Call `fit` first"):
        SmoothRidge().predict(np.zeros((1, 2)), np.zeros(1))
