"""The atlas: principal axes as scikit-learn finds them, and states placed on the same map."""

from importlib.util import find_spec

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA

from cell_cases import make_cells
from pertcast.cells.atlas import Atlas
from pertcast.cells.log_scale import as_log1p
from pertcast.errors import InputError


@pytest.fixture(scope="module")
def cells():
    return make_cells(cells=200, genes=40)


def test_places_are_those_of_scikit_learn(cells):
    """S001-11: up to the sign of an axis."""
    atlas = Atlas.of(cells)
    x = as_log1p(cells).toarray()[:, atlas.columns]
    want = PCA(2, svd_solver="full").fit(x)
    found = want.transform(x)
    for k in range(2):
        sign = np.sign(found[:, k] @ atlas.places[:, k])
        assert_allclose(atlas.places[:, k], sign * found[:, k], atol=1e-4)
        assert f"{want.explained_variance_ratio_[k]:.1%}" in atlas.axes[k]


def test_cells_placed_again_lie_where_they_lay(cells):
    """S001-11: states of any shape, genes in any order and more of them than the atlas reads."""
    atlas = Atlas.of(cells)
    x = as_log1p(cells).toarray()
    assert_allclose(atlas.place(x, cells.genes), atlas.places, atol=1e-4)
    turned = np.random.default_rng(0).permutation(40)
    more = np.concatenate([x[:, turned], np.ones((200, 1), np.float32)], axis=1)
    names = (*(cells.genes[j] for j in turned), "EXTRA")
    placed = atlas.place(more.reshape(2, 100, 41), names)
    assert_allclose(placed.reshape(200, 2), atlas.places, atol=1e-4)


def test_the_map_repeats(cells):
    assert_array_equal(Atlas.of(cells).places, Atlas.of(cells).places)


def test_what_cannot_be_mapped_is_refused(cells):
    with pytest.raises(InputError, match="at least 3 cells, got 2"):
        Atlas.of(cells.take(np.arange(2)))
    with pytest.raises(InputError, match="by pca or umap, not by 'tsne'"):
        Atlas.of(cells, method="tsne")
    atlas = Atlas.of(cells)
    kept = tuple(gene for gene in cells.genes if gene != cells.genes[atlas.columns[0]])
    with pytest.raises(InputError, match=r"lack 1 of \d+ genes that the atlas reads, first 'GENE"):
        atlas.place(np.zeros((1, 39), np.float32), kept)


@pytest.mark.skipif(find_spec("umap") is not None, reason="umap-learn is installed")
def test_umap_that_is_not_installed_is_refused_in_a_sentence(cells):
    with pytest.raises(InputError, match="umap-learn, which is not installed. Install it, or use pca"):
        Atlas.of(cells, method="umap")
