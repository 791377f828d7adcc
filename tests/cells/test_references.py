"""No change, mean shift and quantile map against numbers worked by hand and against one-dimensional transport."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from cell_cases import as_cells, make_cells
from pertcast.cells.registry import build
from pertcast.errors import InputError
from pertcast.metrics.distribution import evaluate, per_gene_wasserstein
from pertcast.simulate.base import BaseSettings, simulate_base


def control_of(cells, context=None):
    rows = cells.untreated if context is None else cells.untreated & (cells.context == context)
    return cells.take(rows)


def means(cells, condition, context):
    return cells.x.toarray()[(cells.condition == condition) & (cells.context == context)].astype(float).mean(0)


def test_no_change_changes_the_label_only():
    cells = make_cells()
    got = build("no-change").fit(cells, seed=0).predict(control_of(cells), "up", seed=0, sample=True)
    assert_array_equal(got.x.toarray(), control_of(cells).x.toarray())
    assert set(got.condition) == {"up"}
    assert_array_equal(got.ids, control_of(cells).ids)


def test_mean_shift_is_the_balanced_difference_of_means():
    """Worked by hand from three contexts of unequal size; `up` raises or keeps every mean here."""
    cells = make_cells(cells=600)
    cells = cells.take(np.flatnonzero((cells.context != "type0") | (np.arange(600) % 4 == 0)))  # fewer of one type
    model = build("mean-shift").fit(cells, seed=0)
    by_hand = np.mean([means(cells, "up", c) - means(cells, "control", c) for c in ("type0", "type1", "type2")], axis=0)
    rising = by_hand > 0
    assert rising[:4].all()
    assert_allclose(model.shift[model.seen.conditions.index("up")][rising], by_hand[rising], rtol=1e-6)


def test_a_lowered_mean_is_met_in_the_training_cells_and_nothing_falls_below_0():
    """`down` halves four genes in two contexts: the balanced mean of shifted untreated cells is the treated one's."""
    cells = make_cells(cells=600)
    model = build("mean-shift").fit(cells, seed=0)
    shifted = []
    for context in ("type0", "type1"):
        got = model.predict(control_of(cells, context), "down", seed=0).x.toarray().astype(float)
        assert (got >= 0).all()
        shifted.append(got.mean(0))
    want = np.mean([means(cells, "down", context) for context in ("type0", "type1")], axis=0)
    assert_allclose(np.mean(shifted, axis=0), want, rtol=1e-5, atol=1e-6)


def test_adding_a_constant_is_exact_for_the_additive_drug():
    """S002-10: +10 to every gene; gene means to 1e-4, no count below 10, and no distance but the draws' own."""
    drawn = simulate_base(4000, 20, 0.8, seed=1, settings=BaseSettings())
    first, second = as_cells(drawn.take(slice(0, 2000))), as_cells(drawn.take(slice(2000, 4000)), condition="drug")
    treated = replace(second, x=csr_array(second.x.toarray() + 10))
    model = build("mean-shift").fit(first.join(treated), seed=0)
    expected = model.predict(first, "drug", seed=0).x.toarray().astype(float)
    assert np.abs(expected.mean(0) - treated.x.toarray().astype(float).mean(0)).max() < 1e-5
    sampled = model.predict(first, "drug", seed=0, sample=True).x
    assert (sampled.toarray() < 9).mean() < 1e-6
    assert evaluate(y_true=treated.x, y_pred=sampled).mae_of_means < 0.1


def test_rounding_by_chance_keeps_sums():
    cells = make_cells(cells=900)
    model = build("mean-shift").fit(cells, seed=0)
    control = control_of(cells)
    expected = model.predict(control, "up", seed=0).x.toarray()
    drawn = np.mean([model.predict(control, "up", seed=s, sample=True).x.toarray() for s in range(40)], axis=0)
    assert_array_equal(drawn * 40, np.round(drawn * 40))
    assert_allclose(drawn.mean(0), expected.mean(0), atol=5 * 0.5 / np.sqrt(40 * len(control)))


