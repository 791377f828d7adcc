"""Similarities of cell types, structures and profiles: kernels, checked against slow or outside answers."""

import numpy as np
from numpy.testing import assert_allclose
from rdkit import DataStructs
from rdkit.Chem import MolFromSmiles, rdFingerprintGenerator

from cases import SMILES
from pertcast.features.chemistry import morgan_bits
from pertcast.features.similarity import cell_type_similarity, profile_kernel, tanimoto_kernel


def planted(seed=0, compounds=40, k=5):
    """Types 0 and 1 answer alike, type 2 in its own way; all share a part."""
    rng = np.random.default_rng(seed)
    shared, pair, own = (rng.normal(size=(compounds, k)) for _ in range(3))
    y = np.stack([shared + pair, shared + pair, shared + own])  # (3, compounds, k)
    of_type, of_compound = (axis.ravel() for axis in np.indices((3, compounds)))
    return of_type, of_compound, y.reshape(-1, k) + 0.1 * rng.normal(size=(3 * compounds, k))


def test_types_that_respond_alike_are_alike():
    similarity = cell_type_similarity(*planted(), types=3)
    assert similarity[0, 1] > 0.5
    assert similarity[0, 2] < 0.1
    assert_allclose(np.diag(similarity), 1.0)


def test_similarity_of_types_equals_a_slow_loop():
    """Oracle: every pair of types by hand, over the compounds that both have."""
    of_type, of_compound, scores = planted(1)
    keep = np.random.default_rng(1).random(len(of_type)) < 0.7
    of_type, of_compound, scores = of_type[keep], of_compound[keep], scores[keep]
    rows = {}
    for t in range(3):
        mine = scores[of_type == t]
        offset = mine.sum(0) / (len(mine) + 5)
        for c, y in zip(of_compound[of_type == t], mine, strict=True):
            rows[t, c] = (y - offset) / np.sqrt(np.linalg.norm(y - offset))
    correlation, shared = np.eye(3), np.zeros((3, 3))
    for a in range(3):
        for b in set(range(3)) - {a}:
            both = [c for c in range(40) if (a, c) in rows and (b, c) in rows]
            top = sum(rows[a, c] @ rows[b, c] for c in both)
            correlation[a, b] = top / np.sqrt(
                sum(rows[a, c] @ rows[a, c] for c in both) * sum(rows[b, c] @ rows[b, c] for c in both)
            )
            shared[a, b] = len(both)
    average = (correlation * shared).sum() / shared.sum()
    expected = ((correlation * shared + 20 * average) / (shared + 20) - average) / (1 - average)
    expected = np.maximum(expected, 0) * (1 - np.eye(3)) + np.eye(3)
    assert np.linalg.eigvalsh(expected).min() > 0  # nothing to mend
    assert_allclose(cell_type_similarity(of_type, of_compound, scores, types=3), expected, atol=1e-8)


def test_a_type_without_rows_is_alike_to_itself_only():
    similarity = cell_type_similarity(*planted(), types=4)
    assert_allclose(similarity[3], [0, 0, 0, 1], atol=1e-8)


def test_tanimoto_equals_rdkit():
    """Oracle: RDKit's own similarity of bits."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(MolFromSmiles(s)) for s in SMILES]
    expected = [DataStructs.BulkTanimotoSimilarity(one, prints) for one in prints]
    assert_allclose(tanimoto_kernel(morgan_bits(SMILES), morgan_bits(SMILES)), expected, atol=1e-9)
    assert tanimoto_kernel(np.zeros((1, 8)), np.ones((1, 8)))[0, 0] == 0


def test_profile_kernel_equals_a_wide_layer_of_rectified_units():
    """Oracle: the mean over many random units, which the kernel is the limit of."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 6)), 3 * rng.normal(size=(5, 6))
    units = rng.normal(size=(6, 400_000))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    layers = [np.maximum(unit(x) @ units, 0) for x in (a, b)]
    strength = np.sqrt(np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)))
    expected = 2 * layers[0] @ layers[1].T / units.shape[1] * strength / 2.5
    assert_allclose(profile_kernel(a, b, unit=2.5), expected, atol=0.02)


def test_products_of_the_kernels_are_kernels():
    """Law: no eigenvalue below zero, whatever the rows; so a sum of products can be inverted."""
    rng = np.random.default_rng(2)
    of_type, of_compound, scores = planted(3)
    types = cell_type_similarity(of_type, of_compound, scores, types=3)[of_type][:, of_type]
    prints = morgan_bits(SMILES)[rng.integers(len(SMILES), size=len(of_type))]
    product = types * tanimoto_kernel(prints, prints) * profile_kernel(scores, scores, unit=1.0)
    assert np.linalg.eigvalsh(product).min() > -1e-8 * len(product)
