"""Trajectories: schedules, what is changed, what follows, and that nothing follows from nothing."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from cell_cases import make_cells
from pertcast.cells.log_scale import as_log1p
from pertcast.cells.trajectory import Change, roll_out, schedule
from pertcast.errors import InputError


class Linear:
    """A virtual cell that can be worked out by hand: every gene is expected at a weighted sum of the others, plus 1."""

    def __init__(self, genes, weight):
        self.genes, self.weight = genes, weight  # (g, g): from, to; no gene tells itself

    def describe(self, x, held):
        return held

    def expected(self, x, told):
        found = (x @ self.weight + 1).astype(np.float32)
        found[:, told] = x[:, told]
        return found


@pytest.fixture
def cells():
    cells = make_cells(cells=24, genes=5)
    return replace(cells, x=csr_array(as_log1p(cells).toarray() + 1), unit="log1p")  # far from 0, where nothing falls


@pytest.fixture
def model(cells):
    """Gene 0 tells 1 by half, 1 tells 2 by minus a quarter; 3 and 4 stand alone."""
    weight = np.zeros((5, 5))
    weight[0, 1], weight[1, 2] = 0.5, -0.25
    return Linear(cells.genes, weight)


def test_the_published_schedule_and_its_mending():
    """R12, S001-07: 0.3, 0.6, 0.9, 1.0, 1.0, where the published steps ran on to 1.2."""
    assert_allclose(schedule(5, 0.3), [0, 0.3, 0.6, 0.9, 1, 1])


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.37, 1.0, None, 1 / 49])
def test_schedules_rise_and_end_at_the_target(fraction):
    """S001-07: never falls, never passes the target, ends exactly there."""
    shares = schedule(50, fraction)
    assert (np.diff(shares) >= 0).all()
    assert (shares[0], shares[-1], len(shares)) == (0, 1, 51)
    assert shares.max() == 1


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.37, 1.0])
@pytest.mark.parametrize("target", [0.0, 7.5])
def test_the_changed_gene_is_where_it_should_be_in_every_state(cells, model, fraction, target):
    """S001-07: all states, first and last among them, for a rise and for a knock-out."""
    gene = cells.genes[0]
    rolled = roll_out(model, cells, [Change(gene, target)], steps=12, fraction=fraction)
    start = cells.x.toarray()[:, 0]
    want = start + np.minimum(1, fraction * np.arange(13))[:, None] * (target - start)
    assert_allclose(rolled.perturbed[:, :, 0], want, rtol=1e-5, atol=1e-6)
    assert_array_equal(rolled.perturbed[-1, :, 0], np.float32(target))
    assert (rolled.perturbed >= 0).all()


def test_first_state_is_the_observed_cell_and_inputs_stay(cells, model):
    """S001-09, R13: steps + 1 states; the first equals a copy made before; the cells are as they were."""
    before = cells.x.toarray().copy()
    rolled = roll_out(model, cells, [Change(cells.genes[0], 9)], steps=6)
    assert rolled.perturbed.shape == rolled.unperturbed.shape == (7, 24, 5)
    for path in (rolled.perturbed, rolled.unperturbed):
        assert_array_equal(path[0], before)
    assert_array_equal(cells.x.toarray(), before)
    kept = rolled.perturbed.copy()
    roll_out(model, cells, [Change(cells.genes[0], 0)], steps=6)
    assert_array_equal(rolled.perturbed, kept)


def test_imputed_cells_are_a_start_on_request(cells, model):
    """S001-09: both paths start where zeros are what the model expects of them, by hand; nothing else moves."""
    x = cells.x.toarray()
    x[3, :] = [0, 2, 0, 0, 5]
    some = replace(cells, x=csr_array(x))
    rolled = roll_out(model, some, [Change(cells.genes[0], 2)], steps=8, imputed=True)
    for path in (rolled.perturbed, rolled.unperturbed):
        assert_allclose(path[0, 3], [1, 2, 0.5, 1, 5])  # 1 of itself; 2: less a quarter of gene 1
        assert_array_equal(np.delete(path[0], 3, axis=0), np.delete(x, 3, axis=0))
    assert_allclose(rolled.unperturbed[-1], rolled.unperturbed[0])
    assert_allclose(rolled.effect()[-1, 3], [1, 0.5, -0.0625, 0, 0], atol=1e-6)  # gene 0 rose from 1, not from 0
    assert_array_equal(some.x.toarray(), x)
    observed = roll_out(model, some, [Change(cells.genes[0], 2)], steps=8)
    assert_array_equal(observed.perturbed[0], x)


def test_a_model_that_says_nothing_of_zeros_imputes_none(cells, model, monkeypatch):
    """It would be the observed cell under another name."""
    monkeypatch.setattr(model, "expected", lambda x, told: x)
    some = replace(cells, x=csr_array(np.where(np.arange(5) == 2, 0, cells.x.toarray())))
    with pytest.raises(InputError, match=r"says nothing of genes observed at 0, so none can be imputed. Fit .*zeros"):
        roll_out(model, some, [Change(cells.genes[0], 2)], steps=8, imputed=True)


def test_what_follows_is_what_the_equations_say(cells, model):
    """By hand: a rise by 1 raises gene 1 by a half; half of that is read, and lowers gene 2 by a sixteenth; 3 and 4
    stay to the last bit.
    """
    rolled = roll_out(model, cells, [Change(cells.genes[0], 1, "add")], steps=8)  # at the target after four
    effect = rolled.effect()[-1]
    assert_allclose(effect[:, :3], np.broadcast_to([1, 0.5, -0.0625], (24, 3)), atol=1e-5)
    assert_array_equal(effect[:, 3:], 0)


def test_no_change_has_no_effect_at_all(cells, model):
    """S001-08, R14: the model would move every cell (it expects 1 of genes 3 and 4), the trajectory moves none."""
    assert np.abs(model.expected(cells.x.toarray(), np.array([0])) - cells.x.toarray()).max() > 1
    for change in (Change(cells.genes[0], 0, "add"), Change(cells.genes[0], 1, "fold")):
        rolled = roll_out(model, cells, [change], steps=5)
        assert_allclose(rolled.effect()[:, :, 1:], 0, atol=1e-6)
    one = cells.take(np.array([3]))
    same = roll_out(model, one, [Change(cells.genes[0], float(one.x[[0], [0]][0]))], steps=5)
    assert_array_equal(same.effect(), 0)
    assert_array_equal(same.unperturbed, np.broadcast_to(one.x.toarray(), (6, 1, 5)))


def test_modes_and_several_genes(cells, model):
    """S001-16: set, add, fold, knock-out, three genes at once; fold multiplies expression, not its logarithm."""
    a, b, c = (cells.genes[k] for k in (0, 3, 4))
    rolled = roll_out(model, cells, [Change(a, 2.5, "fold"), Change(b, -100, "add"), Change(c, 0)], steps=4)
    start, last = cells.x.toarray(), rolled.perturbed[-1]
    assert_allclose(np.expm1(last[:, 0]), 2.5 * np.expm1(start[:, 0]), rtol=1e-5)
    assert_array_equal(last[:, 3:], 0)
    assert rolled.changes[1].mode == "add"


def test_batches_of_cells_have_a_summary(cells, model):
    """S001-16: mean, spread and direction over cells, by a slow loop."""
    rolled = roll_out(model, cells, [Change(cells.genes[0], 5)], steps=5)
    table = rolled.summary()
    for j, gene in enumerate(cells.genes):
        effects = [rolled.perturbed[-1, i, j] - rolled.unperturbed[-1, i, j] for i in range(24)]
        row = table[table["gene"] == gene].iloc[0]
        assert_allclose([row["effect"], row["sd"]], [np.mean(effects), np.std(effects)], atol=1e-6)
        assert (row["rose"], row["fell"]) == (np.mean(np.array(effects) > 0), np.mean(np.array(effects) < 0))
        assert_allclose(row["after"] - row["before"], row["effect"], atol=1e-5)
    mean = rolled.mean()
    assert_allclose(mean.effect()[:, 0], rolled.effect().mean(axis=1), atol=1e-5)


def test_genes_that_rose_and_fell_most(cells, model):
    """S001-14: sign is last less first, effect only; the changed gene is left out unless asked for."""
    rolled = roll_out(model, cells, [Change(cells.genes[0], 3, "add")], steps=5)
    table = rolled.top(20)
    assert list(table["gene"]) == [cells.genes[1], cells.genes[2]]
    assert list(table["direction"]) == ["rose", "fell"]
    assert list(rolled.top(1, with_changed=True)["gene"]) == [cells.genes[0], cells.genes[2]]


def test_each_cell_goes_its_own_way(cells, model):
    """R01."""
    whole = roll_out(model, cells, [Change(cells.genes[0], 6)], steps=5)
    alone = roll_out(model, cells.take(np.array([7])), [Change(cells.genes[0], 6)], steps=5)
    assert_allclose(alone.perturbed[:, 0], whole.perturbed[:, 7], rtol=1e-6)
    assert_array_equal(alone.ids, cells.ids[[7]])


def test_progress_is_told_to_the_end(cells, model):
    seen = []
    roll_out(model, cells, [Change(cells.genes[0], 6)], steps=3, progress=lambda *at: seen.append(at))
    assert seen == [(k, 6) for k in range(1, 7)]


def test_all_faults_in_one_message(cells, model):
    changes = [Change("GENE000", 1), Change(cells.genes[1], -2), Change(cells.genes[2], 1), Change(cells.genes[2], 2)]
    with pytest.raises(InputError) as error:
        roll_out(model, cells.take(np.array([], int)), [*changes, Change(cells.genes[3], 1, "double")])
    text = str(error.value)
    for part in (
        "Trajectory has 5 problems", "Unknown gene 'GENE000'. Did you mean 'GENE00", "got -2; 0 knocks it out",
        "'GENE0002' is changed twice", "'double' of gene 'GENE0003' is none of set, add, fold", "no cell is given",
    ):  # fmt: skip
        assert part in text
    with pytest.raises(InputError, match="no gene is changed; name at least one"):
        roll_out(model, cells, [])
    with pytest.raises(InputError, match="target of gene 'GENE0000' must be a finite number, got nan"):
        roll_out(model, cells, [Change("GENE0000", float("nan"))])
    with pytest.raises(InputError, match="at least 1 step, got 0"):
        roll_out(model, cells, [Change("GENE0000", 1)], steps=0)
    with pytest.raises(InputError, match=r"above 0 and at most 1, got 1.5"):
        roll_out(model, cells, [Change("GENE0000", 1)], fraction=1.5)


def test_more_states_than_fit_are_refused_before_anything_is_done(cells, model, monkeypatch):
    monkeypatch.setattr("pertcast.cells.trajectory.MOST_NUMBERS", 2 * 6 * 23 * 5)
    with pytest.raises(InputError, match="24 cells are too many to hold all states of; take 23 at most"):
        roll_out(model, cells, [Change("GENE0000", 1)], steps=5)
