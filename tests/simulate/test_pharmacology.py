"""Structure decides: parts in common mean effects in common, to the amount that the constants say."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from rdkit import Chem

from pertcast.errors import InputError
from pertcast.simulate import chemistry, pharmacology


@pytest.fixture(scope="module")
def compounds():
    return chemistry.build_compounds(400, rng=np.random.default_rng(0))


def drugs_of(compounds, *, seed=0):
    quantile = np.geomspace(0.05, 2, len(compounds))
    return pharmacology.pharmacology(compounds, quantile, rng=np.random.default_rng(seed))


def test_every_combination_of_parts_is_a_molecule():
    """All 14 scaffolds with all substituents at either place; the other place carries a hydrogen."""
    for scaffold in range(len(chemistry.SCAFFOLDS)):
        for part in range(len(chemistry.SUBSTITUENTS)):
            for left, right in ((part, 0), (0, part)):
                smiles = chemistry.join(scaffold, left, right)
                assert Chem.MolToSmiles(Chem.MolFromSmiles(smiles)) == smiles


def test_too_many_compounds_are_refused():
    with pytest.raises(InputError, match="9999 were asked for"):
        chemistry.build_compounds(9999, rng=np.random.default_rng(0))


def test_few_compounds_share_their_parts():
    scaffold = chemistry.column(chemistry.build_compounds(12, rng=np.random.default_rng(3)), "scaffold")
    assert (np.unique(scaffold.astype(int), return_counts=True)[1] == 3).all()


def test_potencies_are_handed_out_once_each_and_parts_explain_them(compounds):
    drugs = drugs_of(compounds)
    assert_allclose(np.sort(drugs.potency), np.geomspace(0.05, 2, 400))
    parts = [chemistry.column(compounds, part).astype(int) for part in ("scaffold", "left", "right")]
    design = np.column_stack([np.equal.outer(part, np.unique(part)) for part in parts]).astype(float)
    log_potency = np.log(drugs.potency) - np.log(drugs.potency).mean()
    rest = log_potency - design @ np.linalg.lstsq(design, log_potency, rcond=None)[0]
    assert 0.5 < 1 - rest.var() / log_potency.var() < 0.95  # the cliffs are the rest


def test_the_right_substituent_decides_the_second_mechanism(compounds):
    drugs = drugs_of(compounds)
    right = chemistry.column(compounds, "right").astype(int)
    for part in np.unique(right):
        assert len(set(drugs.second[right == part])) == 1


def test_compounds_of_one_mechanism_act_alike(compounds):
    drugs = drugs_of(compounds)
    alike = np.corrcoef(drugs.activity)
    same = np.equal.outer(drugs.mechanism, drugs.mechanism) & ~np.eye(400, dtype=bool)
    assert alike[same].mean() > 0.6
    assert_allclose((drugs.activity**2).mean(axis=1), 1)


def test_effects_have_the_size_that_potency_says_and_level_off(compounds):
    """With gain 1, no stress and one compound of potency 0.2: RMS log fold change about 0.2 over many genes."""
    drugs, rng = drugs_of(compounds), np.random.default_rng(1)
    programs = pharmacology.gene_programs(4000, rng=rng)
    effect = pharmacology.log_fold_changes(drugs, programs, np.ones(pharmacology.PROGRAMS), potency=drugs.potency,
                                         gain=1.0, stress_gain=0.0)  # fmt: skip
    weak = drugs.potency < 0.3
    size = np.sqrt((effect**2).mean(axis=1))
    assert np.median(size[weak] / drugs.potency[weak]) == pytest.approx(1, abs=0.15)
    assert np.abs(effect).max() <= pharmacology.SATURATION


def test_a_pathway_answers_as_one():
    log_gain = np.log(np.arange(1.0, pharmacology.PATHWAYS + 1))
    answer = pharmacology.answers(log_gain)
    assert_allclose(answer[1] / answer[0], 2)
    assert_allclose(answer[pharmacology.PATHWAYS :], answer[: -pharmacology.PATHWAYS])
    assert_allclose((answer**2).mean(), 1)


def test_a_cell_type_sees_about_the_potency_of_each_compound(compounds):
    """400 compounds: the sd of 0.1 is known to 0.01 (three standard errors), the mean of the log to 0.015."""
    drugs = drugs_of(compounds)
    ratio = np.log(pharmacology.exposures(drugs, rng=np.random.default_rng(0)) / drugs.potency)
    assert ratio.std() == pytest.approx(pharmacology.EXPOSURE, abs=0.011)
    assert ratio.mean() == pytest.approx(0, abs=0.015)


def test_same_seed_same_effects(compounds):
    """R38."""
    one, two, other = drugs_of(compounds), drugs_of(compounds), drugs_of(compounds, seed=1)
    assert_array_equal(one.activity, two.activity)
    assert (one.activity != other.activity).any()
