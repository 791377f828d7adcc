"""Target statistics against slow loops, scikit-learn's TargetEncoder and numbers worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import TargetEncoder

from pertcast.errors import InputError
from pertcast.features.target_stats import STATS, applied_stats, cross_fitted_stats, group_effects

ONE = {
    "mean": lambda y: y.mean(axis=0),
    "sd": lambda y: y.std(axis=0, ddof=1) if len(y) > 1 else np.zeros(y.shape[1]),
    "median": lambda y: np.quantile(y, 0.5, axis=0),
    "q25": lambda y: np.quantile(y, 0.25, axis=0),
    "q75": lambda y: np.quantile(y, 0.75, axis=0),
    "q80": lambda y: np.quantile(y, 0.8, axis=0),
}


def slow_row(stat, y, here, smooth):
    """The statistic of one row: y (o, k) are all rows that count for it, here (o,) says which share its category."""
    m = here.sum()
    if stat == "count":
        return np.array([m])
    if stat == "sd":
        return ONE[stat](y[here])
    own = ONE[stat](y[here]) if m else 0
    return (m * own + smooth * ONE[stat](y)) / (m + smooth)


def slow_effects(y, groups, keys, smooth):
    """Overall mean and group effects, categories fitted in turns with them, a dictionary at a time."""
    overall, of_key = y.mean(axis=0), {key: 0 for key in set(keys)}
    for _ in range(10):
        less = y - overall - np.array([of_key[key] + 0 * overall for key in keys])
        of_group = {g: less[groups == g].mean(axis=0) for g in set(groups)}
        less = y - overall - np.array([of_group[g] for g in groups])
        of_key = {key: less[keys == key].sum(axis=0) / ((keys == key).sum() + max(smooth, 1)) for key in set(keys)}
    return overall + np.array([of_group[g] for g in groups])


def test_group_effects_are_not_those_of_the_categories_measured():
    """A group known by strong categories only has no effect of its own; with all of them measured it is its mean."""
    strength = np.array([0.0, 0.0, 0.0, 0.0, 10.0, 10.0])
    category = np.concatenate([np.tile(np.arange(6), 20), [4, 5]])
    group = np.concatenate([np.repeat(np.arange(20), 6), [20, 20]])
    effects = group_effects(strength[category][:, None], group, category, smooth=0)
    assert abs(effects[-1, 0] - effects[0, 0]) < 1.5  # its plain mean is 6.7 above that of the others
    assert_allclose(effects[0, 0], strength.mean(), atol=0.5)


def slow_stats(keys, y, exclude, *, stat, smooth, groups=None):
    rows = []
    for key, label in zip(keys, exclude, strict=True):
        others = [j for j in range(len(keys)) if exclude[j] != label]
        left = y[others].astype(float)
        if groups is not None:
            left = left - slow_effects(left, groups[others], keys[others], smooth)
        rows.append(slow_row(stat, left, keys[others] == key, smooth))
    return np.array(rows)


@st.composite
def tables(draw):
    """Rows of up to 5 compounds and 3 cell types, ties and repeated pairs included, with any two or more labels."""
    n = draw(st.integers(3, 20))
    column = lambda most: np.array(draw(st.lists(st.integers(0, most), min_size=n, max_size=n)))  # noqa: E731
    compound, cell_type, fold = column(4), column(2), column(3)
    fold[:2] = [0, 1]
    values = st.one_of(st.integers(-3, 3), st.floats(-50, 50, width=32))
    y = np.array(draw(st.lists(st.tuples(values, values), min_size=n, max_size=n)), dtype=np.float32)
    exclude = draw(st.sampled_from([fold, np.arange(n)]))
    return compound, cell_type, exclude, y


EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@EXAMPLES
@given(tables(), st.sampled_from([0.5, 10.0]), st.booleans())
def test_cross_fitted_equal_a_slow_loop(rows, smooth, residual):
    """S004-04: every statistic, plain and after removing the cell type's mean."""
    compound, cell_type, exclude, y = rows
    groups = cell_type if residual else None
    blocks = cross_fitted_stats(compound, y, exclude, stats=STATS, smooth=smooth, groups=groups)
    for stat in STATS:
        slow = slow_stats(compound, y, exclude, stat=stat, smooth=smooth, groups=groups)
        assert_allclose(blocks[stat].dense(), slow, rtol=1e-5, atol=1e-4, err_msg=stat)


