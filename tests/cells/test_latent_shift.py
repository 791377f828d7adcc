"""Shifts of codes worked by hand: balanced over contexts, blind to pairing, read off for the context asked."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cell_cases import make_cells
from pertcast.cells.latent_shift import LatentShift
from pertcast.errors import InputError


@pytest.fixture
def case():
    cells = make_cells()
    return np.random.default_rng(0).normal(size=(len(cells), 4)), cells


def by_hand(codes, cells, condition, context):
    within = cells.context == context
    return codes[(cells.condition == condition) & within].mean(0) - codes[cells.untreated & within].mean(0)


def test_a_measured_context_has_its_own_shift(case):
    codes, cells = case
    shift = LatentShift.of(codes, cells)
    for context in ("type0", "type1", "type2"):
        got = shift.delta("up", context, np.zeros(4))
        assert_allclose(got, by_hand(codes, cells, "up", context), rtol=1e-12)


def test_permuting_treated_cells_changes_nothing(case):
    """S002-10, R23: cells are not paired; any order gives the same shift to 1e-6, of untreated cells as well."""
    codes, cells = case
    before = LatentShift.of(codes, cells)
    treated = np.flatnonzero(~cells.untreated)
    order = np.arange(len(cells))
    order[treated] = np.random.default_rng(1).permutation(treated)
    everything = np.random.default_rng(2).permutation(len(cells))
    for rows in (order, everything):
        after = LatentShift.of(codes[rows], cells.take(rows))
        for condition in ("up", "down"):
            assert_allclose(after.shifts[condition][1], before.shifts[condition][1], atol=1e-6)


def test_unequal_numbers_of_cells_do_not_tilt_the_shift(case):
    """Contexts count once: cells of one context given three times leave an unseen context's shift as it was."""
    codes, cells = case
    rows = np.concatenate([np.arange(len(cells)), *[np.flatnonzero(cells.context == "type0")] * 2])
    one, other = LatentShift.of(codes, cells), LatentShift.of(codes[rows], cells.take(rows))
    centre = np.ones(4)
    assert_allclose(other.delta("up", "elsewhere", centre), one.delta("up", "elsewhere", centre), rtol=1e-9)


def test_an_unmeasured_context_is_read_off_by_its_distance(case):
    """A Gaussian kernel as wide as the median squared distance, worked by hand; `down` was measured in two types."""
    codes, cells = case
    shift = LatentShift.of(codes, cells)
    centre = np.array([0.3, -0.2, 0.0, 0.1])
    centres = [codes[cells.untreated & (cells.context == name)].mean(0) for name in ("type0", "type1")]
    distance = np.array([np.sum((one - centre) ** 2) for one in centres])
    weight = np.exp(-0.5 * distance / np.median(distance))
    deltas = np.stack([by_hand(codes, cells, "down", name) for name in ("type0", "type1")])
    assert_allclose(shift.delta("down", "type2", centre), (weight[:, None] * deltas).sum(0) / weight.sum(), rtol=1e-9)


def test_cells_move_by_the_shift_of_their_own_context(case):
    codes, cells = case
    shift = LatentShift.of(codes, cells)
    moved = shift.apply(codes, cells.context, condition="up")
    for context in set(cells.context):
        rows = cells.context == context
        assert_allclose(moved[rows] - codes[rows], np.tile(by_hand(codes, cells, "up", context), (rows.sum(), 1)))
    assert_array_equal(codes, case[0])


def test_saved_parts_give_the_same_shifts(case):
    codes, cells = case
    one = LatentShift.of(codes, cells)
    other = LatentShift.restored(*one.parts())
    for condition in ("up", "down"):
        for context in ("type0", "type2", "elsewhere"):
            centre = np.full(4, 0.5)
            assert_array_equal(one.delta(condition, context, centre), other.delta(condition, context, centre))


def test_conditions_without_untreated_cells_beside_them_are_not_known(case):
    codes, cells = case
    treated_only = cells.condition.copy()
    treated_only[cells.context == "type1"] = "alone"
    shift = LatentShift.of(codes, replace(cells, condition=treated_only))
    assert "alone" not in shift.shifts
    with pytest.raises(InputError, match=r"Unknown condition 'alone'.*measured beside untreated cells"):
        shift.apply(codes, cells.context, condition="alone")
