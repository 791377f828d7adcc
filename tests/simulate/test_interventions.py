"""Perturbed cells: what is set, what follows, and the oracle recomputed through the equations."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pertcast.errors import InputError
from pertcast.simulate.base import BaseSettings, base_plan, simulate_base
from pertcast.simulate.cells import draw_cells
from pertcast.simulate.equations import Linear, Threshold
from pertcast.simulate.interventions import Do, Levels, default_target, drug, intervene, perturbation_grid
from pertcast.simulate.mechanisms import MechanisticGene, StructuralModel
from pertcast.simulate.planted import add_mechanistic_gene, with_mechanistic_gene
from pertcast.simulate.populations import plain_context

SLOPE = 0.4362661571179256  # published weight of gene 1


@pytest.fixture(scope="module")
def published():
    cells = simulate_base(10_000, 20, 0.8, seed=42, fixture=True)
    return with_mechanistic_gene(cells, add_mechanistic_gene(cells.counts))


@pytest.fixture(scope="module")
def chain():
    """gene-0 -> up -> down: every name is told apart by its weights."""
    base = base_plan(3, 0.8, seed=1, settings=BaseSettings())
    up = MechanisticGene("up", ("gene-0", "gene-1"), Linear((2.0, -1.0)), 0.1)
    down = MechanisticGene("down", ("up",), Linear((3.0,), intercept=1.0), 0.1)
    model = StructuralModel(base, (up, down))
    return model, draw_cells(model, 2000, seed=2)


def test_the_published_true_curve(published):
    """S002-08, S002-09, R17: gene 1, reference cell 0, values 0 to 29; flat through 11, then rising by the weight."""
    grid = perturbation_grid(published.model, published.counts, {"gene-1": Levels(0, 30, 1)})
    curve = grid.curve("mechanistic")
    assert_allclose(curve, np.maximum(0.1, -4.825075753718406 + SLOPE * np.arange(30)), atol=1e-9)
    assert_array_equal(curve[:12], 0.1)
    assert_allclose(np.round(curve[[12, 29]], 2), [0.41, 7.83])
    assert_array_equal(grid.curve("gene-1"), np.arange(30))
    assert_array_equal(grid.values[:, 0], np.arange(30))
    assert (grid.perturbed, set(grid.source)) == (("gene-1",), {0})


def test_the_observed_value_is_masked_or_drawn_anew_never_copied(published):
    """S002-08, S002-09: what was measured before the intervention is no longer so."""
    at = {"gene-14": Levels(0, 40, 1)}
    hidden = perturbation_grid(published.model, published.counts, at, references=range(50))
    assert np.isnan(hidden.counts[:, -1]).all()
    assert not np.isnan(hidden.counts[:, :-1]).any()
    poisoned = published.counts.copy()
    poisoned[:, -1] = 777
    anew = perturbation_grid(published.model, poisoned, at, references=range(50), observed="resimulate")
    assert anew.counts[:, -1].max() < 300
    assert_array_equal(anew.drawn, hidden.drawn)
    assert_allclose(anew.counts[:, -1].mean(), anew.oracle.mean[:, -1].mean(), rtol=0.1)
    assert_array_equal(np.delete(anew.counts, [14, 20], 1), np.delete(published.counts[anew.source], [14, 20], 1))


def test_gene_zero_is_a_gene(published):
    """R19, S002-09: by position and by name."""
    first = perturbation_grid(published.model, published.counts, {0: Levels(5, 8)})
    named = perturbation_grid(published.model, published.counts, {"gene-0": Levels(5, 8)})
    assert first.perturbed == named.perturbed == ("gene-0",)
    assert_array_equal(first.counts[:, 0], [5, 6, 7])
    assert_array_equal(first.drawn, named.drawn)


def test_the_default_gene_has_the_smallest_or_the_largest_weight(published):
    """S002-09: suppress takes gene 8, activate gene 14."""
    down = perturbation_grid(published.model, published.counts, Levels(0, 4))
    up = perturbation_grid(published.model, published.counts, Levels(0, 4), effect="activate")
    assert (down.perturbed, up.perturbed) == (("gene-8",), ("gene-14",))
    assert (np.diff(up.curve("mechanistic")) >= 0).all()
    with pytest.raises(InputError, match="neither 'suppress' nor 'activate'"):
        default_target(published.model, "boost")
    with pytest.raises(InputError, match="Name a gene"):
        default_target(StructuralModel(published.model.base), "suppress")


def test_several_genes_and_references_make_a_grid(published):
    """S002-09: references x values of the first x values of the second, the last one fastest."""
    levels = {"gene-2": Levels(0, 5, 2), 4: Levels(10, 12)}
    grid = perturbation_grid(published.model, published.counts, levels, references=[7, 3])
    want = [[a, b] for a in (0, 2, 4) for b in (10, 11)]
    assert_array_equal(grid.values, want * 2)
    assert_array_equal(grid.source, np.repeat([7, 3], 6))
    assert_array_equal(grid.counts[:, [2, 4]], grid.values)
    weights = np.array(published.model.mechanistic[0].mechanism.weights)
    assert_allclose(grid.curve("mechanistic"), np.maximum(0.1, grid.counts[:, :20] @ weights), rtol=1e-12)


def test_descendants_are_drawn_anew_and_the_oracle_follows_what_was_drawn(chain):
    """R22: do(gene-0 = 6) moves up, and down through up; by hand from the drawn values."""
    model, cells = chain
    done = intervene(model, cells.counts, Do(set={"gene-0": 6}), seed=3)
    assert_array_equal(done.counts[:, 0], 6)
    assert_array_equal(done.counts[:, 1:3], cells.counts[:, 1:3])
    mean = done.oracle.parameters.mean
    assert_allclose(mean[:, 3], np.maximum(0.1, 12 - cells.counts[:, 1]))
    assert_allclose(mean[:, 4], 1 + 3 * done.drawn[:, 3])
    again, own = model.oracle(done.drawn, cells.context).only("up", "down"), done.drawn[:, 3:]
    assert_allclose(done.oracle.only("up", "down").nll(own), again.nll(own))
    stale = cells.oracle().only("up").nll(done.drawn[:, [3]])
    assert done.oracle.only("up").nll(done.drawn[:, [3]]) < stale - 0.5


def test_setting_a_mechanistic_gene_cuts_it_off_from_its_parents(chain):
    """R22: do(up = 5) leaves gene-0 alone, and down has mean 1 + 3 * 5 in every cell."""
    model, cells = chain
    done = intervene(model, cells.counts, Do(set={"up": 5}), seed=3, observed="mask")
    assert_array_equal(done.counts[:, 3], 5)
    assert np.isnan(done.counts[:, 4]).all()
    assert_allclose(done.oracle.parameters.mean[:, 4], 16)
    assert_array_equal(done.oracle.pmf("up", np.array([4, 5]))[0], [0, 1])
    assert_allclose(done.oracle.pmf("down", np.arange(400)).sum(1), 1, rtol=1e-9)


def test_a_gene_may_be_set_in_some_cells_only(chain):
    """R22: where it is free it is drawn, and masked; where it is set its children follow."""
    model, cells = chain
    values = np.where(np.arange(2000) < 500, 7.0, np.nan)
    done = intervene(model, cells.counts, Do(set={"up": values}), seed=3, observed="mask")
    assert_array_equal(done.counts[:500, 3], 7)
    assert np.isnan(done.counts[500:, 3]).all()
    assert_allclose(done.oracle.parameters.mean[:500, 4], 22)
    assert_allclose(done.oracle.parameters.mean[500:, 4], 1 + 3 * done.drawn[500:, 3])


def test_a_drug_adds_ten_to_every_gene(chain):
    """S002-10, R22: counts below 10 become impossible; descendants follow the shifted parents, then shift."""
    model, cells = chain
    done = intervene(model, cells.counts, drug(model.genes, add=10), seed=4)
    assert_array_equal(done.counts[:, :3], cells.counts[:, :3] + 10)
    assert done.counts.min() == 10
    assert_allclose(done.oracle.parameters.mean[:, 3], np.maximum(0.1, 2 * done.counts[:, 0] - done.counts[:, 1]))
    assert_array_equal(done.oracle.pmf("gene-0", np.arange(10)), 0)
    assert_allclose(done.oracle.mean[:, :3], cells.oracle().mean[:, :3] + 10)
    assert np.isfinite(done.oracle.log_likelihood(done.drawn)).all()
    assert_allclose(done.oracle.only("gene-0", "gene-1").nll(done.drawn[:, :2]),
                    cells.oracle().only("gene-0", "gene-1").nll(cells.counts[:, :2]))  # fmt: skip


def test_a_drug_that_scales_means(chain):
    """R22: a scaled gene is drawn anew at three times the mean; its children follow."""
    model, cells = chain
    done = intervene(model, cells.counts, drug(["gene-0", "down"], scale=3.0), seed=5)
    before, after = cells.oracle().mean, done.oracle.mean
    assert_allclose(after[:, 0], 3 * before[:, 0])
    assert_allclose(done.counts[:, 0].mean(), after[0, 0], rtol=0.15)
    assert_allclose(after[:, 4], 3 * (1 + 3 * done.drawn[:, 3]))
    assert_allclose(done.counts[:, 4].mean(), after[:, 4].mean(), rtol=0.05)


def test_batches_populations_and_time_stay_with_their_cells():
    """R22: a context is carried through a grid of references."""
    plan = base_plan(4, 0.8, seed=1, settings=BaseSettings(populations=2, batches=2, library_sd=0.4))
    model = StructuralModel(plan, (MechanisticGene("m", ("gene-3",), Threshold((1.0,), cut=15.0)),))
    cells = draw_cells(model, 40, seed=1)
    grid = perturbation_grid(
        model, cells.counts, {1: Levels(0, 3)}, references=[5, 9], context=cells.context, observed="resimulate"
    )
    want = cells.oracle().mean[[5, 5, 5, 9, 9, 9]][:, [0, 2, 3]]
    assert_allclose(grid.oracle.mean[:, [0, 2, 3]], want)


def test_same_seed_same_draws(chain):
    model, cells = chain
    one, two, other = (intervene(model, cells.counts, Do(set={0: 4}), seed=s).drawn for s in (1, 1, 2))
    assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (Do(set={"gene-7": 1}), "'gene-7' is not among the 5; nearest: gene-"),
        (Do(set={5: 1}), "position 5 does not exist, there are 0 to 4"),
        (Do(set={"gene-0": 1.5}), "Values of 'gene-0' must be counts, whole and at least 0, got 1.5"),
        (Do(set={"gene-0": -1}), "got -1"),
        (Do(set={"gene-0": np.nan}), "got nan"),
        (Do(set={"gene-0": [1, np.nan, 0.5]}), "got 0.5"),
        (Do(set={"gene-0": [1, 2]}), r"shape \(2,\); give one, or one for each of the 3 cells"),
        (Do(set={"gene-0": 1}, add={0: 1}), "'gene-0' is set, and shifted or scaled as well"),
        (Do(set={"gene-0": 1, 0: 2}), "'gene-0' is named twice"),
        (Do(add={"gene-0": 0.5}), "Shifts must be counts"),
        (Do(scale={"gene-0": -2}), "scale of 'gene-0' must be finite"),
    ],
)
def test_interventions_that_cannot_be_are_refused(chain, do, message):
    model, cells = chain
    with pytest.raises(InputError, match=message):
        intervene(model, cells.counts[:3], do, seed=0)


@pytest.mark.parametrize(
    ("levels", "references", "message"),
    [
        ({0: Levels(3, 3)}, [0], "are empty"),
        ({0: Levels(0, 3, 0)}, [0], "are empty"),
        ({0: Levels(0, 2, 0.5)}, [0], "Levels must be counts"),
        ({}, [0], "no gene is named"),
        ({0: Levels()}, [2000], "Reference cells 2000 do not exist: there are rows 0 to 1999"),
        ({0: Levels()}, [], "at least one row number"),
    ],
)
def test_grids_that_cannot_be_are_refused(chain, levels, references, message):
    model, cells = chain
    with pytest.raises(InputError, match=message):
        perturbation_grid(model, cells.counts, levels, references=references)


def test_negative_counts_are_refused(chain):
    model, cells = chain
    with pytest.raises(InputError, match="whole numbers of at least 0"):
        intervene(model, cells.counts - 1, Do(), seed=0)
    with pytest.raises(InputError, match="neither 'mask' nor 'resimulate'"):
        intervene(model, cells.counts, Do(), seed=0, context=plain_context(2000), observed="copy")
