"""Folds: what is held out, that nothing leaks, and that the task folds ask the competition's question."""

import numpy as np
import pytest

from pertcast.errors import InputError, LeakError
from pertcast.types import Fold, Question
from pertcast.validation.folds import STRATEGIES, make_folds


def competition_pattern(common=4, rare=2, compounds=40, known=6, seed=0):
    """All compounds in the common cell types, a few in the rare ones, the rest of those asked for."""
    types = [f"common {i}" for i in range(common)] + [f"rare {i}" for i in range(rare)]
    rows = [(t, c) for c in range(compounds) for t in range(common + rare) if t < common or c < known]
    asked = [(t, c) for t in range(common, common + rare) for c in range(known, compounds)]
    y = np.random.default_rng(seed).normal(size=(len(rows), 7)).astype(np.float32)

    def columns(pairs):
        names = [types[t] for t, _ in pairs], [f"drug {c:02d}" for _, c in pairs], ["C" * (c + 1) for _, c in pairs]
        return [np.array(column, dtype=object) for column in names]

    return Question(tuple("ABCDEFG"), *columns(rows), y, np.arange(len(asked)), *columns(asked))


@pytest.fixture(scope="module")
def question():
    return competition_pattern()


def test_task_folds_ask_the_competitions_question(question):
    """S004-10: hidden compounds of a cell type are seen only in other cell types; known ones stay known."""
    folds = make_folds("task", question)
    rotations = [f for f in folds if f.name.startswith("rotate")]
    known = [f for f in folds if f.name.startswith("known")]
    assert len(rotations) == 4
    assert len(known) == 3
    for fold in rotations:
        (hidden_type,) = set(question.cell_type[fold.valid])
        assert hidden_type.startswith("common")
        # 6 of 40 compounds are known in the rare types: the same share, and the same compounds, stay here
        left = fold.train[question.cell_type[fold.train] == hidden_type]
        assert set(question.compound[left]) == {f"drug {c:02d}" for c in range(6)}
        assert set(question.compound[fold.valid]) == {f"drug {c:02d}" for c in range(6, 40)}
        assert set(question.compound[fold.valid]) <= set(question.compound[fold.train])
    for fold in known:
        assert all(t.startswith("rare") for t in question.cell_type[fold.valid])
        in_rare = np.char.startswith(question.cell_type[fold.train].astype(str), "rare")
        assert not set(question.compound[fold.valid]) & set(question.compound[fold.train][in_rare])
    assert sorted(np.concatenate([f.valid for f in known])) == sorted(
        np.flatnonzero(np.char.startswith(question.cell_type.astype(str), "rare"))
    )


def test_task_folds_thin_compounds_to_what_is_asked():
    """Where the asked compounds have one training row, held-out compounds have one too; unseen ones are unseen."""
    full = competition_pattern(common=9, rare=2)
    keep = (full.cell_type == "common 0") | (np.char.find(full.compound.astype(str), "drug 0") >= 0)
    once = _subset(full, np.flatnonzero(keep))
    asked_once = _ask(once, [c for c in full.test_compound if (once.compound == c).sum() == 1])
    for fold in make_folds("task", asked_once):
        counts = [(once.compound[fold.train] == c).sum() for c in once.compound[fold.valid]]
        assert set(counts) == {1}, fold.name
    unseen = _ask(full, ["a new drug"])
    for fold in make_folds("task", unseen):
        assert not set(full.compound[fold.train]) & set(full.compound[fold.valid]), fold.name


