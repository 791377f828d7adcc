"""Chemistry features against RDKit called one compound at a time, scikit-learn, and structures worked by hand."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from rdkit import Chem
from rdkit.Chem import Descriptors, rdFingerprintGenerator, rdMolDescriptors
from rdkit.DataStructs import BulkTanimotoSimilarity
from sklearn.cluster import AgglomerativeClustering

from pertcast.errors import InputError
from pertcast.features import chemistry

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
SALICYLIC = "OC(=O)c1ccccc1O"
IBUPROFEN = "CC(C)Cc1ccc(C(C)C(=O)O)cc1"
CAFFEINE = "Cn1c(=O)c2c(ncn2C)n(C)c1=O"
THEOPHYLLINE = "Cn1c(=O)c2[nH]cnc2n(C)c1=O"
LEUCINE = "CC(C)CC(N)C(=O)O"
HEXANOL = "CCCCCCO"
SMILES = [ASPIRIN, SALICYLIC, IBUPROFEN, CAFFEINE, THEOPHYLLINE, LEUCINE, HEXANOL]


def rdkit_fingerprints(smiles):
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    return [generator.GetFingerprint(Chem.MolFromSmiles(text)) for text in smiles]


def rdkit_roles(molecule):
    """Morgan bits of atoms whose invariants are given one by one: the roles they play."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    return generator.GetFingerprint(
        molecule, customAtomInvariants=list(rdMolDescriptors.GetFeatureInvariants(molecule))
    )


def test_canonical_form_is_the_same_for_all_spellings():
    assert chemistry.canonical("OC(=O)c1ccccc1OC(C)=O") == chemistry.canonical(ASPIRIN) == Chem.CanonSmiles(ASPIRIN)
    table = chemistry.canonical_smiles(["a", "b", "c"], ["OCCCCCC", HEXANOL, "C(CCCCO)C"])
    assert table.tolist() == ["CCCCCCO"] * 3


def test_all_unparseable_smiles_are_named_at_once(capfd):
    """S004-13: one error names every compound and its SMILES, once each, and RDKit itself stays silent."""
    names = ["good", "ring", "valence", "ring", "empty", "absent"]
    smiles = [HEXANOL, "C1CC", "C(C)(C)(C)(C)C", "C1CC", " ", np.nan]
    with pytest.raises(InputError) as caught:
        chemistry.canonical_smiles(names, smiles)
    assert str(caught.value).splitlines() == [
        "The compound table has 4 problems:",
        "  - compound 'ring' has a SMILES that cannot be parsed: 'C1CC'",
        "  - compound 'valence' has a SMILES that cannot be parsed: 'C(C)(C)(C)(C)C'",
        "  - compound 'empty' has no SMILES",
        "  - compound 'absent' has no SMILES",
        chemistry.FIX,
    ]
    assert capfd.readouterr().err == ""


def test_unparseable_smiles_can_be_left_missing():
    """S004-13."""
    table = chemistry.canonical_smiles(["a", "b", "c"], ["C1CC", "OCCCCCC", None], unparseable="missing")
    assert table.tolist() == [None, "CCCCCCO", None]


@pytest.mark.parametrize(
    "feature",
    [chemistry.canonical, chemistry.morgan_bits, chemistry.descriptors, chemistry.scaffolds, chemistry.inchikey_block],
)
def test_features_never_take_a_broken_structure_for_a_molecule(feature):
    """S004-13."""
    with pytest.raises(InputError, match="a SMILES that cannot be parsed: 'C1CC'"):
        feature("C1CC" if feature is chemistry.canonical else [HEXANOL, "C1CC"])


def test_morgan_bits_equal_rdkit():
    """S004-13: radius 2, 2048 bits."""
    oracle = np.array([list(fingerprint) for fingerprint in rdkit_fingerprints(SMILES)])
    assert_array_equal(chemistry.morgan_bits(SMILES), oracle)
    assert chemistry.morgan_bits(SMILES).dtype == np.float32
    assert chemistry.morgan_bits(SMILES, radius=1, bits=64).shape == (7, 64)
    assert chemistry.morgan_bits([]).shape == (0, 2048)


@pytest.mark.parametrize(
    ("feature", "of_rdkit"),
    [
        (chemistry.feature_bits, rdkit_roles),
        (chemistry.torsion_bits, rdFingerprintGenerator.GetTopologicalTorsionGenerator(fpSize=2048).GetFingerprint),
        (chemistry.pair_bits, rdFingerprintGenerator.GetAtomPairGenerator(fpSize=2048).GetFingerprint),
    ],
)
def test_other_fingerprints_equal_rdkit(feature, of_rdkit):
    """Oracle: RDKit molecule by molecule."""
    oracle = np.array([list(of_rdkit(Chem.MolFromSmiles(s))) for s in SMILES])
    assert_array_equal(feature(SMILES), oracle)
    assert not np.array_equal(feature(SMILES), chemistry.morgan_bits(SMILES))
    assert feature([]).shape == (0, 2048)


