"""Toy cells: the dependencies are those that are said, and half of the entries are lost."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pertcast.errors import InputError
from pertcast.simulate.toy import NOISE, toy_cells


def test_dependent_genes_are_sines_of_their_sources():
    """S001-06: by undoing the scaling of the values before entries were lost."""
    toy = toy_cells(4000, seed=3)
    raw = toy.whole * toy.span + toy.low
    genes = toy.cells.genes
    assert len(set(toy.sources.values())) == 3
    for dependent, source in toy.sources.items():
        j, i = genes.index(dependent), genes.index(source)
        assert i >= 3 > j
        rest = raw[:, j] - np.sin(raw[:, i])
        assert_allclose([rest.mean(), rest.std()], [0, NOISE], atol=0.01)
        told = toy.expected(dependent, toy.whole[:, i])
        assert_allclose((toy.whole[:, j] - told).std() * toy.span[j], NOISE, atol=0.01)


def test_values_lie_between_0_and_1_and_half_are_lost():
    toy = toy_cells(2000)
    x = toy.cells.x.toarray()
    assert (x.min(), toy.whole.min(), toy.whole.max()) == (0, 0, 1)
    assert_allclose((x == 0).mean(), 0.5, atol=0.02)
    assert_allclose(x[x > 0], toy.whole[x > 0], rtol=1e-6)


def test_seeds_decide():
    """R38."""
    one, same, other = (toy_cells(50, seed=seed) for seed in (0, 0, 1))
    assert_array_equal(one.cells.x.toarray(), same.cells.x.toarray())
    assert not np.array_equal(one.cells.x.toarray(), other.cells.x.toarray())


def test_more_dependent_genes_than_sources_are_refused():
    with pytest.raises(InputError, match="3 of 5 toy genes cannot depend"):
        toy_cells(10, genes=5)