@EXAMPLES
@given(tables(), st.data(), st.booleans(), st.sampled_from([1e6, 1e30]))
def test_own_response_never_moves_own_statistics(rows, data, residual, poison):
    """S004-03, S004-04: not by one bit, nor those of any row with the same label. 1e30 finds sums it once was in."""
    compound, cell_type, exclude, y = rows
    groups = cell_type if residual else None
    row = data.draw(st.integers(0, len(y) - 1))
    poisoned = y.copy()
    poisoned[row] = poison
    before = cross_fitted_stats(compound, y, exclude, stats=STATS, groups=groups)
    after = cross_fitted_stats(compound, poisoned, exclude, stats=STATS, groups=groups)
    same = exclude == exclude[row]
    for stat in STATS:
        assert_array_equal(after[stat].dense()[same], before[stat].dense()[same], err_msg=stat)
    others = after["mean"].dense()[~same]
    assert residual or (np.abs(others) > 1e3).all()  # the poison did reach the others, by way of the overall mean


@pytest.mark.parametrize("row", [0, 57, 119])
@pytest.mark.parametrize("leave_out", ["fold", "row"])
def test_poisoned_row_does_not_see_itself(row, leave_out):
    """S004-03, R03: 1e30 stays behind in any sum that it was once part of."""
    compound, y, fold = many_rows()
    exclude = fold if leave_out == "fold" else np.arange(len(y))
    before = cross_fitted_stats(compound, y, exclude, stats=STATS)
    y[exclude == exclude[row]] = 1e30
    after = cross_fitted_stats(compound, y, exclude, stats=STATS)
    for stat in STATS:
        assert_array_equal(after[stat].dense()[row], before[stat].dense()[row], err_msg=stat)


@EXAMPLES
@given(tables())
def test_order_of_rows_does_not_matter(rows):
    compound, _, exclude, y = rows
    back = np.arange(len(y))[::-1]
    forward = cross_fitted_stats(compound, y, exclude, stats=STATS)
    backward = cross_fitted_stats(compound[back], y[back], exclude[back], stats=STATS)
    for stat in STATS:
        assert_allclose(backward[stat].dense()[back], forward[stat].dense(), rtol=1e-5, atol=1e-4)


def many_rows(n=120, k=4):
    rng = np.random.default_rng(5)
    compound = np.array([f"compound {i}" for i in rng.integers(0, 25, n)], dtype=object)
    return compound, rng.normal(1, 3, (n, k)).astype(np.float32), rng.integers(0, 4, n)


@pytest.mark.parametrize("smooth", [1.0, 10.0])
def test_mean_equals_target_encoder_column_by_column(smooth):
    """S004-04: cross-fitted over given folds, and applied to new rows with unseen categories."""
    compound, y, fold = many_rows()
    new = np.array(["compound 3", "never seen", "compound 7"], dtype=object)
    inside = cross_fitted_stats(compound, y, fold, stats=("mean",), smooth=smooth)["mean"].dense()
    outside = applied_stats(compound, y, new, stats=("mean",), smooth=smooth)["mean"].dense()
    for gene in range(y.shape[1]):
        encoder = lambda: TargetEncoder(smooth=smooth, target_type="continuous")  # noqa: E731
        oracle = encoder().fit(compound[:, None], y[:, gene]).transform(new[:, None])
        assert_allclose(outside[:, gene], oracle[:, 0], rtol=1e-5)
        for number in range(4):
            train, held = fold != number, fold == number
            fitted = encoder().fit(compound[train, None], y[train, gene])
            assert_allclose(inside[held, gene], fitted.transform(compound[held, None])[:, 0], rtol=1e-5, atol=1e-6)


