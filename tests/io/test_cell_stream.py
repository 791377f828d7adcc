"""h5ad written block by block, against the file read whole by anndata."""

import anndata as ad
import numpy as np
import pandas as pd
from numpy.testing import assert_array_equal
from scipy import sparse

from pertcast.io.cell_stream import CellStream


def test_blocks_are_read_as_one_matrix(tmp_path):
    """A block of no counts at all is cells too."""
    rng = np.random.default_rng(0)
    blocks = [sparse.csr_array(rng.poisson(0.5, (n, 7)).astype(np.int32)) for n in (3, 1, 5)]
    blocks.insert(1, sparse.csr_array((2, 7), dtype=np.int32))
    obs = pd.DataFrame({"kind": list("ababababaab")}, index=[f"c{i}" for i in range(11)])
    genes = tuple(f"g{j}" for j in range(7))
    with CellStream(tmp_path / "x.h5ad") as stream:
        for block in blocks:
            stream.add(block)
        stream.finish(obs, genes, {"note": "simulated"})
    adata = ad.read_h5ad(tmp_path / "x.h5ad")
    assert_array_equal(adata.X.toarray(), np.concatenate([block.toarray() for block in blocks]))
    assert list(adata.obs["kind"]) == list(obs["kind"])
    assert (list(adata.obs_names), tuple(adata.var_names)) == (list(obs.index), genes)
    assert adata.uns["note"] == "simulated"
