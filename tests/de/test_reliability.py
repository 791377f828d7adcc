"""What stands behind a row, worked by hand."""

import numpy as np
import pandas as pd
from numpy.testing import assert_allclose

from pertcast.de.pseudobulk import Pseudobulk
from pertcast.de.reliability import row_reliability


def test_rows_by_hand():
    """Cells, samples, genes without a count on both sides; 1 / n = 1 / cells + 1 / control cells; n / (n + median)."""
    obs = pd.DataFrame(
        {
            "type": ["B", "B", "B", "B", "T", "T", "T"],
            "drug": ["dmso", "dmso", "x", "y", "dmso", "x", "x"],
            "n_cells": [20, 10, 30, 6, 12, 2, 2],
        }
    )
    counts = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [5, 0, 0], [0, 0, 3], [0, 0, 0], [0, 2, 0]])
    bulk = Pseudobulk(counts, obs, ("a", "b", "c"), obs[:0])
    keys = pd.DataFrame({"cell_type": ["B", "B", "T"], "sm_name": ["x", "y", "x"]})
    got = row_reliability(bulk, keys, group="type", condition="drug", control="dmso")
    assert got.iloc[:, :7].to_numpy().tolist() == [
        ["B", "x", 30, 30, 1, 2, 1],
        ["B", "y", 6, 30, 1, 2, 2],
        ["T", "x", 4, 12, 2, 1, 1],
    ]
    n = np.array([15, 5, 3])  # 30 * 30 / 60, 6 * 30 / 36, 4 * 12 / 16
    assert_allclose(got["reliability"], n / (n + 5))
