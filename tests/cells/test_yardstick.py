"""The yardstick of wells against the tests of differential expression themselves."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from pertcast.cells.yardstick import Yardstick
from pertcast.de.compare import Comparison, compare
from pertcast.de.pseudobulk import Pseudobulk
from pertcast.errors import InputError

DRUGS = ("a", "b")


@pytest.fixture(scope="module")
def wells():
    """Two cell types, four plates of two donors; DMSO thrice a plate, each drug once, b with half of the counts."""
    rng = np.random.default_rng(0)
    rows = [
        (name, drug, f"plate_{plate}", f"donor_{plate // 2}")
        for name in ("T", "B")
        for plate in range(4)
        for drug in ("DMSO",) * 3 + DRUGS
    ]
    obs = pd.DataFrame(rows, columns=["cell_type", "sm_name", "plate_name", "donor_id"])
    mean = np.exp(rng.normal(5, 1, (1, 60))) * np.where(obs["sm_name"] == "b", 0.5, 1.0)[:, None]
    mean[obs["sm_name"] == "a", :10] *= 2
    counts = rng.poisson(mean * rng.gamma(20, 1 / 20, (len(obs), 60)))
    return Pseudobulk(counts, obs, tuple(f"g{j:02d}" for j in range(60)), obs.iloc[:0])


def test_errors_are_those_of_the_moderated_t(wells):
    """Sd times the unscaled error is the standard error of the tests: effect over t."""
    yard = Yardstick.of(wells, control="DMSO")
    how = Comparison("sm_name", "DMSO", ("donor_id", "plate_name"), plain=True)
    for number, name in enumerate(yard.cell_types):
        tests = compare(wells.take((wells.obs["cell_type"] == name).to_numpy()), how)
        for row, drug in enumerate(DRUGS):
            error = tests.log_fc[row] / tests.t[row]
            assert_allclose(yard.sd[number] * yard.unscaled[drug], error, rtol=1e-6)
    assert_allclose(np.exp(yard.depth["b"]), 0.5, rtol=0.15)
    assert_allclose(np.exp(yard.depth["a"]), 1.1, rtol=0.25)


def test_t_of_a_doubled_gene_by_hand(wells):
    """The change of log2 CPM is 1 but for the 0.5 added to each count; elsewhere there is the total's change only."""
    yard = Yardstick.of(wells, control="DMSO")
    before = np.full((2, 60), 1 / 60)
    after = before.copy()
    after[:, 0] *= 2
    after /= after.sum(axis=1, keepdims=True)
    number = yard.cell_types.index("B")
    low = yard.molecules[number] / 60
    high = yard.molecules[number] * np.exp(yard.depth["a"]) * np.array([2, 1]) / 61
    change = np.log2((high + 0.5) / (low + 0.5)) - np.log2(
        (yard.molecules[number] * np.exp(yard.depth["a"]) + 1) / (yard.molecules[number] + 1)
    )
    t = yard.t("B", "a", before, after)
    assert_allclose(t[:2], change / (yard.sd[number, :2] * yard.unscaled["a"]), rtol=1e-6)
    assert_allclose(t[2:], t[1] * yard.sd[number, 1] / yard.sd[number, 2:], rtol=1e-6)


def test_untreated_wells_alone_take_the_others_variance(wells):
    keep = (wells.obs["cell_type"] == "B") | (wells.obs["sm_name"] == "DMSO")
    yard = Yardstick.of(wells.take(keep.to_numpy()), control="DMSO")
    assert yard.cell_types == ("B", "T")
    assert_allclose(yard.sd[1], yard.sd[0])
    assert set(yard.unscaled) == set(DRUGS)
    alone = wells.take((wells.obs["sm_name"] == "DMSO").to_numpy())
    with pytest.raises(InputError, match="No cell type has wells that a compound can be tested with"):
        Yardstick.of(alone, control="DMSO")
