"""What the virtual cell knows of toy cells: curves, sizes and directions of effects, and what must not move."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from pertcast.cells.trajectory import Change, roll_out
from pertcast.simulate.toy import toy_cells
from pertcast.stories.knows import GRID, RAISE, _scored, curve_of, influences, toy_model

TRAINED = 8000


@pytest.fixture(scope="module")
def toy():
    torch.set_num_threads(1)
    return toy_cells(TRAINED + 2000)


@pytest.fixture(scope="module")
def model(toy):
    return toy_model(toy, slice(TRAINED), seed=0)


@pytest.fixture(scope="module")
def unseen(toy):
    return toy.cells.take(np.arange(TRAINED, TRAINED + 2000))


def test_told_curves_are_sines(toy, model):
    """S001-06: each grid point told alone; correlation with the true sine at least 0.95, system 001 had 0.949."""
    for dependent, source in toy.sources.items():
        told = curve_of(model, source, dependent)
        assert np.corrcoef(told, toy.expected(dependent, GRID))[0, 1] >= 0.95


def test_sources_are_the_strongest_influences(toy, model, unseen):
    """S001-06: of all genes that are raised, the source moves its dependent gene most."""
    table, genes = influences(model, unseen, by=RAISE), toy.cells.genes
    for dependent, source in toy.sources.items():
        assert genes[int(np.abs(table[:, genes.index(dependent)]).argmax())] == source


def test_a_raised_source_moves_its_dependent_gene_and_no_other(toy, model, unseen):
    """S001-10: the true direction, at least half the true size; other genes by less than a tenth of it."""
    x, genes = unseen.x.toarray(), toy.cells.genes
    for dependent, source in toy.sources.items():
        i, j = genes.index(source), genes.index(dependent)
        rows = np.flatnonzero((x[:, i] > 0.35) & (x[:, i] < 0.5) & (x[:, j] > 0))
        effect = roll_out(model, unseen.take(rows), [Change(source, RAISE, "add")]).effect()[-1]
        effect = np.nanmean(np.where(x[rows] > 0, effect, np.nan), axis=0)
        true = (toy.expected(dependent, x[rows, i] + RAISE) - toy.expected(dependent, x[rows, i])).mean()
        others = [k for k in range(len(genes)) if k not in (i, j)]
        assert 0.5 * true < effect[j] < 1.5 * true
        assert np.abs(effect[others]).max() < 0.1 * true


def test_scores_of_effects_by_hand():
    """Two sources, three genes; the model says half of every effect and a tenth on a gene that nothing moves."""
    depends = np.array([[True, False, False], [False, True, False]])
    true = np.array([[1.0, 0, 0], [0, -2.0, 0]])
    said = true / 2 + 0.15 * ~depends
    table = _scored({"regression on the raised gene": true, "masked-autoencoder": said, "truth": true}, depends)
    assert_allclose(table.score("masked-autoencoder", "share of true size"), 0.5)
    assert_allclose(table.score("masked-autoencoder", "on others, share of size"), 0.1)
    assert table.score("masked-autoencoder", "sign agreement") == 1
    assert table.score("truth", "on others, share of size") == 0