def test_counts_are_logarithms_of_one_more():
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    counts = generator.GetCountFingerprint(Chem.MolFromSmiles(CAFFEINE)).GetNonzeroElements()
    row = chemistry.count_fingerprint([CAFFEINE])[0]
    assert {int(bit): round(float(np.expm1(row[bit]))) for bit in np.flatnonzero(row)} == counts
    assert max(counts.values()) > 1


def test_counter_ions_do_not_count():
    """The sodium salt of aspirin, drawn with its ion, and aspirin's anion are one structure to every feature."""
    salt, anion = "CC(=O)Oc1ccccc1C(=O)[O-].[Na+]", "CC(=O)Oc1ccccc1C(=O)[O-]"
    assert_array_equal(chemistry.morgan_bits([salt]), chemistry.morgan_bits([anion]))
    assert_array_equal(chemistry.raw_descriptors([salt])[1], chemistry.raw_descriptors([anion])[1])
    assert np.isnan([f(Chem.MolFromSmiles("[Na+].[Cl-]")) for _, f in Descriptors.descList]).any()  # as it would be
    assert np.isfinite(chemistry.raw_descriptors([salt])[1]).all()
    assert chemistry.inchikey_block([salt])[0] == chemistry.inchikey_block([ASPIRIN])[0] == "BSYNRYMUTXBXSQ"


def test_descriptors_equal_rdkit_scaled_by_hand():
    """S004-13: molecular weight, less its median, over its interquartile range / 1.349."""
    table = chemistry.descriptors(SMILES)
    weights = np.array([Descriptors.MolWt(Chem.MolFromSmiles(text)) for text in SMILES])
    low, middle, high = np.quantile(weights, [0.25, 0.5, 0.75])
    expected = (weights - middle) / ((high - low) / 1.349)
    assert_allclose(table.values[:, table.names.index("MolWt")], expected, rtol=1e-5)
    assert table.names == tuple(name for name, _ in Descriptors.descList)
    assert table.replaced == {}
    assert np.abs(table.values).max() <= 5
    constant = table.names.index("fr_azide")  # none of them has an azide
    assert not table.values[:, constant].any()


def test_undefined_descriptors_are_replaced_by_the_median_and_reported():
    """S004-13: RDKit has no partial charges for platinum."""
    cisplatin = "N[Pt](N)(Cl)Cl"
    table = chemistry.descriptors([*SMILES, cisplatin])
    charge = table.names.index("MaxPartialCharge")
    assert table.replaced["MaxPartialCharge"] == 1
    assert table.values[-1, charge] == 0  # the median, once scaled
    assert np.isfinite(table.values).all()


def test_scale_of_some_compounds_serves_others():
    """One compound alone is scaled as it was among those the scale was fitted on; infinities and outliers too."""
    fitted = chemistry.descriptors(SMILES)
    alone = chemistry.descriptors([CAFFEINE], scale=fitted.scale)
    assert_array_equal(alone.values[0], fitted.values[SMILES.index(CAFFEINE)])
    scale = chemistry.DescriptorScale.fit(np.array([[0.0, np.nan], [1, np.nan], [2, np.inf], [3, np.nan], [4, 1]]))
    assert_allclose(scale.center, [2, 1])
    assert_allclose(scale.spread, [2 / 1.349, 0])
    assert_allclose(scale.apply(np.array([[1e9, 7.0], [-np.inf, np.nan]])), [[5, 0], [0, 0]])


def test_counts_that_are_mostly_zero_keep_their_differences():
    """An interquartile range of 0 falls back on the standard deviation: one 1 among nine 0 has 0.3."""
    scale = chemistry.DescriptorScale.fit(np.eye(10)[:, :1])
    assert_allclose(scale.spread, [0.3])
    assert_allclose(scale.apply(np.array([[1.0]])), [[1 / 0.3]], rtol=1e-6)


def test_tanimoto_equals_rdkit():
    """S004-13."""
    oracle = [BulkTanimotoSimilarity(one, rdkit_fingerprints(SMILES)) for one in rdkit_fingerprints(SMILES[:3])]
    bits = chemistry.morgan_bits(SMILES)
    assert_allclose(chemistry.tanimoto(bits[:3], bits), oracle, rtol=1e-6)
    assert chemistry.tanimoto(np.zeros((1, 8)), np.eye(8)[:2]).tolist() == [[0, 0]]
    assert chemistry.tanimoto(np.zeros((1, 8)), np.zeros((1, 8))).tolist() == [[0]]


