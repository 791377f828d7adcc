"""Structural models: order, chains of mechanistic genes, the oracle given drawn parents, and what is refused."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from pertcast.errors import InputError
from pertcast.metrics.count_fit import fit_zinb
from pertcast.simulate.base import BaseSettings, base_plan
from pertcast.simulate.cells import Condition, SimulatedCells, draw_cells
from pertcast.simulate.equations import Hill, Linear, TimeDependent
from pertcast.simulate.mechanisms import MechanisticGene, StructuralModel
from pertcast.simulate.populations import plain_context

DOWN = MechanisticGene("down", ("up", "gene-0"), Linear((2.0, 0.5), intercept=1.0), 0.3, zero_inflation=0.1)
UP = MechanisticGene("up", ("gene-1",), Hill((1.0,), most=8.0, half=3.0), 0.2, zero_share=0.6)


@pytest.fixture(scope="module")
def model():
    """Build a chain gene-1 -> up -> down, named child first, so that the order has to be found."""
    return StructuralModel(base_plan(3, 0.8, seed=1, settings=BaseSettings()), (DOWN, UP))


def test_parents_are_drawn_before_children(model):
    assert model.genes == ("gene-0", "gene-1", "gene-2", "down", "up")
    assert [gene.name for gene in model.order] == ["up", "down"]


def test_the_oracle_is_given_the_parents_as_drawn(model):
    """S002-13, R22: mean and zeros by hand for one cell; parents that are mechanistic themselves count as drawn."""
    oracle = model.oracle(np.array([[4, 3, 9, 0, 5]]), plain_context(1))
    assert_allclose(oracle.parameters.mean[0, 3:], [1 + 2 * 5 + 0.5 * 4, 0.1 + 8 * 9 / (9 + 9)])
    assert_allclose(oracle.parameters.dispersion[0, 3:], [0.3, 0.2])
    assert_allclose(oracle.parameters.zero_inflation[0, 3], 0.1)
    assert_allclose(oracle.zero_probability[0, 4], 0.6)


def test_draws_follow_the_oracle(model):
    """Simulated, 60,000 cells: mean, and the distribution of probabilities of what was drawn, per scipy."""
    cells = draw_cells(model, 60_000, seed=2)
    oracle = cells.oracle()
    off = (cells.counts - oracle.mean).mean(0)
    assert (np.abs(off) < 4 * np.sqrt(oracle.variance.mean(0) / len(cells))).all()
    p = oracle.parameters
    own = cells.counts[:, 3]
    below = stats.nbinom(1 / p.dispersion[:, 3], 1 / (1 + p.dispersion[:, 3] * p.mean[:, 3]))
    u = np.random.default_rng(0).random(len(own))  # randomised probability integral transform: uniform if exact
    low = np.where(own > 0, 0.1 + 0.9 * below.cdf(own - 1), 0)
    transform = low + u * (0.1 + 0.9 * below.cdf(own) - low)
    assert stats.kstest(transform, "uniform").pvalue > 1e-3


def test_the_oracle_beats_every_independent_distribution(model):
    cells = draw_cells(model, 5000, seed=4)
    p = fit_zinb(cells.counts).tiled(5000)
    free = cells.oracle()
    alone = type(free)(free.genes, p, free.shift, free.fixed)
    for name in model.names:
        own = cells.counts[:, [model.genes.index(name)]]
        assert free.only(name).nll(own) < alone.only(name).nll(own) - 0.02


def test_time_enters_the_oracle():
    """S002-13: (g1 + g2^2) w t with g1 = 3, g2 = 2, w = 0.5 is 3.5 t."""
    base = base_plan(2, 0.8, seed=1, settings=BaseSettings())
    model = StructuralModel(base, (MechanisticGene("n", ("gene-0", "gene-1"), TimeDependent(0.5)),))
    counts = np.array([[3, 2, 0]] * 3)
    oracle = model.oracle(counts, plain_context(3, time=np.array([0.0, 1.0, 4.0])))
    assert_allclose(oracle.parameters.mean[:, 2], [0.1, 3.5, 14.0])


def test_json_there_and_back(model):
    again = StructuralModel.from_dict(json.loads(json.dumps(model.as_dict())))
    assert again == model
    assert_array_equal(draw_cells(again, 50, seed=1).counts, draw_cells(model, 50, seed=1).counts)
    with pytest.raises(InputError, match="format 99, this version reads 1"):
        StructuralModel.from_dict({**model.as_dict(), "format": 99})
    with pytest.raises(InputError, match="damaged"):
        StructuralModel.from_dict({**model.as_dict(), "mechanistic": [{"name": "x"}]})


def test_circles_strangers_and_namesakes_are_refused(model):
    circle = (MechanisticGene("a", ("b",), Linear((1.0,))), MechanisticGene("b", ("a",), Linear((1.0,))))
    with pytest.raises(InputError, match=r"in a circle: (a -> b -> a|b -> a -> b)"):
        StructuralModel(model.base, circle)
    with pytest.raises(InputError, match="'gene-9' is not among the 4; nearest: gene-"):
        StructuralModel(model.base, (MechanisticGene("a", ("gene-9",), Linear((1.0,))),))
    with pytest.raises(InputError, match="occur twice: gene-0"):
        StructuralModel(model.base, (MechanisticGene("gene-0", ("gene-1",), Linear((1.0,))),))
    with pytest.raises(InputError, match="takes 2 parents, 1 are named"):
        MechanisticGene("a", ("gene-0",), Linear((1.0, 2.0)))


def test_masked_parents_and_other_tables_are_refused(model):
    with pytest.raises(InputError, match=r"parents are masked \(NaN\)"):
        model.oracle(np.array([[1.0, 2, 3, np.nan, np.nan]]), plain_context(1))
    with pytest.raises(InputError, match=r"shape \(1, 3\), the model and its cells \(1, 5\)"):
        model.oracle(np.zeros((1, 3)), plain_context(1))


def test_conditions_are_certain_in_the_oracle(model):
    """R22: genes that a condition set have one value, and their children follow it."""
    cells = draw_cells(model, 4, seed=1)
    counts = cells.counts.copy()
    counts[2:, 1] = 3
    treated = SimulatedCells(
        counts, cells.context, model, (Condition("control"), Condition("x", {"gene-1": 3})), np.array([0, 0, 1, 1])
    )
    oracle = treated.oracle()
    assert_array_equal(np.isnan(oracle.fixed[:, 1]), [True, True, False, False])
    assert_allclose(oracle.parameters.mean[2:, 4], 0.1 + 8 * 9 / 18)
    _, entries = treated.log_likelihood_sum()
    assert entries == 4 * 5 - 2
    with pytest.raises(InputError, match="conditions together"):
        SimulatedCells(counts, cells.context, model, (Condition("control"),))
