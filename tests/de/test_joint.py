"""One model over all cell types, against numbers of R's limma and edgeR."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pertcast.de.compare import Comparison
from pertcast.de.pseudobulk import Pseudobulk
from pertcast.de.table import de_table
from pertcast.errors import InputError

HOW = Comparison("sm_name", "dmso", ("plate_name",))


@pytest.fixture(scope="module")
def expected():
    """Read what `joint_fixture.R` wrote."""
    return json.loads((Path(__file__).parent / "joint_fixture.json").read_text())


@pytest.fixture
def bulk(expected):
    obs = pd.DataFrame({name: expected[name] for name in ("cell_type", "sm_name", "plate_name", "well")})
    counts = np.array(expected["counts"]).T
    return Pseudobulk(counts, obs.assign(n_cells=30), tuple(f"g{j}" for j in range(counts.shape[1])), obs[:0])


def test_numbers_are_those_of_limma(bulk, expected):
    """`~ 0 + sm_cell_type + plate_name`, genes that the filter keeps in every cell type; to 1e-6."""
    table = de_table(bulk, "cell_type", HOW, joint=True)
    assert [tuple(row) for row in table.keys.to_numpy()] == [("B", "a"), ("B", "b"), ("T", "a"), ("T", "b")]
    kept = np.array(expected["kept"])
    assert_array_equal(table.tested, np.tile(kept, (4, 1)))
    for ours, theirs in ((table.log_fc, "effect"), (table.t, "t"), (table.p, "p")):
        assert_allclose(ours[:, kept], np.array(expected[theirs]).T, rtol=1e-6)
    assert [group.samples for group in table.groups] == [18, 18]
    assert_allclose([group.df for group in table.groups], expected["df"], rtol=1e-6)


def test_one_model_is_not_two(bulk):
    """Sharing variances changes t; the order of the samples changes nothing."""
    joint, apart = (de_table(bulk, "cell_type", HOW, joint=joint) for joint in (True, False))
    both = joint.tested & apart.tested
    assert not np.allclose(joint.t[both], apart.t[both], rtol=0.02)
    order = np.random.default_rng(0).permutation(len(bulk))
    mixed = de_table(bulk.take(order), "cell_type", HOW, joint=True)
    rows = [mixed.keys.to_numpy().tolist().index(row) for row in joint.keys.to_numpy().tolist()]
    assert_allclose(mixed.t[rows], joint.t)


def test_without_the_filter_any_gene_with_a_count_is_tested(bulk):
    how = Comparison("sm_name", "dmso", ("plate_name",), expressed_only=False)
    table = de_table(bulk, "cell_type", how, joint=True)
    assert_array_equal(table.tested[0], bulk.counts.any(axis=0))


def test_groups_that_cannot_be_compared_are_named(bulk):
    control, kind = (bulk.obs[name].to_numpy() for name in ("sm_name", "cell_type"))
    with pytest.raises(InputError, match="no sample of the control 'dmso' in T; leave such cells out"):
        de_table(bulk.take((control != "dmso") | (kind == "B")), "cell_type", HOW, joint=True)
    with pytest.raises(InputError, match="every sample of T is of the control 'dmso'"):
        de_table(bulk.take((control == "dmso") | (kind == "B")), "cell_type", HOW, joint=True)
