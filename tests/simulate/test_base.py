"""Cells of independent genes: the published draws, and what the wider simulator promises."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from pertcast.errors import InputError
from pertcast.metrics.count_fit import fit_zinb
from pertcast.simulate.base import BaseSettings, base_plan, simulate_base
from pertcast.simulate.cells import draw_cells
from pertcast.simulate.mechanisms import StructuralModel
from pertcast.simulate.populations import BasePlan

MEANS = [
    4.371, 9.556, 7.588, 6.388, 2.404, 2.404, 1.523, 8.796, 6.410, 7.373,
    1.185, 9.729, 8.492, 2.911, 2.636, 2.651, 3.738, 5.723, 4.888, 3.621,
]  # fmt: skip


@pytest.fixture(scope="module")
def published():
    return simulate_base(10_000, 20, 0.8, seed=42, fixture=True)


def test_the_fixture_is_the_published_benchmark(published):
    """S002-01: zero share, means, and the ranges of dispersion and zero inflation as printed."""
    plan = published.model.base
    assert round(published.zero_share, 4) == 0.7997
    assert_allclose(plan.means[0], MEANS, atol=5.1e-4)
    assert_allclose([plan.dispersion.min(), plan.dispersion.max()], [0.570, 1.948], atol=5e-4)
    assert_allclose([plan.zero_inflation.min(), plan.zero_inflation.max()], [0.601, 0.790], atol=5e-4)
    assert_array_equal(np.flatnonzero(published.counts[0]), [10, 13, 14, 16])
    assert_array_equal(published.counts[0, [10, 13, 14, 16]], [4, 3, 2, 2])


def test_the_fixture_is_the_published_procedure_draw_by_draw():
    """S002-01: the slow procedure through the global generator gives the same bytes."""
    np.random.seed(7)  # noqa: NPY002
    means, dispersions = np.random.uniform(1, 10, 3), np.random.uniform(0.5, 2, 3)  # noqa: NPY002
    wanted = np.zeros((50, 3), int)
    for j in range(3):
        r = 1 / dispersions[j]
        p = r / (r + means[j])
        drop = np.clip((0.8 - p**r) / (1 - p**r), 0, 1)
        wanted[:, j] = np.random.negative_binomial(r, p, 50)  # noqa: NPY002
        wanted[np.random.binomial(1, drop, 50) == 1, j] = 0  # noqa: NPY002
    assert_array_equal(simulate_base(50, 3, 0.8, seed=7, fixture=True).counts, wanted)


def test_the_global_generator_is_left_alone():
    """S002-01: only a generator of its own is used."""
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    simulate_base(20, 3, 0.8, seed=42, fixture=True)
    assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_likelihood_at_the_truth(published):
    """S002-03, R18: 1.0275 nats, which the wrong convention (its inverse) misses by far."""
    assert_allclose(published.nll(), 1.0275, atol=1e-3)
    plan = published.model.base
    wrong = BasePlan(plan.genes, plan.means, 1 / plan.dispersion, plan.zero_inflation, plan.batch_effect)
    assert StructuralModel(wrong).oracle(published.counts, published.context).nll(published.counts) > 1.04


def test_the_fast_mode_has_the_wanted_zeros_and_recoverable_parameters():
    """S002-04, R18: simulate, fit and compare in one unit. Simulated, 20,000 cells."""
    cells = simulate_base(20_000, 30, 0.8, seed=3)
    assert_allclose(cells.zero_share, 0.8, atol=2e-3)
    plan, fitted = cells.model.base, fit_zinb(cells.counts)
    assert np.mean((fitted.mean - plan.means[0]) ** 2) < 0.1
    assert np.mean((fitted.dispersion - plan.dispersion) ** 2) < 0.05
    assert np.mean((fitted.zero_inflation - plan.zero_inflation) ** 2) < 5e-4


def test_populations_differ_in_a_share_of_genes_by_the_fold_change():
    """S002-12: labels returned; sample means of each population follow its own means."""
    settings = BaseSettings(populations=3, changed_share=0.25, log_fold_change=1.0)
    cells = simulate_base(60_000, 20, 0.8, seed=4, settings=settings)
    plan, population = cells.model.base, cells.context.population
    assert_array_equal(np.bincount(population), [20_000] * 3)
    changes = np.log(plan.means[1:] / plan.means[0])
    assert_allclose(np.abs(changes[np.abs(changes) > 1e-12]), 1.0)
    assert_array_equal((np.abs(changes) > 1e-12).sum(1), [5, 5])
    for k in range(3):
        want = plan.means[k] * (1 - plan.zero_inflation)
        assert_allclose(cells.counts[population == k].mean(0), want, rtol=0.12)
    assert_allclose(cells.zero_share, 0.8, atol=2e-3)


def test_library_sizes_scale_means_and_zeros_are_still_met():
    """Zero inflation is solved for over the log-normal library sizes, whose mean is 1."""
    cells = simulate_base(60_000, 10, 0.8, seed=5, settings=BaseSettings(library_sd=0.8))
    library = cells.context.library
    assert_allclose(library.mean(), 1, atol=0.02)
    assert_allclose(np.log(library).std(), 0.8, atol=0.01)
    assert_allclose((cells.counts == 0).mean(0), 0.8, atol=0.006)
    assert np.corrcoef(library, cells.counts.sum(1))[0, 1] > 0.5


def test_an_additive_batch_adds_counts_to_half_of_the_cells():
    """S002-16: the published effect is +10 on half of the cells; the oracle knows it."""
    cells = simulate_base(2000, 10, 0.8, seed=6, settings=BaseSettings(batches=2))
    batch = cells.context.batch
    assert_array_equal(np.bincount(batch), [1000, 1000])
    assert cells.counts[batch == 1].min() == 10
    assert cells.counts[batch == 0].min() == 0
    without = simulate_base(2000, 10, 0.8, seed=6)
    assert_array_equal(cells.counts - 10 * batch[:, None], without.counts)
    assert_allclose(cells.nll(), without.nll(), rtol=1e-12)


def test_a_multiplicative_batch_scales_the_mean_of_each_gene():
    """S002-16: factors of the second batch, recovered as ratios of sample means."""
    settings = BaseSettings(batches=2, batch_kind="multiplicative", dispersion_range=(0.1, 0.2))
    cells = simulate_base(80_000, 6, 0.8, seed=7, settings=settings)
    batch, plan = cells.context.batch, cells.model.base
    assert_array_equal(plan.batch_effect[0], 1)
    got = cells.counts[batch == 1].mean(0) / cells.counts[batch == 0].mean(0)
    assert_allclose(got, plan.batch_effect[1], rtol=0.08)
    assert np.abs(np.log(plan.batch_effect[1])).max() > 0.1


def test_tables_and_draws_follow_the_same_distribution(monkeypatch):
    """R18: few cells are drawn, many are looked up; both have scipy's probabilities, batches and populations apart."""
    settings = BaseSettings(populations=2, batches=2, batch_kind="multiplicative")
    plan = base_plan(4, 0.8, seed=1, settings=settings)
    for most in (0, 1 << 20):
        monkeypatch.setattr("pertcast.simulate.populations.MOST", most)
        cells = draw_cells(StructuralModel(plan), 80_000, seed=1)
        oracle = cells.oracle()
        for gene in range(4):
            seen = np.bincount(np.minimum(cells.counts[:, gene], 5), minlength=6)
            one = oracle.pmf(plan.genes[gene], np.arange(5)).mean(0)
            want = 80_000 * np.append(one, 1 - one.sum())
            assert stats.chisquare(seen, want * 80_000 / want.sum()).pvalue > 1e-4


