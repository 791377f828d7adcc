"""Wells, design and contrasts: counted by hand, and against means worked out directly."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from pertcast.simulate import plates


def wells():
    return plates.lay_out(np.array([1, 4]), np.array([0, 2, 3, 5, 6]), donors=3, plates=2, dmso_wells=4,
                          positive_wells=2)  # fmt: skip


def test_every_compound_stands_once_per_donor_and_controls_on_every_plate():
    laid = wells()
    assert len(laid) == 3 * (5 + 2 * (4 + 2 * 2))
    for compound, times in ((plates.DMSO, 4 * 6), (1, 2 * 6), (4, 2 * 6), (0, 3), (6, 3)):
        assert (laid.compound == compound).sum() == times
    assert_array_equal(laid.donor[laid.compound == 3], [0, 1, 2])
    assert_array_equal(laid.plate // 2, laid.donor)  # two plates per donor
    for compound in (0, 2, 3, 5, 6):  # dealt out alike for every donor
        assert len(set(laid.plate[laid.compound == compound] % 2)) == 1


def test_design_has_full_rank_and_names_its_columns():
    columns, names = plates.design(wells(), np.arange(7))
    assert names[:8] == ["DMSO", *(f"compound {i}" for i in range(7))]
    assert names[8:] == ["donor 1", "donor 2", "plate 1", "plate 3", "plate 5"]
    assert np.linalg.matrix_rank(columns) == columns.shape[1] == 13
    assert_array_equal(columns[:, :8].sum(axis=1), 1)


def test_lost_wells_leave_the_others():
    left = wells().without(np.array([2, 5]))
    assert not np.isin(left.compound, [2, 5]).any()
    assert len(left) == len(wells()) - 6


def test_contrasts_are_linear_maps_of_the_wells():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(len(wells()), 30))
    tests, maps = plates.compare(y, wells(), np.arange(7))
    assert_allclose(maps @ y, tests.effect, atol=1e-12)
    assert_allclose(np.sqrt((maps**2).sum(axis=1)), tests.unscaled_sd[:, 0])


def test_without_noise_a_contrast_is_the_planted_difference():
    """Donors and plates add their own; compound 3 lies 2 above DMSO, all others at DMSO."""
    laid, rng = wells(), np.random.default_rng(1)
    y = np.array([5.0, 1.0, -4.0])[laid.donor] + rng.normal(size=6)[laid.plate] + 2.0 * (laid.compound == 3)
    tests, _ = plates.compare(y[:, None] + 1e-9 * rng.normal(size=(len(laid), 20)), laid, np.arange(7))
    assert_allclose(tests.effect, 2.0 * (np.arange(7) == 3)[:, None] * np.ones(20), atol=1e-7)
