"""Counts of cells from h5ad files as anndata wrote them."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from pertcast.errors import InputError
from pertcast.io.counts import read_counts


@pytest.fixture
def cells():
    counts = np.random.default_rng(0).poisson(1.0, (7, 4)).astype(np.float32)
    obs = pd.DataFrame({"type": pd.Categorical(list("aabbbca"))}, index=[f"cell{i}" for i in range(7)])
    return ad.AnnData(sparse.csr_matrix(counts / 2), obs, pd.DataFrame(index=list("wxyz")), layers={"counts": counts})


def test_x_or_a_layer(cells, tmp_path):
    path = tmp_path / "cells.h5ad"
    cells.write_h5ad(path)
    from_x, from_layer = read_counts(path), read_counts(path, layer="counts")
    assert_array_equal(from_x.values.toarray(), cells.X.toarray())
    assert_array_equal(from_layer.values, cells.layers["counts"])
    assert from_x.genes == ("w", "x", "y", "z")
    pd.testing.assert_frame_equal(from_x.obs, cells.obs)


def test_faults(cells, tmp_path):
    path = tmp_path / "cells.h5ad"
    cells.write_h5ad(path)
    with pytest.raises(InputError, match="Unknown layer 'count'. Did you mean 'counts'.*without a choice X is read"):
        read_counts(path, layer="count")
    del cells.layers["counts"]
    cells.write_h5ad(path)
    with pytest.raises(InputError, match="Unknown layer 'count'. Known: none"):
        read_counts(path, layer="count")
    (tmp_path / "torn.h5ad").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a whole h5ad file"):
        read_counts(tmp_path / "torn.h5ad")
    with pytest.raises(InputError, match="not a whole h5ad file"):
        read_counts(tmp_path / "absent.h5ad")
    empty = ad.AnnData(obs=cells.obs, var=cells.var, layers={"raw": cells.X})
    empty.write_h5ad(tmp_path / "empty.h5ad")
    with pytest.raises(InputError, match="has no X. Name the layer that holds raw counts: raw"):
        read_counts(tmp_path / "empty.h5ad")
