"""Entropic transport against exact transport by linear programming and by assignment."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist

from pertcast.cells.sinkhorn import transport_plan


def cost(n, m, seed=0):
    rng = np.random.default_rng(seed)
    return cdist(rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + 1, "sqeuclidean")


@pytest.mark.parametrize("shape", [(7, 11), (11, 7), (1, 5), (5, 1), (40, 60)])
@pytest.mark.parametrize("entropy", [0.3, 1.0, 100.0])
def test_marginals_are_met(shape, entropy):
    """Every cell of either side weighs the same, whatever the entropy."""
    plan = transport_plan(cost(*shape), entropy=entropy)
    assert (plan >= 0).all()
    assert_allclose(plan.sum(axis=1), 1 / shape[0], atol=1e-6)
    assert_allclose(plan.sum(axis=0), 1 / shape[1], atol=1e-6)


@pytest.mark.parametrize("shape", [(7, 11), (5, 9)])
def test_little_entropy_is_the_linear_program(shape):
    """The cheapest plan of scipy's linear program; entropy can only cost more, by at most entropy x log(n m)."""
    c = cost(*shape)
    n, m = shape
    rows = [np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))]
    best = linprog(c.ravel(), A_eq=np.vstack(rows), b_eq=np.repeat([1 / n, 1 / m], [n, m])).fun
    for entropy in (0.3, 0.03):
        got = (transport_plan(c, entropy=entropy) * c).sum()
        assert best - 1e-5 <= got <= best + entropy * np.log(n * m)
    assert got < 1.02 * best


def test_little_entropy_is_the_assignment():
    """Samples of one size: each cell goes to the cell that the cheapest assignment gives it."""
    c = cost(9, 9, seed=3)
    assert (transport_plan(c, entropy=0.02).argmax(axis=1) == linear_sum_assignment(c)[1]).all()


def test_much_entropy_is_independence():
    assert_allclose(transport_plan(cost(4, 5), entropy=1e6), np.full((4, 5), 1 / 20), rtol=1e-4)


def test_the_plan_is_optimal():
    """First-order condition: log plan + cost / entropy is a sum of a row's and a column's term."""
    c = cost(6, 8)
    dual = np.log(transport_plan(c, entropy=0.5)) + c / 0.5
    dual = dual - dual.mean(axis=0) - dual.mean(axis=1, keepdims=True) + dual.mean()
    assert_allclose(dual, 0, atol=1e-9)
