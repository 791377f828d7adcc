"""What a blend leaves over, gene by gene: learned where it can be, from other folds, and trusted with measure."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pertcast import correction
from pertcast.correction import KNOWN, Known, Said, fit_correction, trust
from pertcast.ensemble import blend_members
from pertcast.types import Fold, Predictions, Question
from pertcast.validation.cross_validate import OutOfFold

TYPES = ("A", "B", "C", "D")


def question_of(y: np.ndarray, compounds: int) -> Question:
    """Every compound in every cell type, row after row."""
    rows = len(y)
    types = np.array([TYPES[i // compounds] for i in range(rows)], dtype=object)
    names = np.array([f"drug {i % compounds}" for i in range(rows)], dtype=object)
    none = np.array([None] * rows, dtype=object)
    genes = tuple(f"g{j}" for j in range(y.shape[1]))
    return Question(genes, types, names, none, y.astype(np.float32), np.arange(2), types[:2], names[:2], none[:2])


def by_type(rows: int, compounds: int) -> list[Fold]:
    of_row = np.arange(rows) // compounds
    return [
        Fold(f"{k}", np.flatnonzero(of_row != k), np.flatnonzero(of_row == k), "cell_type")
        for k in range(rows // compounds)
    ]


@pytest.fixture(scope="module")
def planted():
    """One member is right where the gene's mean is high, the other where it is low; their blend is neither."""
    rng = np.random.default_rng(0)
    compounds, genes = 20, 200
    effect = rng.normal(size=(compounds, genes))
    high = np.arange(genes) % 2 == 0
    y = np.tile(effect, (4, 1)) + 3 * high + 0.1 * rng.normal(size=(80, genes))
    wrong = rng.normal(size=y.shape) + 3 * high
    members = {"one": np.where(high, y, wrong), "two": np.where(high, wrong, y)}
    question, folds = question_of(y, compounds), by_type(80, compounds)
    members = {name: said.astype(np.float32) for name, said in members.items()}
    return question, folds, members, sum(members.values()) / 2