@pytest.mark.parametrize("threshold", [0.4, 0.65, 0.8])
def test_complete_linkage_equals_scikit_learn(threshold):
    """S004-13 on random fingerprints so wide that hardly two distances are equal: ties may merge in any order."""
    bits = (np.random.default_rng(3).random((40, 4096)) < np.linspace(0.1, 0.8, 40)[:, None]).astype(np.float32)
    distance = 1 - chemistry.tanimoto(bits, bits)
    oracle = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="complete", distance_threshold=threshold
    ).fit_predict(distance)
    ids = chemistry.cluster_ids(bits, threshold=threshold)
    assert len(set(zip(ids, oracle, strict=True))) == len(set(ids)) == len(set(oracle)) > 1
    assert [distance[np.ix_(ids == i, ids == i)].max() <= threshold for i in set(ids)]


@pytest.mark.parametrize("method", ["complete", "butina"])
def test_clusters_hold_what_looks_alike_and_are_numbered_by_first_member(method):
    """S004-13: caffeine with theophylline (0.46 alike), aspirin with salicylic acid (0.45), the others apart."""
    ids = chemistry.cluster_ids(chemistry.morgan_bits(SMILES), method=method, threshold=0.6)
    assert ids.tolist() == [0, 0, 1, 2, 2, 3, 4]


def test_butina_members_lie_within_the_threshold_of_a_centre():
    """Three in a row: the ends are close to the middle only, so one Butina cluster, two of complete linkage."""
    bits = np.array([[1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]], np.float32)  # 3/5, 3/5 and 2/6 alike
    assert chemistry.cluster_ids(bits, method="butina", threshold=0.45).tolist() == [0, 0, 0]
    assert len(set(chemistry.cluster_ids(bits, method="complete", threshold=0.45))) == 2
    assert chemistry.cluster_ids(bits[:1]).tolist() == [0]
    with pytest.raises(InputError, match="Unknown clustering method 'butnia'. Did you mean 'butina'"):
        chemistry.cluster_ids(bits, method="butnia")


def test_scaffolds_by_hand():
    """S004-13: aspirin and salicylic acid share benzene; compounds without a ring stand for themselves."""
    assert chemistry.scaffolds(SMILES).tolist() == [
        "c1ccccc1",
        "c1ccccc1",
        "c1ccccc1",
        *["O=c1[nH]c(=O)c2[nH]cnc2[nH]1"] * 2,
        Chem.CanonSmiles(LEUCINE),
        HEXANOL,
    ]
    left, right = "C[C@H]1CCCN1", "C[C@@H]1CCCN1"
    assert len(set(chemistry.scaffolds([left, right]))) == 1


def test_inchikey_block_joins_stereoisomers_salts_and_charge_states():
    """S004-13: metformin and its hydrochloride; the block is the one PubChem gives."""
    metformin = ["CN(C)C(=N)NC(=N)N", "CN(C)C(=N)NC(=N)N.Cl", "CN(C)C(=[NH2+])NC(=N)N.[Cl-]"]
    assert chemistry.inchikey_block(metformin).tolist() == ["XZWYZXLIPXDOLR"] * 3
    assert len(set(chemistry.inchikey_block([LEUCINE, "CC(C)C[C@H](N)C(=O)O", "CC(C)C[C@@H](N)C(=O)O"]))) == 1
    assert len(set(chemistry.inchikey_block(SMILES))) == len(SMILES)


def test_importing_the_module_does_not_import_rdkit():
    code = "import sys, pertcast.features.chemistry; sys.exit('rdkit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


REAL = Path(__file__).parents[2] / "../shared/data"


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.exists() and "CI" not in os.environ, reason="the measured data are not here")
@pytest.mark.parametrize("table", ["op2/compounds.csv", "l1000/compounds.csv"])
def test_real_compounds_all_have_features(table):
    """S004-13: every structure parses; salts, metals and stereoisomers included."""
    frame = pd.read_csv(REAL / table)
    smiles = sorted(set(chemistry.canonical_smiles(frame.sm_name, frame.SMILES)))
    assert chemistry.morgan_bits(smiles).any(axis=1).all()
    assert len(set(chemistry.scaffolds(smiles))) <= len(set(chemistry.inchikey_block(smiles))) <= len(smiles)
    assert np.isfinite(chemistry.descriptors(smiles[:100]).values).all()
