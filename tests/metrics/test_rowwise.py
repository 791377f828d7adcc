"""Row-wise metrics against scipy, scikit-learn and numbers worked by hand."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.metrics import mean_absolute_error, root_mean_squared_error
from sklearn.metrics.pairwise import cosine_similarity

from pertcast.errors import InputError
from pertcast.metrics import rowwise
from pertcast.metrics.rowwise import METRICS, mrrmse, rowwise_mae, rowwise_rmse

FIVE = [name for name in METRICS if name.startswith("rowwise")]
CORRELATIONS = ["rowwise_pearson", "rowwise_spearman", "rowwise_cosine"]


@pytest.fixture
def pair():
    rng = np.random.default_rng(3)
    y = rng.normal(size=(12, 37)).round(1)  # rounding makes ties
    return y, (0.5 * y + rng.normal(size=y.shape)).round(1)


def per_row(function, y, p):
    """Apply an outside function row by row; it may warn of constant rows, which give NaN there and 0 here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.nan_to_num([function(a, b) for a, b in zip(y, p, strict=True)])


ORACLES = {
    "mrrmse": root_mean_squared_error,
    "rowwise_rmse": root_mean_squared_error,
    "rowwise_mae": mean_absolute_error,
    "rowwise_pearson": lambda a, b: stats.pearsonr(a, b).statistic,
    "rowwise_spearman": lambda a, b: stats.spearmanr(a, b).statistic,
    "rowwise_cosine": lambda a, b: cosine_similarity(a[None], b[None])[0, 0],
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equal_to_scipy_and_sklearn(name, dtype, pair):
    y, p = (array.astype(dtype) for array in pair)
    y[3], p[4], p[5] = 0.1, 0, 2 * y[5]  # a constant truth, a prediction of zeros, a perfect correlation
    expected = per_row(ORACLES[name], y.astype(float), p.astype(float))
    assert_allclose(METRICS[name].per_row(y_true=y, y_pred=p), expected, rtol=2e-7, atol=1e-12)
    function = getattr(rowwise, name)
    assert function(y_true=y, y_pred=p) == pytest.approx(expected.mean(), rel=2e-7)
    assert METRICS[name](y_true=y, y_pred=p) == function(y_true=y, y_pred=p)


@pytest.mark.parametrize("name", METRICS)
def test_cut_into_blocks_the_same(name, pair, monkeypatch):
    y, p = pair
    whole = METRICS[name].per_row(y_true=y, y_pred=p)
    monkeypatch.setattr(rowwise, "BLOCK", 5 * y.shape[1])  # 12 rows as 5, 5 and 2
    assert_allclose(METRICS[name].per_row(y_true=y, y_pred=p), whole, rtol=1e-14)


def test_mrrmse_by_hand():
    """S004-09: zeros against all 3 is exactly 3; errors of 0 and 4 are 2 row by row, 2.828 over all."""
    assert mrrmse(y_true=np.full((4, 7), 3.0), y_pred=np.zeros((4, 7))) == 3.0
    y, p = np.array([[1.0, 1.0], [4.0, -4.0]]), np.array([[1.0, 1.0], [0.0, 0.0]])
    assert mrrmse(y_true=y, y_pred=p) == 2.0
    assert np.sqrt(((y - p) ** 2).mean()) == pytest.approx(2.828, abs=5e-4)


def test_others_by_hand():
    y, p = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[2.0, 1.0, 4.0, 4.0]])
    assert rowwise_mae(y_true=y, y_pred=p) == 0.75
    assert rowwise_rmse(y_true=y, y_pred=p) == np.sqrt(0.75)
    assert rowwise.rowwise_cosine(y_true=y, y_pred=p) == pytest.approx(32 / np.sqrt(30 * 37))
    assert rowwise.rowwise_pearson(y_true=y, y_pred=p) == pytest.approx(4.5 / np.sqrt(5 * 6.75))
    # ranks 1 2 3 4 and 2 1 3.5 3.5: centred products 0.75 + 0.75 + 0.5 + 1.5 = 3.5, squares 5 and 4.5
    assert rowwise.rowwise_spearman(y_true=y, y_pred=p) == pytest.approx(3.5 / np.sqrt(5 * 4.5))


@pytest.mark.parametrize("name", FIVE)
def test_a_missing_prediction_counts_as_zero(name, pair):
    y, p = pair
    p[2, 5] = np.nan
    p[7] = np.nan
    filled = np.nan_to_num(p, nan=0.0)
    assert METRICS[name](y_true=y, y_pred=p) == METRICS[name](y_true=y, y_pred=filled)
    assert np.isnan(p[2, 5])  # the caller's array stays as it was


