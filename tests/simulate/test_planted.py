"""The published mechanistic gene, draw by draw, and mechanisms of every kind."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pertcast.errors import InputError
from pertcast.metrics.count_fit import fit_zinb
from pertcast.metrics.count_likelihood import zinb_log_likelihood
from pertcast.simulate.base import BaseSettings, base_plan, simulate_base
from pertcast.simulate.cells import draw_cells
from pertcast.simulate.equations import KINDS, WeightedDispersion
from pertcast.simulate.mechanisms import StructuralModel
from pertcast.simulate.planted import add_mechanistic_gene, mechanism_model, random_mechanism, with_mechanistic_gene


@pytest.fixture(scope="module")
def cells():
    return simulate_base(10_000, 20, 0.8, seed=42, fixture=True)


@pytest.fixture(scope="module")
def planted(cells):
    return add_mechanistic_gene(cells.counts, seeds=(43, 11))


def test_the_published_gene(planted):
    """S002-02: weights to 1e-12, 67.1 % of means and 67.4 % of zero inflations clipped, zeros, maximum, mean."""
    weights = planted.gene.mechanism.weights
    assert_allclose([min(weights), max(weights)], [-1.8839447023025584, 1.466594563596801], rtol=0, atol=1e-12)
    assert (np.argmin(weights), np.argmax(weights)) == (8, 14)
    assert round(weights[1], 5) == 0.43627
    assert round(planted.clipped_mean, 3) == 0.671
    assert round(planted.clipped_zeros, 3) == 0.674
    assert round((planted.counts == 0).mean(), 3) == 0.869
    assert planted.counts.max() == 91
    assert round(planted.parameters.mean.mean(), 3) == 3.706
    assert planted.gene.dispersion == 1e-3


def test_likelihood_of_the_published_gene(cells, planted):
    """S002-03, S002-07: 0.5494 at the truth, 1.0048 over all 21 genes, 0.7051 for the best fit without parents."""
    whole = with_mechanistic_gene(cells, planted)
    own = planted.counts[:, None]
    fitted = fit_zinb(own)
    alone = -zinb_log_likelihood(own, fitted.mean, fitted.dispersion, fitted.zero_inflation).mean()
    got = [whole.nll(("mechanistic",)), whole.nll(), alone]
    assert_allclose(got, [0.5494, 1.0048, 0.7051], atol=6e-5)


def test_the_published_procedure_draw_by_draw(cells):
    """S002-02: written out with the global generator, fixed and varying dispersion."""
    x = cells.counts[:400]
    for varying in (False, True):
        np.random.seed(5)  # noqa: NPY002
        mean = np.maximum(0.1, x @ np.random.uniform(-2, 2, 20))  # noqa: NPY002
        np.random.seed(9)  # noqa: NPY002
        spread = np.full(400, 1e-3)
        if varying:
            spread = np.maximum(0.1, np.average(x, axis=1, weights=np.random.uniform(-2, 2, 20)))  # noqa: NPY002
        p = (1 / spread) / (1 / spread + mean)
        drop = np.clip((0.8 - p ** (1 / spread)) / (1 - p ** (1 / spread)), 0, 1)
        wanted = np.random.negative_binomial(1 / spread, p)  # noqa: NPY002
        wanted[np.random.binomial(1, drop) == 1] = 0  # noqa: NPY002
        got = add_mechanistic_gene(x, seeds=(5, 9), varying_dispersion=varying)
        assert_array_equal(got.counts, wanted)
        assert isinstance(got.gene.dispersion, WeightedDispersion) == varying


def test_varying_dispersion_survives_json(cells):
    gene = add_mechanistic_gene(cells.counts, seeds=(5, 9), varying_dispersion=True)
    model = with_mechanistic_gene(cells, gene).model
    assert StructuralModel.from_dict(json.loads(json.dumps(model.as_dict()))) == model


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_drawn_and_its_truth_beats_any_fit_without_parents(kind):
    """S002-13: simulated; a likelihood ratio that only parents explain."""
    base = base_plan(6, 0.8, seed=1, settings=BaseSettings(clip=True))
    model = mechanism_model(base, [kind], seed=2, zero_share=0.5)
    drawn = draw_cells(model, 3000, seed=3, times=np.resize([1.0, 2.0, 4.0], 3000))
    own = drawn.counts[:, [-1]]
    fitted = fit_zinb(own)
    alone = -zinb_log_likelihood(own, fitted.mean, fitted.dispersion, fitted.zero_inflation).mean()
    assert drawn.nll(("mechanistic",)) < alone - 0.02


def test_mechanisms_that_cannot_be_drawn_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="Unknown kind of mechanism 'cubic'"):
        random_mechanism("cubic", 2, rng=rng)
    with pytest.raises(InputError, match="exactly 2 parents, got 3"):
        random_mechanism("time", 3, rng=rng)
    with pytest.raises(InputError, match="at least 1 parents, got 0"):
        random_mechanism("hill", 0, rng=rng)
    with pytest.raises(InputError, match="wants 9 parents, there are 4"):
        mechanism_model(base_plan(4, 0.8, seed=1, settings=BaseSettings(clip=True)), ["hill"], seed=1, parents=9)


@pytest.mark.parametrize("bad", [np.array([[1, -1]]), np.array([[0.5, 1.0]]), np.zeros((0, 2), int), np.zeros(3, int)])
def test_counts_that_are_none_are_refused(bad):
    with pytest.raises(InputError, match=r"Counts must be"):
        add_mechanistic_gene(bad)


def test_a_gene_whose_parents_are_not_there_is_refused(cells):
    planted = add_mechanistic_gene(cells.counts[:10, :3], genes=("gene-0", "gene-1", "TP53"))
    with pytest.raises(InputError, match="'TP53' is not among"):
        with_mechanistic_gene(cells.take(slice(10)), planted)
