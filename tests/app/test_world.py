"""Cells of the app: what a query sees, which cell is picked, which runs fit."""

import numpy as np
import pytest

from command_line import pertcast
from pertcast.app.bundle import REGULATORS, regulatory_model
from pertcast.app.places import BUNDLED, CELLS, RUNS
from pertcast.app.world import World, virtual_cells
from pertcast.cell_tasks.runs import open_cell_run
from pertcast.cells.trajectory import Change, roll_out
from pertcast.errors import InputError

RUN = BUNDLED / RUNS / "virtual-cell"


@pytest.fixture(scope="module")
def world():
    return World.open(BUNDLED / CELLS, open_cell_run(RUN))


def test_a_query_sees_obs_and_genes_on_the_log_scale(world):
    """Log1p of counts per 10,000, by hand for one gene."""
    counts = world.cells.x.toarray().astype(float)
    j = world.cells.genes.index("reg-3")
    np.testing.assert_allclose(world.columns["reg-3"], np.log1p(counts[:, j] / counts.sum(1) * 1e4), rtol=1e-5)
    assert set(world.columns["population"]) == {"P0", "P1", "P2"}
    assert {"batch", "reg-0-up-3", "free-2"} <= set(world.columns)
    assert len(world.columns) == len(world.obs.columns) + len(world.cells.genes)


def test_a_random_cell_of_those_that_match(world):
    """S001-13. Each draw obeys the query; other draws give other cells; the same draw the same."""
    query = 'population == "P1" and reg-3 > 3'
    rows = np.flatnonzero((world.columns["population"] == "P1") & (world.columns["reg-3"] > 3))
    picked = [world.pick(query, seed=seed) for seed in range(20)]
    assert {one.row for one in picked} <= set(rows)
    assert len({one.row for one in picked}) > 10
    assert {one.found for one in picked} == {len(rows)}
    assert world.pick(query, seed=3) == picked[3]


def test_no_match_is_said_and_any_cell_is_taken(world):
    """S001-13."""
    picked = world.pick("reg-3 > 1000", seed=0)
    assert (picked.found, picked.remark) == (0, f"No cell of {len(world.cells)} matches the query. "
                                                "A random one of all was taken instead.")  # fmt: skip
    assert 0 <= picked.row < len(world.cells)


def test_the_example_query_finds_cells(world):
    assert world.pick(world.example(), seed=0).found == (world.cells.context == "P0").sum()


def test_a_high_value_is_one_that_cells_have(world):
    values = np.sort(world.columns["reg-5"])
    assert values[0] < world.high("reg-5") < values[-1]
    assert (values <= world.high("reg-5")).mean() == pytest.approx(0.95, abs=0.01)


def planted(model, cells, regulator, value):
    """Effect (n, g) by the equations that the cells were drawn from, log1p of counts per 10,000 of the old total."""
    counts = cells.x.toarray().astype(float)
    total = counts.sum(axis=1, keepdims=True)
    before = counts[:, [cells.genes.index(regulator)]]
    after = np.expm1(value) * total / 1e4
    new = counts.copy()
    new[:, [cells.genes.index(regulator)]] = after
    for gene in model.mechanistic:
        if gene.parents == (regulator,):
            column = cells.genes.index(gene.name)
            new[:, column] += gene.mechanism.mean(after) - gene.mechanism.mean(before)
    return np.log1p(np.maximum(new, 0) / total * 1e4) - np.log1p(counts / total * 1e4)


def test_the_bundled_virtual_cell_knows_its_regulators(world):
    """Oracle: the structural equations. Single cells, regulators brought to a high value, beside no change at all."""
    cells, model = world.cells.take(np.arange(20)), regulatory_model()
    own, moved, true = [], [], []
    for i in range(REGULATORS):
        value = world.high(f"reg-{i}")
        effect = roll_out(world.model, cells, [Change(f"reg-{i}", value)], steps=20).effect()[-1]
        others = np.array([gene != f"reg-{i}" for gene in cells.genes])
        own.append([gene.startswith(f"reg-{i}-") for gene in cells.genes if gene != f"reg-{i}"])
        moved.append(effect[:, others])
        true.append(planted(model, cells, f"reg-{i}", value)[:, others])
    own, moved, true = (np.array(part) for part in (own, moved, true))
    follows = np.broadcast_to(own[:, None], true.shape)
    left = ((moved - true) ** 2)[follows].mean() / (true**2)[follows].mean()
    assert left < 0.8  # of the error of no change, in genes that follow
    assert ((moved - true) ** 2).mean() < (true**2).mean()  # and over all genes it is better than no change, too
    mean_moved, mean_true = moved.mean(axis=1)[own], true.mean(axis=1)[own]
    assert (np.sign(mean_moved) == np.sign(mean_true)).mean() > 0.9
    assert np.corrcoef(mean_moved, mean_true)[0, 1] > 0.75


def test_runs_that_are_no_virtual_cell_are_no_choice(tmp_path):
    with pytest.raises(InputError, match="holds no virtual cell. `pertcast cells fit masked-autoencoder"):
        virtual_cells(tmp_path)
    assert [run.folder for run in virtual_cells(BUNDLED / RUNS)] == [RUN]
    assert [run.folder for run in virtual_cells(RUN)] == [RUN]


def test_cells_of_other_genes_do_not_fit(tmp_path):
    other = tmp_path / "other.h5ad"
    assert pertcast("simulate", "base", "--out", other, "--cells", 50, "--genes", 12).code == 0
    import anndata

    cells = anndata.read_h5ad(other)
    cells.obs["condition"] = "control"
    cells.write_h5ad(other)
    with pytest.raises(InputError, match=r"other.h5ad' does not fit the run .* Cells lack 200 of 200 genes"):
        World.open(other, open_cell_run(RUN))