def test_mrrmse_refuses_what_is_not_finite(pair):
    y, p = pair
    p[2, 5], p[9, 1] = np.nan, np.inf
    with pytest.raises(InputError, match="y_pred must be finite; it has 2 NaN or infinite.*first at row 2, column 5"):
        mrrmse(y_true=y, y_pred=p)
    with pytest.raises(InputError, match="y_true must be finite; it has 2"):
        mrrmse(y_true=p, y_pred=y)


@pytest.mark.parametrize("name", FIVE)
def test_a_missing_truth_is_refused(name, pair):
    y, p = pair
    y[0, 0] = np.nan
    with pytest.raises(InputError, match="y_true must be finite; it has 1 .* first at row 0, column 0"):
        METRICS[name](y_true=y, y_pred=p)


@pytest.mark.parametrize("name", METRICS)
def test_shapes_and_types_are_checked(name, pair):
    y, p = pair
    with pytest.raises(InputError, match=r"y_true is \(12, 37\), y_pred is \(12, 36\).*Align them"):
        METRICS[name](y_true=y, y_pred=p[:, :-1])
    with pytest.raises(InputError, match=r"y_pred must be numbers of shape .* float64 of shape \(37,\)"):
        METRICS[name](y_true=y, y_pred=p[0])
    with pytest.raises(InputError, match=r"y_true must be numbers .*shape \(0, 37\)"):
        METRICS[name](y_true=y[:0], y_pred=p[:0])
    with pytest.raises(InputError, match="y_pred must be numbers .* it is <U"):
        METRICS[name](y_true=y, y_pred=p.astype(str))


def test_whole_numbers_do_not_wrap():
    y, p = np.array([[1, 1]], np.uint8), np.array([[3, 3]], np.uint8)
    assert mrrmse(y_true=p, y_pred=y) == mrrmse(y_true=y, y_pred=p) == 2.0


values = st.floats(-100, 100).map(lambda x: round(x, 3))
arrays = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8).flatmap(
    lambda shape: st.tuples(hnp.arrays(float, shape, elements=values), hnp.arrays(float, shape, elements=values))
)


@settings(max_examples=40, deadline=None)
@given(arrays, st.randoms(use_true_random=False))
def test_order_of_rows_and_genes_does_not_matter(pair, random):
    """R05: the same shuffle of both arrays leaves every metric as it was."""
    y, p = pair
    rows, genes = (random.sample(range(n), n) for n in y.shape)
    for card in METRICS.values():
        shuffled = card(y_true=y[rows][:, genes], y_pred=p[rows][:, genes])
        assert shuffled == pytest.approx(card(y_true=y, y_pred=p), rel=1e-9, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(arrays, st.sampled_from([0.125, 2.0, 64.0]))
def test_scale(pair, factor):
    """Errors grow with the unit, correlations do not; both stay within the card's range."""
    y, p = pair
    for card in METRICS.values():
        before, after = card(y_true=y, y_pred=p), card(y_true=factor * y, y_pred=factor * p)
        expected = before if card.better == "higher" else factor * before
        assert after == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert card.range[0] <= before <= card.range[1]


@pytest.mark.parametrize("name", CORRELATIONS)
def test_extremes_of_correlation(name, pair):
    y, _ = pair
    assert METRICS[name](y_true=y, y_pred=3 * y) == pytest.approx(1)
    assert METRICS[name](y_true=y, y_pred=-y) == pytest.approx(-1)
    assert METRICS[name](y_true=y, y_pred=np.zeros_like(y)) == 0


@pytest.mark.parametrize("name", ["rowwise_pearson", "rowwise_spearman"])
def test_a_constant_row_correlates_with_nothing(name):
    """The mean of equal values may differ from them by rounding; what is left must not count as a signal."""
    constant = np.full((1, 6), 0.1)
    assert constant.mean() != 0.1
    y = np.array([[1.0, 5.0, 2.0, 2.0, 3.0, 8.0]])
    assert METRICS[name](y_true=y, y_pred=constant) == 0
    assert METRICS[name](y_true=constant, y_pred=constant) == 0


def test_every_metric_has_a_card():
    assert list(METRICS) == list(ORACLES)
    for name, card in METRICS.items():
        assert card.name == name
        assert card.better == ("higher" if card.range[1] == 1 else "lower")
        assert "\n" not in card.formula + card.reading


def test_imports_numpy_alone():
    code = "import sys, pertcast.metrics.rowwise; print({'torch', 'sklearn', 'scipy', 'pandas'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
