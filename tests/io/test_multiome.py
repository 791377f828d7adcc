"""Untreated cells pooled by type, against a pivot of the same rows."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from command_line import pertcast, refused
from pertcast.io.tables import question_of, read_competition


@pytest.fixture
def rows():
    """Return 24 cells of three types with counts of 12 genes and 20 peaks: counts, cells, locations."""
    rng = np.random.default_rng(0)
    names = [f"G{j}" for j in range(12)] + [f"chr1:{j}-{j + 9}" for j in range(20)]
    cells = pd.DataFrame({"obs_id": [f"{k:04x}" for k in range(24)]})
    cells["cell_type"] = np.repeat(["NK cells", "T cells", "B cells"], [12, 8, 4])
    cells["donor_id"] = "donor_0"
    counts = rng.poisson(1.5, (24, 32))
    cell, place = np.nonzero(counts)
    long = pd.DataFrame(
        {
            "obs_id": cells["obs_id"].to_numpy()[cell],
            "location": np.array(names)[place],
            "count": counts[cell, place],
            "normalized_count": 0.5,
        }
    ).sample(frac=1, random_state=1)
    kind = ["Gene Expression"] * 12 + ["Peaks"] * 20
    var = pd.DataFrame(
        {"location": names, "gene_id": names, "feature_type": kind, "genome": "GRCh38", "interval": "chr1:0-9"}
    )
    return long, cells, var


def write(folder, long, cells, var):
    folder.mkdir(exist_ok=True)
    long.to_parquet(folder / "multiome_train.parquet", row_group_size=50)
    cells.to_csv(folder / "multiome_obs_meta.csv", index=False)
    var.to_csv(folder / "multiome_var_meta.csv", index=False)
    return folder


def test_pooled_is_a_pivot_of_the_rows(rows, tables, tmp_path):
    """Both kinds are scaled on their own; what is written is found by a competition in the same folder."""
    folder = write(tables.write(tmp_path / "data"), *rows)
    done = pertcast("baseline", folder, "--out", folder, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["genes"], told["peaks"]) == (12, 20)
    assert told["cells"] == {"B cells": 4, "NK cells": 12, "T cells": 8}
    long, cells, var = rows
    competition = read_competition(folder)
    tables_of = (competition.cell_baseline, competition.cell_accessibility)
    for kind, table in zip(("Gene Expression", "Peaks"), tables_of, strict=True):
        joined = long.merge(var[var["feature_type"] == kind], on="location").merge(cells, on="obs_id")
        sums = joined.pivot_table(index="cell_type", columns="location", values="count", aggfunc="sum", fill_value=0)
        expected = np.log1p(10_000 * sums.div(sums.sum(axis=1), axis=0))
        assert list(table.index) == list(sums.index)
        if kind == "Gene Expression":
            assert set(table.columns) == set(sums.columns)
            table = table[sums.columns]
        assert_allclose(table.to_numpy(), expected, rtol=1e-6)
    contexts = question_of(competition).contexts
    assert list(contexts) == ["cell_baseline", "cell_accessibility"]
    assert contexts["cell_accessibility"].values.shape == (3, 20)


def test_same_bytes_twice_and_no_accessibility_without_peaks(rows, tmp_path):
    long, cells, var = rows
    folder = write(tmp_path / "data", long, cells, var)
    for name in ("a", "b"):
        assert pertcast("baseline", folder, "--out", tmp_path / name).code == 0
    for file in ("cell_baseline.csv", "cell_accessibility.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    write(folder, long[long["location"].str.startswith("G")], cells, var)
    assert pertcast("baseline", folder, "--out", tmp_path / "c").code == 0
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["cell_baseline.csv"]


def test_faults_are_named(rows, tmp_path):
    long, cells, var = rows
    out = ("--out", tmp_path / "out")
    done = pertcast("baseline", write(tmp_path / "a", long, cells, var[1:]), *out)
    refused(done, "has 1 locations that .*multiome_var_meta.csv' lacks: G0")
    done = pertcast("baseline", write(tmp_path / "b", long.rename(columns={"location": "gene"}), cells, var), *out)
    refused(done, r"Table 'multiome_train' .*column 'location' is missing")
    wrong = var.assign(feature_type=var["feature_type"].where(var["location"] != "G0", "RNA"))
    done = pertcast("baseline", write(tmp_path / "c", long, cells, wrong), *out)
    refused(done, "'feature_type' must be one of Gene Expression, Peaks")
    silent = long[~(long["obs_id"].isin(cells["obs_id"][20:]) & long["location"].str.startswith("G"))]
    done = pertcast("baseline", write(tmp_path / "d", silent, cells, var), *out)
    refused(done, "No count of Gene Expression .* is of B cells")
    refused(pertcast("baseline", tmp_path, *out), "multiome_obs_meta.csv' cannot be read")
    assert not list((tmp_path / "out").iterdir())