def fitted(planted):
    question, folds, members, blend = planted
    return fit_correction(question, folds, rows=np.arange(80), fold=np.arange(80) // 20, members=members, blend=blend)


def mrrmse(y, p):
    return np.sqrt(((y - p) ** 2).mean(1)).mean()


def test_whom_to_trust_is_found_gene_by_gene(planted):
    """No weights can tell the halves of the genes apart; the correction of other folds takes most of the error away."""
    question, folds, members, blend = planted
    found, left = fitted(planted)
    before, after = mrrmse(question.y, blend), mrrmse(question.y, blend + left)
    assert before > 0.6
    assert after < 0.6 * before
    trusted, shares = trust(question.y, blend, left, np.arange(80) // 20)
    assert trusted.share == 1
    assert_array_equal(shares, 1)
    assert trusted.gain == pytest.approx(before - after, rel=1e-6)
    assert sum(found.shares().values()) == pytest.approx(1)


def test_rows_to_predict_are_corrected_as_held_out_rows_are(planted):
    """The correction of all folds, asked about rows of one fold, knows what those without it knew."""
    question, folds, members, blend = planted
    found, left = fitted(planted)
    rows = folds[1].valid
    said = Said(Known(question, folds[1].train), question.cell_type[rows], question.compound[rows],
                {m: v[rows] for m, v in members.items()}, blend[rows])  # fmt: skip
    asked = found.apply(said)
    assert np.corrcoef(asked.ravel(), left[rows].ravel())[0, 1] > 0.95
    assert mrrmse(question.y[rows], blend[rows] + asked) < mrrmse(question.y[rows], blend[rows] + left[rows]) * 1.02


def test_what_is_handed_in_is_corrected(planted):
    """Rows of the first cell type are asked again: their weights alone cannot do what the correction does."""
    question, folds, members, _ = planted
    asked = np.arange(20)
    question = replace(
        question, test_ids=asked, test_cell_type=question.cell_type[asked], test_compound=question.compound[asked],
        test_smiles=question.smiles[asked],
    )  # fmt: skip
    fold = np.arange(80) // 20
    held_out = OutOfFold(np.arange(80), fold, np.ones(80, bool), members)
    test = {name: Predictions(asked, question.genes, said[asked]) for name, said in members.items()}
    blended = blend_members(question, held_out, test, folds=folds)
    (blend,) = blended.blends.values()
    assert blend.trust is not None
    assert blend.trust.share == 1
    assert "A correction gene by gene used: gains " in blended.report()
    assert blend.as_dict()["correction"]["share"] == 1
    alone = sum(w * said for w, said in zip(blend.weights, members.values(), strict=True))
    for rows, corrected in ((asked, blended.test), (np.arange(80), blended.held_out)):
        assert mrrmse(question.y[rows], corrected) < 0.6 * mrrmse(question.y[rows], alone[rows])


def test_one_fold_is_not_corrected(planted):
    """There is no other fold to learn from."""
    question, folds, members, _ = planted
    rows = folds[0].valid
    held_out = OutOfFold(rows, np.zeros(20, int), np.ones(20, bool), {m: v[rows] for m, v in members.items()})
    test = {name: Predictions(np.arange(2), question.genes, said[:2]) for name, said in members.items()}
    (blend,) = blend_members(question, held_out, test, folds=folds[:1]).blends.values()
    assert blend.trust is None
    assert "correction" not in blend.text()


def test_the_same_bytes_twice_and_any_batch(planted, monkeypatch):
    question, folds, members, blend = planted
    found, left = fitted(planted)
    again, left_again = fitted(planted)
    assert left.tobytes() == left_again.tobytes()
    rows = np.arange(40)
    said = Said(Known(question, folds[2].train), question.cell_type[rows], question.compound[rows],
                {m: v[rows] for m, v in members.items()}, blend[rows])  # fmt: skip
    at_once = found.apply(said)
    monkeypatch.setattr(correction, "ROWS", 7)
    assert_array_equal(again.apply(said), at_once)


def test_held_out_truth_never_reaches_its_own_correction(planted):
    """R09: rows of a fold are corrected by what other folds taught, from what its training rows say."""
    question, _, members, blend = planted
    always = np.arange(40)  # rows that every fold trains on; the others are held out by one fold, dropped by the other
    folds = [Fold("0", always, np.arange(40, 60), "rows"), Fold("1", always, np.arange(60, 80), "rows")]
    rows, fold = np.arange(40, 80), np.arange(40) // 20
    out_of_fold = {"members": {m: v[rows] for m, v in members.items()}, "blend": blend[rows]}
    _, before = fit_correction(question, folds, rows=rows, fold=fold, **out_of_fold)
    poisoned = question.y.copy()
    poisoned[60:] = 1e6
    _, after = fit_correction(question_of(poisoned, 20), folds, rows=rows, fold=fold, **out_of_fold)
    assert_array_equal(after[fold == 1], before[fold == 1])
    assert np.abs(after[fold == 0] - before[fold == 0]).max() > 1


def test_what_is_known_of_a_value():
    """By hand: three cell types, two compounds, one pair hidden; C answers like A, less like B."""
    y = np.array([[1.0, 2], [3, -2], [-1, 2], [5, 0], [1, 1.5], [9, 9]])  # A0 A1 B0 B1 C0 (C1 hidden)
    question = question_of(y, 2)
    known = Known(question, np.arange(5))
    said = known.say(np.array(["C", "D"], object), np.array(["drug 1", "drug 7"], object))
    assert said.shape == (2, len(KNOWN), 2)
    at = {name: i for i, name in enumerate(KNOWN)}
    assert_allclose(said[0, at["mean of the gene"]], [9 / 5, 3.5 / 5])
    assert_allclose(said[0, at["largest of the gene"]], [5, 2])
    assert_allclose(said[0, at["mean of the gene in the cell type"]], [1, 1.5])
    assert_allclose(said[0, at["sd of the gene in the cell type"]], [0, 0])
    assert_allclose(said[0, at["mean of the compound in other cell types"]], [4, -1])
    assert_allclose(said[0, at["smallest of the compound in other cell types"]], [3, -2])
    assert_allclose(said[0, at["the compound in the cell type most alike"]], [3, -2])  # A: cosine 0.99; B: 0.5
    assert_allclose(said[0, at["the compound in the cell type next alike"]], [5, 0])
    assert_allclose(said[1, :4], said[1, 4:8])  # a cell type never seen: all rows
    assert_allclose(said[1, 8:], 0)  # a compound never seen


def test_a_rows_own_truth_is_not_known(planted):
    question, folds, _, _ = planted
    changed = question.y.copy()
    changed[folds[0].valid] = 1e6
    pairs = question.cell_type[folds[0].valid], question.compound[folds[0].valid]
    before = Known(question, folds[0].train).say(*pairs)
    assert_array_equal(Known(question_of(changed, 20), folds[0].train).say(*pairs), before)


def test_half_is_trusted_unless_other_folds_speak_clearly():
    rng = np.random.default_rng(1)
    y = rng.normal(size=(60, 50))
    fold = np.arange(60) // 15
    blend = y - rng.normal(size=y.shape)
    trusted, _ = trust(y, blend, y - blend, fold)
    assert trusted.share == 1
    assert trusted.text().startswith("a correction gene by gene used: gains ")
    trusted, shares = trust(y, blend, 0.5 * (y - blend) + rng.normal(size=(60, 1)) * 1e-3, fold)
    assert trusted.share == 1
    trusted, shares = trust(y, blend, blend - y, fold)
    assert trusted.share == 0
    assert_array_equal(shares, 0)
    assert trusted.text().startswith("a correction gene by gene not used: half of it would lose ")
    unclear = (y - blend) * np.resize([-0.05, 0.05], (60, 1))
    trusted, _ = trust(y, blend, unclear, fold)
    assert trusted.share == 0.5
    assert "used by half: " in trusted.text()
    assert trusted.as_dict()["share"] == 0.5


def test_noise_is_left_alone():
    """Truth that nothing foretells: what is added is small beside it, and costs next to nothing."""
    rng = np.random.default_rng(2)
    y = rng.normal(size=(80, 200)).astype(np.float32)
    said = rng.normal(size=y.shape).astype(np.float32)
    _, left = fit_correction(
        question_of(y, 20), by_type(80, 20), rows=np.arange(80), fold=np.arange(80) // 20,
        members={"one": said}, blend=np.zeros_like(y),
    )  # fmt: skip
    assert np.sqrt((left**2).mean()) < 0.2
    assert mrrmse(y, left) < 1.02 * mrrmse(y, 0 * y)
