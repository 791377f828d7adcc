"""Single cells of the demo: the tables follow from them, those of asked pairs lie apart, what is planted is in them."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from command_line import pertcast
from pertcast import workflow
from pertcast.io.atomic import digest_file
from pertcast.simulate.demo import write_demo
from pertcast.simulate.demo_cells import SIZE_SHAPE, cells_of_wells

KEYS = ["cell_type", "sm_name"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("cells") / "demo"
    done = pertcast("demo", "--out", home, "--size", "tiny", "--cells", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["cells"] == json.loads((home / "truth.json").read_text())["cells"]
    return home


@pytest.fixture(scope="module")
def all_cells(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("all") / "all.h5ad"
    ad.concat([ad.read_h5ad(folder / name) for name in ("cells.h5ad", "solution_cells.h5ad")]).write_h5ad(path)
    return path


def computed(cells, out):
    done = pertcast("de", cells, "--design", "demo", "--out", out)
    assert done.code == 0, done.err
    return pd.read_parquet(out).set_index(KEYS)


def test_de_of_all_cells_is_the_demos_own_table(folder, all_cells, tmp_path):
    """S004-01, R11: sums of cells, log CPM and the moderated t against DMSO give both tables of the demo again."""
    found = computed(all_cells, tmp_path / "de.parquet")
    train = pd.read_parquet(folder / "de_train.parquet").set_index(KEYS)
    genes = list(train.columns[3:])
    assert_allclose(found.loc[train.index, genes], train[genes], rtol=1e-6, atol=1e-9)
    solution = pd.read_parquet(folder / "solution.parquet")
    asked = pd.read_csv(folder / "id_map.csv").set_index(KEYS).index
    assert_allclose(found.loc[asked, genes], solution[genes], rtol=1e-6, atol=1e-9)
    assert len(found) == len(train) + len(asked)


@pytest.mark.parametrize("cells", ["cells.h5ad", "."])
def test_training_cells_alone_give_the_rows_of_types_in_which_nothing_is_asked(folder, cells, tmp_path):
    """In the other types hidden wells are part of the variance, so that rows are near and not equal."""
    found = computed(folder / cells, tmp_path / "de.parquet")
    train = pd.read_parquet(folder / "de_train.parquet").set_index(KEYS)
    assert set(found.index) == set(train.index)
    genes = list(train.columns[3:])
    asked = train.index.get_level_values(0) == "B cells"
    assert_allclose(found.loc[train.index[~asked], genes], train.loc[~asked, genes], rtol=1e-6, atol=1e-9)
    there = train.loc[asked, genes].to_numpy()
    near = found.loc[train.index[asked], genes].to_numpy()
    assert np.corrcoef(near.ravel(), there.ravel())[0, 1] > 0.9
    assert np.abs(near - there).max() > 0.01


def test_cells_of_asked_pairs_are_in_no_training_file(folder):
    """S004-03: what is to be predicted cannot be learned from by accident."""
    asked = set(map(tuple, pd.read_csv(folder / "id_map.csv")[KEYS].to_numpy()))
    meta = pd.read_csv(folder / "adata_obs_meta.csv")
    train, hidden = (ad.read_h5ad(folder / name) for name in ("cells.h5ad", "solution_cells.h5ad"))
    assert not asked & set(map(tuple, meta[KEYS].to_numpy()))
    assert not asked & set(map(tuple, train.obs[KEYS].to_numpy()))
    assert set(map(tuple, hidden.obs[KEYS].to_numpy())) == asked
    assert not set(train.obs_names) & set(hidden.obs_names)


def test_the_long_table_holds_the_same_counts(folder):
    """COMPETITION 1.1: a row per cell and gene with a count, columns and table of the cells as in the competition."""
    long = pd.read_parquet(folder / "adata_train.parquet")
    meta = pd.read_csv(folder / "adata_obs_meta.csv")
    assert list(long) == ["obs_id", "gene", "count", "normalized_count"]
    assert list(meta) == [
        "obs_id", "library_id", "plate_name", "well", "row", "col", "cell_id", "donor_id", "cell_type", "sm_lincs_id",
        "sm_name", "SMILES", "dose_uM", "timepoint_hr", "control",
    ]  # fmt: skip
    train = ad.read_h5ad(folder / "cells.h5ad")
    assert list(train.obs_names) == list(meta["obs_id"])
    place = pd.Index(meta["obs_id"]).get_indexer(long["obs_id"]), train.var_names.get_indexer(long["gene"])
    dense = np.zeros(train.shape, int)
    dense[place] = long["count"]
    assert_array_equal(dense, train.X.toarray())
    assert len(long) == train.X.nnz
    total = dense.sum(1)[place[0]]
    assert_allclose(long["normalized_count"], np.log1p(1e4 * long["count"] / total), rtol=1e-5)
    assert set(meta.loc[meta["sm_name"] == "Dimethyl Sulfoxide", "control"]) == {True}
    assert meta.groupby(["plate_name", "well"])["sm_name"].nunique().max() == 1


def test_tables_are_those_of_a_demo_without_cells(folder, tmp_path):
    """R38: cells have random numbers of their own; same seed, same bytes."""
    write_demo(tmp_path / "without", size="tiny", seed=0)
    write_demo(tmp_path / "again", size="tiny", seed=0, cells=True)
    for path in sorted((tmp_path / "without").iterdir()):
        if path.name not in ("README.md", "truth.json"):
            assert digest_file(path) == digest_file(folder / path.name), path.name
    for path in sorted(folder.iterdir()):
        assert digest_file(path) == digest_file(tmp_path / "again" / path.name), path.name
    assert workflow.check(folder) == []
    assert "simulated single cells" in (folder / "README.md").read_text()
    write_demo(tmp_path / "again", size="tiny", seed=0)  # an older demo may go, cells and all
    assert not (tmp_path / "again" / "cells.h5ad").exists()


def test_planted_effects_are_in_the_cells(folder, all_cells):
    """The truth of the cells: measured log fold changes of the strongest pair follow the planted ones."""
    effects = pd.read_parquet(folder / "oracle_effects.parquet").set_index(KEYS)
    cells = ad.read_h5ad(all_cells)
    assert len(effects) == len(cells.obs[KEYS].drop_duplicates()) - cells.obs["cell_type"].nunique()  # but DMSO
    cell_type, drug = effects.loc[["NK cells"]].pow(2).sum(axis=1).idxmax()
    mean = {
        name: np.asarray(cells[((cells.obs[KEYS] == (cell_type, name)).all(axis=1)).to_numpy()].X.sum(axis=0)).ravel()
        for name in (drug, "Dimethyl Sulfoxide")
    }
    change = np.log(mean[drug] + 0.5) - np.log(mean["Dimethyl Sulfoxide"] + 0.5)
    well_counted = mean["Dimethyl Sulfoxide"] > 200
    planted = effects.loc[(cell_type, drug)].to_numpy()
    assert np.corrcoef(change[well_counted], planted[well_counted])[0, 1] > 0.85


def test_cells_share_their_wells_counts():
    """Exact sums; a cell for as many counts as there are genes; sizes vary by 1 / sqrt(6); programs move together."""
    rng = np.random.default_rng(1)
    loadings = np.zeros((1, 50))
    loadings[0, :10] = 0.5
    wells = rng.poisson(400, (20, 50))
    wells[3] = 0
    parts = list(cells_of_wells(wells, loadings, rng=rng))
    assert_array_equal([part.sum(axis=0) for part in parts], wells)
    assert [part.shape[0] for part in parts] == [max(1, round(row.sum() / 50)) for row in wells]
    cells = np.concatenate([part.toarray() for part in parts if part.nnz])
    total = cells[:, 10:].sum(axis=1)  # what no program touches
    assert total.std() / total.mean() == pytest.approx(np.sqrt(1 / SIZE_SHAPE + 1 / total.mean()), rel=0.05)
    share = cells / total[:, None]
    apart = np.corrcoef(share.T)
    inside = apart[:10, :10][~np.eye(10, dtype=bool)].mean()
    assert inside > 0.1 > abs(apart[10:, 10:][~np.eye(40, dtype=bool)].mean())