def test_same_seed_same_bytes_sparse_or_dense():
    """R38: several blocks of cells, each with a stream of its own."""
    settings = BaseSettings(populations=2, batches=2, library_sd=0.3, clip=True)
    plan = base_plan(2500, 0.8, seed=1, settings=settings)
    one, two = (draw_cells(StructuralModel(plan), 3000, seed=1) for _ in range(2))
    thin = draw_cells(StructuralModel(plan), 3000, seed=1, as_sparse=True)
    other = draw_cells(StructuralModel(plan), 3000, seed=2)
    assert_array_equal(one.counts, two.counts)
    assert_array_equal(one.counts, thin.dense)
    assert (one.counts != other.counts).any()
    assert thin.counts.has_canonical_format
    assert thin.zero_share == one.zero_share


def test_likelihood_in_blocks_equals_the_likelihood_at_once(monkeypatch):
    cells = simulate_base(300, 7, 0.8, seed=8, settings=BaseSettings(populations=2), as_sparse=True)
    monkeypatch.setattr("pertcast.simulate.cells.ORACLE_ENTRIES", 70)
    assert_allclose(cells.nll(), cells.oracle().nll(cells.dense), rtol=1e-12)


def test_clipping_leaves_genes_with_more_zeros():
    """As published: zero inflation 0 where the mean allows no fewer zeros; else one message."""
    with pytest.raises(InputError, match="allow clipping"):
        simulate_base(100, 20, 0.3, seed=1)
    plan = base_plan(20, 0.3, seed=1, settings=BaseSettings(clip=True))
    assert 0 < (plan.zero_inflation == 0).sum() < 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, 0.8), "cells must be at least 1, got 0"),
        ((5, 0, 0.8), "genes must be at least 1, got 0"),
        ((5, 5, 1.0), "at least 0 and below 1"),
    ],
)
@pytest.mark.parametrize("fixture", [True, False])
def test_sizes_that_cannot_be_are_refused(arguments, message, fixture):
    with pytest.raises(InputError, match=message):
        simulate_base(*arguments, seed=1, fixture=fixture)


def test_settings_name_all_faults_at_once():
    with pytest.raises(InputError, match=r"(?s)3 problems.*mean range.*populations.*library sd"):
        BaseSettings(mean_range=(3, 1), populations=0, library_sd=-1)
    with pytest.raises(InputError, match="fixture has fixed settings"):
        simulate_base(10, 2, 0.8, seed=1, fixture=True, settings=BaseSettings(populations=2))
    with pytest.raises(InputError, match=r"2 problems.*\n.*batch kind 'odd'.*\n.*sd of the log"):
        BasePlan(("a",), np.ones((1, 1)), np.ones(1), np.zeros(1), np.zeros((1, 1)), "odd", -1.0)
    with pytest.raises(InputError, match="Seed must be at least 0"):
        simulate_base(10, 2, 0.8, seed=-1)
