"""Context transfer: means from other contexts, counts that stay counts, no effect where there is none."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from pertcast.cells.context_transfer import ContextTransfer, ContextTransferConfig
from pertcast.cells.count_moves import added, find_moves, kept, pooled_dispersion
from pertcast.cells.count_shift import SCALE, _recovered, comparable_counts
from pertcast.io.single_cells import read_cells
from pertcast.types import Cells

GENES = 300


def simulated(*, effect: float, seed: int = 0, contexts: int = 5, cells: int = 60) -> Cells:
    """Draw cells of several contexts; a treatment multiplies the means of the first 30 genes by exp(effect)."""
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(-0.5, 1, GENES))
    parts = []
    for number in range(contexts):
        own = base * np.exp(0.4 * rng.normal(size=GENES))
        for condition in ("control", "drug"):
            mean = own * np.exp(np.where(np.arange(GENES) < 30, effect if condition == "drug" else 0, 0))
            depth = np.exp(rng.normal(0, 0.3, cells))[:, None]
            x = rng.poisson(depth * mean * rng.gamma(2, 0.5, (cells, GENES)))
            names = np.array([f"{condition}-{number}-{i}" for i in range(cells)], dtype=object)
            same = [np.full(cells, label, dtype=object) for label in (condition, f"type-{number}", "one")]
            genes = tuple(f"GENE{j:04d}" for j in range(GENES))
            parts.append(Cells(names, genes, csr_array(x.astype(np.float32)), "counts", *same, "control"))
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.join(part)
    return whole


def held_out(cells: Cells, context: str) -> tuple[Cells, Cells, Cells]:
    """Training cells, untreated cells of the context, and its treated cells, which training lacks."""
    new = (cells.context == context) & ~cells.untreated
    return cells.take(~new), cells.take((cells.context == context) & cells.untreated), cells.take(new)


def log_mean(x: np.ndarray) -> np.ndarray:
    return np.log1p(x / x.sum(1, keepdims=True) * SCALE).mean(0)


def test_a_new_context_is_predicted_from_the_others():
    """Half of the change at least is explained, and whole distributions come nearer than without any change."""
    train, control, truth = held_out(simulated(effect=1.2, cells=150), "type-2")
    model = ContextTransfer(ContextTransferConfig()).fit(train, seed=0)
    predicted = model.predict(control, "drug", seed=0, sample=True).x.toarray()
    before, after, said = (log_mean(x) for x in (control.x.toarray(), truth.x.toarray(), predicted))
    assert ((after - said)[:30] ** 2).sum() < 0.2 * ((after - before)[:30] ** 2).sum()
    assert (predicted == np.rint(predicted)).all()
    shares = (predicted == 0).mean(0) - (truth.x.toarray() == 0).mean(0)
    assert np.abs(shares).mean() < 0.05


def test_no_effect_gives_no_change():
    """Where the treatment does nothing every cell stays exactly as it was, in most draws of the data."""
    untouched = 0
    for seed in range(6):
        train, control, _ = held_out(simulated(effect=0.0, seed=seed), "type-1")
        model = ContextTransfer(ContextTransferConfig()).fit(train, seed=0)
        predicted = model.predict(control, "drug", seed=0, sample=True)
        untouched += bool((predicted.x.toarray() == control.x.toarray()).all())
    assert untouched >= 5


def test_a_planted_effect_is_recovered_in_two_contexts():
    """A weak effect, few contexts: half of it at least."""
    train, control, _ = held_out(simulated(effect=0.7, contexts=3), "type-0")
    model = ContextTransfer(ContextTransferConfig()).fit(train, seed=0)
    said = model.predict(control, "drug", seed=0).x.toarray()
    ratio = np.log(said[:, :30].sum() / control.x.toarray()[:, :30].sum())
    assert 0.35 < ratio < 0.9
    other = np.log(said[:, 30:].sum() / control.x.toarray()[:, 30:].sum())
    assert abs(other) < 0.15


def test_the_treated_cells_of_the_asked_context_are_used_where_they_were_measured():
    cells = simulated(effect=1.0)
    model = ContextTransfer(ContextTransferConfig()).fit(cells, seed=0)
    known = model.shift.means.measured["drug"]
    assert known.detected
    for number, name in enumerate(model.shift.means.contexts):
        assert_allclose(model.shift.means.shift("drug", name)[:30], known.shift[number][:30], rtol=0.2)


def test_log_values_are_turned_to_counts_and_back():
    """log1p in, log1p out; the counts behind the values are found again, and the prediction is that of counts."""
    cells = simulated(effect=1.2)
    counts = cells.x.toarray()
    logs = np.log1p(counts / counts.sum(1, keepdims=True) * SCALE)
    found, total = _recovered(csr_array(logs))
    one = np.array([row[row > 0].min() for row in counts])
    assert_allclose(found.toarray(), np.rint(counts / one[:, None]), atol=1e-6)
    assert_allclose(total * one, counts.sum(1), rtol=1e-5)
    train, control, truth = held_out(replace(cells, x=csr_array(logs.astype(np.float32)), unit="log1p"), "type-3")
    model = ContextTransfer(ContextTransferConfig()).fit(train, seed=0)
    said = model.predict(control, "drug", seed=0, sample=True)
    assert said.unit == "log1p"
    before, after = control.x.toarray().mean(0), truth.x.toarray().mean(0)
    error = (after - said.x.toarray().mean(0))[:30]
    assert (error**2).sum() < 0.2 * ((after - before)[:30] ** 2).sum()


@pytest.mark.parametrize("shift", [-0.6, -0.1, 0.0, 0.1, 0.6, 2.0])
def test_moves_meet_the_wanted_log_mean(shift):
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(1, 2, (800, 4)))
    total = np.full(800, 3000.0)
    moves = find_moves(csr_array(x.astype(float)), total, np.full(4, shift), np.full(4, 0.5), scale=SCALE, seed=1)
    drawn = moves.draw(x, total, rng=np.random.default_rng(2))
    got = (np.log1p(drawn / total[:, None] * SCALE) - np.log1p(x / total[:, None] * SCALE)).mean(0)
    assert_allclose(got, shift, atol=0.05)
    assert_allclose(moves.expected(x, total).sum(0), drawn.sum(0), atol=1.5)
    if shift <= 0:
        assert (drawn <= x).all()
    else:
        assert (drawn >= x).all()


def test_added_molecules_are_negative_binomial():
    """Mean rate * total and variance mean + a mean^2, by moments over many cells."""
    rng = np.random.default_rng(0)
    drawn = added(np.array([2e-3]), np.full(40_000, 1000.0), np.array([0.7]), rng=rng)[:, 0]
    assert_allclose(drawn.mean(), 2.0, rtol=1e-3)
    assert_allclose(drawn.var(), 2.0 + 0.7 * 4.0, rtol=0.04)


def test_thinning_keeps_the_share_exactly_and_is_binomial():
    rng = np.random.default_rng(0)
    x = np.full((20_000, 1), 6)
    drawn = kept(x, np.array([0.25]), rng=rng)[:, 0]
    assert drawn.sum() == 0.25 * x.sum()
    assert_allclose(np.bincount(drawn, minlength=7)[:3] / len(x), [0.178, 0.356, 0.297], atol=0.01)  # Bin(6, 1/4)


def test_dispersion_is_found_again():
    rng = np.random.default_rng(0)
    total = np.exp(rng.normal(8, 0.2, 3000))
    x = rng.poisson(total[:, None] / np.median(total) * 4.0 * rng.gamma(2, 0.5, (3000, 20)))
    found = pooled_dispersion(csr_array(x.astype(float)), total, [np.arange(1500), np.arange(1500, 3000)])
    assert_allclose(np.median(found), 0.5, rtol=0.1)


def test_an_unknown_context_gets_the_mean_over_contexts():
    train, control, _ = held_out(simulated(effect=1.0), "type-4")
    model = ContextTransfer(ContextTransferConfig()).fit(train, seed=0)
    strange = replace(control, context=np.full(len(control), "elsewhere", dtype=object))
    said = model.predict(strange, "drug", seed=0).x.toarray()
    assert said[:, :30].sum() > 1.5 * control.x.toarray()[:, :30].sum()


def test_same_seed_same_cells():
    train, control, _ = held_out(simulated(effect=1.0), "type-4")
    model = ContextTransfer(ContextTransferConfig()).fit(train, seed=0)
    first, second, third = (model.predict(control, "drug", seed=s, sample=True).x.toarray() for s in (1, 1, 2))
    assert_array_equal(first, second)
    assert (first != third).any()


LINES = ("A172", "T98G", "U87MG")


def planted(cells: Cells, *, seed: int) -> tuple[Cells, dict[str, np.ndarray]]:
    """Plant an effect per condition: of 60 abundant genes half gain their mean in molecules, half lose every other."""
    rng, genes = np.random.default_rng(seed), {}
    counts, total = comparable_counts(cells, "auto")
    x = np.rint(counts.toarray()).astype(np.int64)
    mean = x.mean(axis=0)
    for condition in cells.conditions:
        chosen = rng.choice(np.argsort(-mean)[:250], 60, replace=False)
        rows, (up, down) = np.flatnonzero(cells.condition == condition), np.split(chosen, 2)
        x[np.ix_(rows, up)] += rng.poisson(mean[up], (len(rows), 30))
        x[np.ix_(rows, down)] = rng.binomial(x[np.ix_(rows, down)], 0.5)
        genes[condition] = chosen
    return replace(cells, x=csr_array(np.log1p(x / total[:, None] * SCALE).astype(np.float32))), genes


@pytest.mark.slow
@pytest.mark.real_data
def test_an_effect_planted_in_measured_cells_is_found_and_half_recovered(real_data):
    """Cells of perturbed lines in which nothing is found as they are: what is planted in them is found in every one of
    27 held-out pairs of condition and line, and at least half of it is predicted.
    """
    path = real_data / "perturbseq" / "four_lines_5961.h5ad"
    cells = read_cells(path, condition_key="condition", control="control", context_key="cell_type")
    cells = cells.take(np.isin(cells.context, LINES))
    everywhere = [name for name in cells.conditions if set(LINES) <= set(cells.context[cells.condition == name])]
    cells = cells.take(cells.untreated | np.isin(cells.condition, everywhere))
    changed, genes = planted(cells, seed=0)
    recovered = []
    for fold in range(3):
        pairs = [(name, LINES[(number + fold) % 3]) for number, name in enumerate(everywhere)]
        held = np.zeros(len(cells), bool)
        for name, line in pairs:
            held |= (cells.condition == name) & (cells.context == line)
        silent = ContextTransfer(ContextTransferConfig()).fit(cells.take(~held), seed=0)
        model = ContextTransfer(ContextTransferConfig()).fit(changed.take(~held), seed=0)
        for name, line in pairs:
            control, treated = (cells.context == line) & cells.untreated, held & (cells.condition == name)
            before = cells.take(control)
            said = (model.predict(before, name, seed=0, sample=True).x - before.x).mean(axis=0)[genes[name]]
            true = (changed.take(treated & (cells.context == line)).x.mean(axis=0)
                    - cells.take(treated & (cells.context == line)).x.mean(axis=0))[genes[name]]  # fmt: skip
            recovered.append(float(said @ true / (true @ true)))
            assert not silent.shift.means.measured[name].detected
            assert model.shift.means.measured[name].detected
    assert len(recovered) == 27
    assert min(recovered) >= 0.5
    assert np.mean(recovered) < 1.2