def test_quantile_map_sends_sorted_to_sorted():
    """Without ties and with equal numbers, the map is the pairing of ranks: optimal transport in one dimension."""
    rng = np.random.default_rng(0)
    before, after = rng.gamma(2, 1, (50, 6)), rng.gamma(2, 3, (50, 6))
    cells = replace(
        make_cells(cells=100, genes=6, contexts=1),
        x=csr_array(np.concatenate([before, after]).astype(np.float32)),
        unit="log1p",
        condition=np.repeat(np.array(["control", "drug"], dtype=object), 50),
    )
    model = build("quantile-map").fit(cells, seed=0)
    for sample in (False, True):
        got = model.predict(cells.take(cells.untreated), "drug", seed=3, sample=sample).x.toarray()
        ranks = before.argsort(0).argsort(0)
        assert_allclose(got, np.take_along_axis(np.sort(after, axis=0), ranks, axis=0), rtol=1e-5)


def test_quantile_map_reproduces_the_treated_distribution():
    """In a measured context: means exactly, zeros and quantiles as far as seeded ranks of ties can."""
    cells = make_cells(cells=3000)
    model = build("quantile-map").fit(cells, seed=0)
    control = control_of(cells, "type1")
    treated = cells.take((cells.condition == "up") & (cells.context == "type1"))
    expected = model.predict(control, "up", seed=0).x.toarray().astype(float)
    assert_allclose(expected.mean(0), treated.x.toarray().mean(0), rtol=1e-5)
    drawn = model.predict(control, "up", seed=0, sample=True)
    before = per_gene_wasserstein(y_true=treated.x, y_pred=control.x)[:4].mean()
    after = per_gene_wasserstein(y_true=treated.x, y_pred=drawn.x)
    assert before > 2
    assert after.mean() < 0.15
    scores = evaluate(y_true=treated.x, y_pred=drawn.x)
    assert scores.zero_share_error < 0.02
    assert abs(scores.variance_ratio - 1) < 0.05


def test_quantile_map_is_monotone_within_a_gene():
    cells = make_cells(cells=900)
    model = build("quantile-map").fit(cells, seed=0)
    x = np.repeat(np.arange(60, dtype=np.float32)[:, None], 12, axis=1)  # beyond all that training showed
    ladder = replace(make_cells(cells=60, contexts=1), x=csr_array(x))
    for condition in ("up", "down"):
        got = model.predict(ladder, condition, seed=0).x.toarray()
        assert (np.diff(got, axis=0) >= -1e-4).all()
        assert_allclose(np.diff(got[-3:], axis=0), 1, atol=1e-4)


def test_quantile_map_elsewhere_is_that_of_the_mixture():
    """`down` was never measured in the last context: both distributions are mixtures of the other two, worked by hand
    from cells repeated so that each context weighs the same.
    """
    cells = make_cells(cells=600)
    model = build("quantile-map").fit(cells, seed=0)
    rest = cells.take(cells.context != "type2")
    equal = [np.flatnonzero((rest.context == c) & (rest.condition == k)) for c in ("type0", "type1")
             for k in ("control", "down")]  # fmt: skip
    assert len({len(rows) for rows in equal[::2]}) == len({len(rows) for rows in equal[1::2]}) == 1
    pooled = rest.take(np.concatenate(equal))
    pooled = replace(pooled, context=np.full(len(pooled), "type2", dtype=object))
    other = build("quantile-map").fit(pooled, seed=0)
    control = control_of(cells, "type2")
    got, want = (one.predict(control, "down", seed=0).x.toarray() for one in (model, other))
    assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["no-change", "mean-shift", "quantile-map"])
def test_references_read_log1p_values(name):
    cells = make_cells()
    logs = replace(cells, x=csr_array(np.log1p(cells.x.toarray())), unit="log1p")
    model = build(name).fit(logs, seed=0)
    got = model.predict(control_of(logs), "up", seed=0, sample=True)
    assert got.unit == "log1p"
    assert (got.x.toarray() >= 0).all()
    with pytest.raises(InputError, match="fitted to log1p values, got counts"):
        model.predict(control_of(cells), "up", seed=0)


@pytest.mark.parametrize("name", ["mean-shift", "quantile-map"])
def test_conditions_without_untreated_cells_beside_them_are_refused(name):
    cells = make_cells()
    condition = cells.condition.copy()
    condition[cells.context == "type1"] = "alone"
    model = build(name).fit(replace(cells, condition=condition), seed=0)
    with pytest.raises(InputError, match=r"Unknown condition 'alone'.*beside untreated cells"):
        model.predict(control_of(cells), "alone", seed=0)
