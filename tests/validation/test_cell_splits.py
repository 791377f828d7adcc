"""Splits of cells: what is held out is never trained on, by cell, context, condition and pair."""

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cell_cases import make_cells
from pertcast.errors import InputError, LeakError
from pertcast.validation.cell_splits import STRATEGIES, CellSplit, read_splits, split_cells, write_splits


@pytest.fixture(scope="module")
def cells():
    return make_cells(cells=90)


def label(cells, strategy, row):
    return {"cell": cells.ids[row], "context": cells.context[row], "condition": cells.condition[row],
            "pair": (cells.condition[row], cells.context[row])}[strategy]  # fmt: skip


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_held_out_is_never_trained_on(strategy, cells):
    """No label of a held-out treated cell is left among the treated cells that train."""
    splits = split_cells(strategy, cells, seed=0, parts=3)
    for split in splits:
        assert set(split.train).isdisjoint(split.valid)
        assert len(split.train) + len(split.valid) == len(cells)
        held = {label(cells, strategy, row) for row in split.valid}
        left = {label(cells, strategy, row) for row in split.train if strategy == "cell" or not cells.untreated[row]}
        assert held.isdisjoint(left)
        assert strategy == "cell" or not cells.untreated[split.valid].any()
    once = np.concatenate([split.valid for split in splits])
    treated = np.arange(len(cells)) if strategy == "cell" else np.flatnonzero(~cells.untreated)
    assert_array_equal(np.sort(once), treated)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_seeds_decide_and_order_does_not(strategy, cells):
    one, again = (split_cells(strategy, cells, seed=4, parts=2) for _ in range(2))
    rows = np.random.default_rng(0).permutation(len(cells))
    turned = split_cells(strategy, cells.take(rows), seed=4, parts=2)
    other = [split_cells(strategy, cells, seed=seed, parts=2) for seed in range(8)]
    for a, b, c in zip(one, again, turned, strict=True):
        assert_array_equal(a.valid, b.valid)
        assert set(cells.ids[a.valid]) == set(cells.ids[rows][c.valid])
    assert len({tuple(splits[0].valid) for splits in other}) > 1


def test_untreated_cells_of_a_hidden_context_train_unless_told_otherwise(cells):
    for split in split_cells("context", cells, parts=3, keep_untreated=False):
        (held,) = set(cells.context[split.valid])
        assert held not in set(cells.context[split.train])
        assert cells.untreated[split.valid].any()
    for split in split_cells("context", cells, parts=3):
        (held,) = set(cells.context[split.valid])
        assert held in set(cells.context[split.train][cells.untreated[split.train]])


def test_more_parts_than_labels_are_as_many_as_labels(cells):
    assert sorted(split.holds_out for split in split_cells("condition", cells, parts=9)) == [
        "condition: down", "condition: up"]  # fmt: skip
    assert len(split_cells("condition", cells, parts=9)) == 2
    assert len(split_cells("pair", cells, parts=9)) == 5  # one pair was never measured


def test_parts_are_cut_from_the_cells_that_were_split(cells):
    split = split_cells("cell", cells)[0]
    train, valid = split.of(cells)
    assert_array_equal(train.ids, cells.ids[split.train])
    assert_array_equal(valid.x.toarray(), cells.x.toarray()[split.valid])
    with pytest.raises(InputError, match="made of other cells"):
        split.of(cells.take(np.arange(10)))


def test_leaks_are_refused_at_birth(cells):
    """A row on both sides, and an id on both sides though the rows differ."""
    with pytest.raises(LeakError, match="trains and validates on 1 same cells, first row 2"):
        CellSplit("x", np.array([0, 1, 2]), np.array([2, 3]), "nothing", cells.ids)
    twice = cells.ids.copy()
    twice[3] = twice[0]
    with pytest.raises(LeakError, match="1 cell ids on both sides: cell0"):
        CellSplit("x", np.array([0, 1]), np.array([2, 3]), "nothing", twice)
    kept = split_cells("cell", replace(cells, ids=twice), parts=3)  # copies of an id stay together
    assert sum(len(split.valid) for split in kept) == len(cells)
    other = cells.ids.copy()
    other[np.flatnonzero(cells.condition == "down")[0]] = other[np.flatnonzero(cells.condition == "up")[0]]
    with pytest.raises(LeakError, match="on both sides"):
        split_cells("condition", replace(cells, ids=other))


def test_manifests_survive_another_order_of_cells(cells, tmp_path):
    path = tmp_path / "splits.json"
    splits = split_cells("pair", cells, seed=1)
    write_splits(path, splits, seed=1)
    first = path.read_bytes()
    write_splits(path, splits, seed=1)
    assert path.read_bytes() == first
    rows = np.random.default_rng(0).permutation(len(cells))
    for one, other in zip(splits, read_splits(path, cells.ids[rows]), strict=True):
        assert (one.name, one.holds_out) == (other.name, other.holds_out)
        assert_array_equal(cells.ids[one.train], cells.ids[rows][other.train])
        assert_array_equal(cells.ids[one.valid], cells.ids[rows][other.valid])


def test_damaged_manifests_are_refused(cells, tmp_path):
    path = tmp_path / "splits.json"
    write_splits(path, split_cells("cell", cells), seed=0)
    with pytest.raises(InputError, match="name 80 cells that are not in the data: cell10"):
        read_splits(path, cells.ids[:10])
    manifest = json.loads(path.read_text())
    manifest["splits"][0]["train"].append(manifest["splits"][0]["valid"][0])
    path.write_text(json.dumps(manifest))
    with pytest.raises(LeakError, match="trains and validates on 1 same cells"):
        read_splits(path, cells.ids)
    for text in ("{", "{}", '{"format": 9, "ids": [], "splits": []}'):
        path.write_text(text)
        with pytest.raises(InputError, match="cannot be read"):
            read_splits(path, cells.ids)


def test_wrong_questions_are_refused(cells):
    with pytest.raises(InputError, match=r"Unknown way to split cells 'contxt'. Did you mean 'context'\?"):
        split_cells("contxt", cells)
    with pytest.raises(InputError, match="at least 2 parts, got 1"):
        split_cells("cell", cells, parts=1)
    one = cells.take(cells.context == "type0")
    with pytest.raises(InputError, match="need at least 2 of them with treated cells, found 1 to hold out: type0"):
        split_cells("context", one)
