"""A structure that comes later is described as if it had been among those the block was made of."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cases import SMILES
from pertcast.errors import InputError
from pertcast.features import chemistry
from pertcast.features.structures import CHEMISTRY, CLUSTER_DISTANCE, PLACED, Structures

NEW = ["CCCO", "c1ccccc1CN", "CC(C)=O"]


@pytest.fixture(scope="module")
def known():
    return sorted(chemistry.canonical_smiles(SMILES, SMILES))


@pytest.fixture(scope="module")
def fitted(known):
    return Structures.fit([*SMILES, None], CHEMISTRY)


def placed(fitted, name, smiles):
    return fitted.blocks(np.array(smiles, dtype=object))[name].dense()


@pytest.mark.parametrize("name", CHEMISTRY)
def test_a_known_structure_placed_again_is_where_it_was(name, known):
    """S004-13: the way for later structures gives known ones their own rows, so the two ways agree."""
    made = CHEMISTRY[name](known)
    learned = {key: array for key, array in made.items() if key != "x"}
    assert_allclose(PLACED[name](known, known, learned), made["x"], atol=1e-5)


@pytest.mark.parametrize("name", CHEMISTRY)
def test_new_and_known_and_none_in_one_column(fitted, name):
    """Each row is what it is alone; spellings of a new structure share a row; no structure is zeros."""
    rows = placed(fitted, name, ["CCO", "CCCO", None, "OCCC", "OCC"])
    assert_array_equal(rows[0], rows[4])
    assert_array_equal(rows[1], rows[3])
    assert not rows[2].any()
    assert_allclose(placed(fitted, name, ["CCCO"])[0], rows[1], atol=1e-6)
    assert_array_equal(placed(fitted, name, ["CCO"])[0], rows[0])


def test_fingerprints_of_new_structures(fitted):
    assert_array_equal(placed(fitted, "morgan", NEW), chemistry.morgan_bits(NEW))
    assert_array_equal(placed(fitted, "count_fingerprint", NEW), chemistry.count_fingerprint(NEW))


def test_scores_are_a_projection_on_the_known_axes(fitted, known):
    """Oracle: numpy's SVD of the centred fingerprints; distances between scores do not depend on signs."""
    bits, new = chemistry.morgan_bits(known), chemistry.morgan_bits(NEW)
    _, s, vt = np.linalg.svd(bits - bits.mean(0), full_matrices=False)
    vt = vt[s > 1e-6]
    expected = (new - bits.mean(0)) @ vt.T
    given = placed(fitted, "morgan_scores", NEW)
    assert_allclose(given @ given.T, expected @ expected.T, atol=1e-3)


def test_descriptors_are_scaled_as_the_known_ones(fitted, known):
    """By hand: raw value less the known median, over the known spread, cut at 5."""
    _, raw = chemistry.raw_descriptors(known)
    names, new = chemistry.raw_descriptors(NEW)
    j = names.index("TPSA")
    low, mid, high = np.quantile(raw[:, j], [0.25, 0.5, 0.75])
    expected = np.clip((new[:, j] - mid) / ((high - low) / 1.349), -5, 5)
    assert_allclose(placed(fitted, "descriptors", NEW)[:, j], expected, rtol=1e-4)


def test_a_new_structure_joins_the_cluster_that_stays_narrow_enough(fitted, known):
    """Oracle: a loop over clusters and their members."""
    bits = chemistry.morgan_bits(known)
    groups = chemistry.cluster_ids(bits, threshold=CLUSTER_DISTANCE)
    table = CHEMISTRY["cluster"](known)["x"]
    for smiles, row in zip(NEW, placed(fitted, "cluster", NEW), strict=True):
        distance = 1 - chemistry.tanimoto(chemistry.morgan_bits([smiles]), bits)[0]
        widths = {group: distance[groups == group].max() for group in sorted(set(groups))}
        best = min(widths, key=widths.get)
        expected = table[groups == best][0] if widths[best] <= CLUSTER_DISTANCE else np.zeros(table.shape[1])
        assert_array_equal(row, expected, err_msg=smiles)
    assert placed(fitted, "cluster", ["CCCO"]).sum() == 1
    assert placed(fitted, "cluster", ["[Fe]"]).sum() == 0


def test_a_new_scaffold_is_none_of_the_known(fitted):
    """Benzylamine has the scaffold of benzene; acetone has no rings and is a group that was never seen."""
    benzene, benzylamine, acetone = placed(fitted, "scaffold", ["c1ccccc1", "c1ccccc1CN", "CC(C)=O"])
    assert_array_equal(benzene, benzylamine)
    assert (benzene.sum(), acetone.sum()) == (1, 0)


def test_a_new_structure_that_cannot_be_parsed(fitted):
    with pytest.raises(InputError, match="a SMILES that cannot be parsed: 'C1CC\\(\\('"):
        fitted.blocks(np.array(["C1CC(("], dtype=object))