def test_unrelated_types_are_hidden_together_where_there_are_many():
    question = competition_pattern(common=9, rare=2)
    rotations = [f for f in make_folds("task", question) if f.name.startswith("rotate")]
    assert [len(set(question.cell_type[f.valid])) for f in rotations] == [2, 2, 2, 2]
    hidden = [t for f in rotations for t in set(question.cell_type[f.valid])]
    assert len(hidden) == len(set(hidden))


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_no_pair_stands_on_both_sides(strategy, question):
    """R06, R08: hashes of (cell type, compound) are disjoint; grouped strategies split no group."""
    scaffolds = np.array([f"scaffold {int(c[-2:]) % 7}" for c in question.compound], dtype=object)
    groups = scaffolds if strategy == "scaffold" else None
    for fold in make_folds(strategy, question, groups=groups):
        pairs = [hash((question.cell_type[i], question.compound[i])) for i in range(len(question))]
        assert not {pairs[i] for i in fold.train} & {pairs[i] for i in fold.valid}
        column = {"compound": question.compound, "scaffold": scaffolds, "celltype": question.cell_type}.get(strategy)
        if column is not None:
            assert not set(column[fold.train]) & set(column[fold.valid])
        if fold.groups is not None:
            assert not set(fold.groups[fold.train]) & set(fold.groups[fold.valid])


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"task"}))
def test_every_row_is_held_out_once(strategy, question):
    valid = np.concatenate([f.valid for f in make_folds(strategy, question)])
    assert sorted(valid) == list(range(len(question)))


def test_stratified_folds_hold_out_every_cell_type_alike(question):
    for fold in make_folds("stratified", question):
        names, counts = np.unique(question.cell_type[fold.valid].astype(str), return_counts=True)
        expected = {n: (question.cell_type == n).sum() / 5 for n in names}
        assert all(abs(count - expected[n]) <= 1 for n, count in zip(names, counts, strict=True))


def test_kmeans_folds_spread_clusters_over_the_folds(question):
    """Two far clusters of responses: each fold holds out a fifth of both."""
    y = question.y.copy()
    y[::4] += 100
    far = np.arange(len(question)) % 4 == 0
    for fold in make_folds("kmeans", _replace(question, y=y)):
        assert abs(far[fold.valid].sum() - far.sum() / 5) <= 1


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_same_seed_same_folds(strategy, question):
    """R38."""
    once, again = make_folds(strategy, question, seed=3), make_folds(strategy, question, seed=3)
    assert [(f.name, f.valid.tolist(), f.train.tolist()) for f in once] == [
        (f.name, f.valid.tolist(), f.train.tolist()) for f in again
    ]
    if strategy != "celltype":
        other = make_folds(strategy, question, seed=4)
        assert [f.valid.tolist() for f in other] != [f.valid.tolist() for f in once]


def test_any_size():
    """R39: 3 cell types, 5 compounds."""
    question = competition_pattern(common=2, rare=1, compounds=5, known=2)
    for strategy in STRATEGIES:
        assert make_folds(strategy, question)


def test_a_leak_is_refused_at_birth():
    """R06: a fold that shares rows, or a group, is never made."""
    with pytest.raises(LeakError, match="trains and validates on 1 same rows, first 2"):
        Fold("f", np.array([0, 1, 2]), np.array([2, 3]), "rows")
    labels = np.array(["a", "b", "a", "c"], dtype=object)
    with pytest.raises(LeakError, match="holds out compound, yet both sides have a"):
        Fold("f", np.array([0, 1]), np.array([2, 3]), "compound", labels)
    with pytest.raises(InputError, match="both must be at least 1"):
        Fold("f", np.array([0, 1]), np.array([], int), "rows")


def test_unknown_strategy_and_too_little_data(question):
    with pytest.raises(InputError, match=r"Unknown fold strategy 'scafold'. Did you mean 'scaffold'\?"):
        make_folds("scafold", question)
    one = _subset(question, np.flatnonzero(question.compound == "drug 00"))
    with pytest.raises(InputError, match="at least 2 different compounds, got 1"):
        make_folds("compound", one)


def _replace(question, **changes):
    from dataclasses import replace

    return replace(question, **changes)


def _subset(question, rows):
    names = ("cell_type", "compound", "smiles", "y")
    return _replace(question, **{name: getattr(question, name)[rows] for name in names})


def _ask(question, compounds):
    compounds = np.array(sorted(set(compounds)), dtype=object)
    n = len(compounds)
    types = np.array([("rare 0", "rare 1")[i % 2] for i in range(2 * n)], dtype=object)
    both = np.repeat(compounds, 2)
    none = np.array([None] * 2 * n, dtype=object)
    return _replace(question, test_ids=np.arange(2 * n), test_cell_type=types, test_compound=both, test_smiles=none)