def test_numbers_by_hand():
    """Compound A answers 1, 3, 8 in three cell types, B answers 4 in the first. Row 0 sees A as 3 and 8."""
    compound = np.array(["A", "A", "A", "B"], dtype=object)
    cell_type = np.array(["T", "NK", "B", "T"], dtype=object)
    y = np.array([[1.0], [3.0], [8.0], [4.0]])
    blocks = cross_fitted_stats(compound, y, cell_type, stats=STATS, smooth=2)
    row = {stat: float(block.dense()[0, 0]) for stat, block in blocks.items()}
    # Of other cell types there are 3 and 8, both of A: statistic and overall statistic are the same.
    assert row == pytest.approx(
        {"mean": 5.5, "sd": 5 / 2**0.5, "median": 5.5, "q25": 4.25, "q75": 6.75, "q80": 7.0, "count": 2}
    )
    # Row 1 (A in NK) sees A as 1 and 8, and overall 1, 8, 4: (2 * 4.5 + 2 * 13 / 3) / 4.
    assert blocks["mean"].dense()[1, 0] == pytest.approx((9 + 26 / 3) / 4)
    # Row 3 (B in T) finds B nowhere else: the overall of 3 and 8, no deviation, no rows.
    last = {stat: float(block.dense()[3, 0]) for stat, block in blocks.items()}
    assert last == pytest.approx(
        {"mean": 5.5, "sd": 0, "median": 5.5, "q25": 4.25, "q75": 6.75, "q80": 7.0, "count": 0}
    )


def test_residual_finds_the_compound_effect_that_the_cell_type_hides():
    """S004-04: response = cell-type effect (10, -10) + compound effect (A: +1, B: -1), all pairs measured twice."""
    compound = np.array(["A", "B", "A", "B"] * 2, dtype=object)
    cell_type = np.array(["T", "T", "M", "M"] * 2, dtype=object)
    y = np.where(cell_type == "T", 10.0, -10.0)[:, None] + np.where(compound == "A", 1.0, -1.0)[:, None]
    replicate = np.repeat([0, 1], 4)
    block = cross_fitted_stats(compound, y, replicate, stats=("mean",), smooth=0, groups=cell_type)["mean"]
    assert_allclose(block.dense()[:, 0], np.where(compound == "A", 1, -1))


def test_new_rows_can_look_at_other_cell_types_only():
    """S004-03: a held-out row of type T is described by the compound's answers elsewhere."""
    compound, cell_type = np.array(["A", "A", "B"], dtype=object), np.array(["T", "M", "M"], dtype=object)
    y = np.array([[1e6], [3.0], [5.0]])
    block = applied_stats(
        compound,
        y,
        np.array(["A"], dtype=object),
        stats=("mean", "count"),
        smooth=0,
        exclude_train=cell_type,
        exclude_new=np.array(["T"], dtype=object),
    )
    assert block["mean"].dense().tolist() == [[3.0]]
    assert block["count"].dense().tolist() == [[1.0]]


def test_new_rows_of_one_category_share_a_row_of_the_table():
    """Tables stay small: two categories and the unseen one make three rows, however many rows are described."""
    compound, y, _ = many_rows()
    new = np.array(["compound 3", "compound 7", "unseen", "unseen too"] * 50, dtype=object)
    block = applied_stats(compound, y, new, stats=("q80",))["q80"]
    assert block.table.shape == (3, 4)
    assert block.table.dtype == np.float32
    assert_allclose(block.dense()[2], np.quantile(y, 0.8, axis=0), rtol=1e-5)


def test_names_are_matched_not_positions():
    """S004-02: shuffled columns of y come back shuffled the same way."""
    compound, y, fold = many_rows()
    shuffled = cross_fitted_stats(compound, y[:, [2, 0, 3, 1]], fold, stats=STATS)
    for stat, block in cross_fitted_stats(compound, y, fold, stats=STATS).items():
        expected = block.dense() if stat == "count" else block.dense()[:, [2, 0, 3, 1]]
        assert_array_equal(shuffled[stat].dense(), expected)


def test_bad_settings_are_named():
    compound, y, fold = many_rows()
    with pytest.raises(InputError, match=r"Unknown target statistic 'medain'. Did you mean 'median'\?"):
        cross_fitted_stats(compound, y, fold, stats=("medain",))
    with pytest.raises(InputError, match="'smooth' of the target statistics is -1"):
        cross_fitted_stats(compound, y, fold, smooth=-1)
    with pytest.raises(InputError, match=r"leave out all 120 training rows(.|\n)*at least two labels"):
        cross_fitted_stats(compound, y, np.zeros(120, int))
    with pytest.raises(ValueError, match="together, or neither"):
        applied_stats(compound, y, compound, exclude_train=fold)
