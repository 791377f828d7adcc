"""Streamed pseudobulk, against a plain pandas loop over the same rows."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from pertcast.errors import InputError
from pertcast.io import long_counts
from pertcast.io.long_counts import pseudobulk_long

BY = ["plate_name", "well", "cell_type"]


@pytest.fixture
def cells():
    """Return 60 cells in 2 plates x 2 wells x 2 types; a well occurs on both plates, with another compound."""
    rng = np.random.default_rng(0)
    plate, well, kind = rng.integers(0, 2, (3, 60))
    meta = pd.DataFrame({"obs_id": [f"{k:016x}" for k in rng.permutation(60)]})
    meta["plate_name"] = [f"plate_{k}" for k in plate]
    meta["well"] = [f"A{k}" for k in well]
    meta["cell_type"] = np.where(kind, "B cells", "NK cells")
    meta["sm_name"] = [f"compound {p}{w}" for p, w in zip(plate, well, strict=True)]
    meta["donor_id"] = [f"donor_{k}" for k in rng.integers(0, 3, 60)]
    return meta


@pytest.fixture
def counts(cells):
    rng = np.random.default_rng(1)
    seen = rng.random((60, 25)) < 0.4
    cell, gene = np.nonzero(seen)
    return pd.DataFrame(
        {
            "obs_id": cells["obs_id"].to_numpy()[cell],
            "gene": [f"G{k}" for k in gene],
            "count": rng.integers(1, 9, len(cell)),
            "normalized_count": rng.random(len(cell)),
        }
    ).sample(frac=1, random_state=2)


def write(folder, cells, counts, *, row_group_size=100, text=None):
    table = pa.Table.from_pandas(counts, preserve_index=False)
    if text is not None:
        table = table.set_column(0, "obs_id", table["obs_id"].cast(text))
    pq.write_table(table, folder / "counts.parquet", row_group_size=row_group_size)
    cells.to_csv(folder / "obs.csv", index=False)
    return folder / "counts.parquet", folder / "obs.csv"


def by_a_plain_loop(cells, counts, excluded=()):
    """One row at a time, as the definition says."""
    group_of = {row.obs_id: (row.plate_name, row.well, row.cell_type) for row in cells.itertuples()}
    groups, genes = sorted(set(group_of.values())), sorted(set(counts["gene"]))
    sums = np.zeros((len(groups), len(genes)), int)
    for row in counts.itertuples():
        if (row.obs_id, row.gene) not in excluded:
            sums[groups.index(group_of[row.obs_id]), genes.index(row.gene)] += row.count
    return groups, sums, tuple(genes)


@pytest.mark.parametrize("rows", [7, 1 << 20])
@pytest.mark.parametrize("text", [None, pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_sums_equal_a_plain_loop(tmp_path, monkeypatch, cells, counts, rows, text):
    monkeypatch.setattr(long_counts, "_ROWS", rows)
    groups, sums, genes = pseudobulk_long(*write(tmp_path, cells, counts, text=text))
    expected_groups, expected, expected_genes = by_a_plain_loop(cells, counts)
    assert list(groups[BY].itertuples(index=False, name=None)) == expected_groups
    assert genes == expected_genes
    assert sums.dtype == np.int64
    assert_array_equal(sums, expected)
    assert sums.sum() == counts["count"].sum()


def test_groups_are_described(tmp_path, cells, counts):
    """Cells are counted; a column that differs within a group (the donor) is not kept."""
    groups, _, _ = pseudobulk_long(*write(tmp_path, cells, counts))
    assert list(groups.columns) == [*BY, "sm_name", "cells"]
    assert_array_equal(groups["cells"], cells.groupby(BY).size())
    assert (groups["sm_name"] == "compound " + groups["plate_name"].str[-1] + groups["well"].str[-1]).all()


def test_excluded_pairs_are_left_out(tmp_path, cells, counts):
    """The anti-join is on cell and gene together; pairs without counts and strangers change nothing."""
    excluded = counts.iloc[5:120, :2]
    strangers = pd.DataFrame({"obs_id": ["no cell", cells["obs_id"][0]], "gene": ["G1", "no gene"]})
    path = tmp_path / "excluded.csv"
    pd.concat([excluded, excluded[:9], strangers]).to_csv(path, index=False)
    groups, sums, _ = pseudobulk_long(*write(tmp_path, cells, counts), excluded=path)
    pairs = set(excluded.itertuples(index=False, name=None))
    assert_array_equal(sums, by_a_plain_loop(cells, counts, pairs)[1])
    assert sums.sum() == counts["count"].sum() - counts["count"].iloc[5:120].sum()
    assert groups["cells"].sum() == 60
    path.write_text("obs_id,gene\n")
    _, nothing_excluded, _ = pseudobulk_long(*write(tmp_path, cells, counts), excluded=path)
    assert nothing_excluded.sum() == counts["count"].sum()


def test_other_groups(tmp_path, cells, counts):
    groups, sums, genes = pseudobulk_long(*write(tmp_path, cells, counts), by=("donor_id",))
    joined = counts.merge(cells, on="obs_id")
    expected = joined.pivot_table(index="donor_id", columns="gene", values="count", aggfunc="sum", fill_value=0)
    assert list(groups.columns) == ["donor_id", "cells"]
    assert_array_equal(sums, expected[list(genes)])
    unknown = cells.assign(donor_id=cells["donor_id"].where(cells["donor_id"] != "donor_0"))
    groups, again, _ = pseudobulk_long(*write(tmp_path, unknown, counts), by=("donor_id",))
    assert groups["donor_id"].isna().tolist() == [False, False, True]
    assert_array_equal(again, sums[[1, 2, 0]])


def test_faults_are_named(tmp_path, cells, counts):
    files = write(tmp_path, cells[1:], counts)
    with pytest.raises(InputError, match=f"holds the cell '{cells['obs_id'][0]}', which .*obs.csv' lacks"):
        pseudobulk_long(*files)
    files = write(tmp_path, pd.concat([cells, cells[:1]]), counts)
    with pytest.raises(InputError, match="the key 'obs_id' is repeated by 1 row"):
        pseudobulk_long(*files)
    with pytest.raises(InputError, match="column 'batch' is missing"):
        pseudobulk_long(*write(tmp_path, cells, counts), by=("batch",))
    with pytest.raises(InputError, match=r"column 'gene' is missing \(gene symbol\); rename column 'Gene'"):
        pseudobulk_long(*write(tmp_path, cells, counts.rename(columns={"gene": "Gene"})))
    with pytest.raises(InputError, match="column 'count' has type double, whole numbers expected"):
        pseudobulk_long(*write(tmp_path, cells, counts.assign(count=0.5)))
    with pytest.raises(InputError, match="missing or negative values in 'count'"):
        pseudobulk_long(*write(tmp_path, cells, counts.assign(count=-1)))


def test_damaged_files(tmp_path, cells, counts):
    path, meta = write(tmp_path, cells, counts)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="counts.parquet' is not a whole Parquet file"):
        pseudobulk_long(path, meta)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        pseudobulk_long(tmp_path / "none.parquet", meta)
