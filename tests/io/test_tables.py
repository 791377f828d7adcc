"""The reader of a competition folder: everything by name, every fault found, whatever the size."""

import json
import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pertcast.errors import InputError
from pertcast.io import wide
from pertcast.io.atomic import write_parquet
from pertcast.io.tables import (
    check_competition,
    read_competition,
    read_predictions,
    read_solution,
    read_template,
)
from pertcast.io.wide import wide_table


def faults(folder) -> str:
    """Check that reading and checking agree, and return what they say."""
    found = check_competition(folder)
    with pytest.raises(InputError) as caught:
        read_competition(folder)
    assert str(caught.value) == "\n".join(found)
    return str(caught.value)


def test_small_competition_is_read_whole(tables, tmp_path):
    """R39; 37 genes, 5 compounds, 3 cell types, 4 rows to predict."""
    competition = read_competition(tables.write(tmp_path))
    assert competition.genes == competition.submission_genes == tuple(tables.y.columns)
    assert competition.y.dtype == np.float32
    assert_array_equal(competition.y, tables.y.to_numpy(np.float32))
    pd.testing.assert_frame_equal(competition.train, tables.train)
    assert competition.test["id"].tolist() == [0, 1, 2, 3]
    assert competition.test["sm_name"].tolist() == ["compound 3", "compound 4", "NA", "new"]
    assert competition.test["SMILES"].tolist() == ["CC(=O)O", "CCCl", None, None]
    assert competition.test["sm_lincs_id"].tolist() == ["LSM-3", "LSM-4", None, None]
    assert competition.unknown_compounds == ("NA", "new")
    assert competition.compounds is competition.cell_baseline is None
    assert not competition.simulated
    assert check_competition(tmp_path) == []


def test_csv_and_parquet_hold_the_same(tables, tmp_path):
    """A compound may be called NA, which is no missing value."""
    tables.train["sm_name"] = tables.train["sm_name"].replace("compound 2", "NA")
    from_parquet = read_competition(tables.write(tmp_path / "parquet"))
    from_csv = read_competition(tables.write(tmp_path / "csv", form="csv"))
    assert_array_equal(from_csv.y, from_parquet.y)
    assert from_csv.digest == from_parquet.digest
    assert from_csv.unknown_compounds == ("new",)


def test_genes_are_matched_by_name(tables, tmp_path):
    """R05, S004-02; the genes of training and of the template are shuffled independently of each other."""
    straight = read_competition(tables.write(tmp_path / "straight"))
    tables.y = tables.y.sample(frac=1, axis=1, random_state=3)
    folder = tables.write(tmp_path / "shuffled")
    template = ["id", *np.random.default_rng(5).permutation(straight.genes)]
    pd.DataFrame(0, index=range(4), columns=template).assign(id=[3, 1, 2, 0]).to_csv(
        folder / "sample_submission.csv", index=False
    )
    shuffled = read_competition(folder)
    assert shuffled.genes != straight.genes
    assert shuffled.submission_genes == tuple(template[1:]) == read_template(folder).genes
    for gene in straight.genes:
        values = shuffled.y[:, shuffled.genes.index(gene)]
        assert_array_equal(values, straight.y[:, straight.genes.index(gene)])


def test_gene_names_may_begin_alike(tables, tmp_path, monkeypatch):
    """'G1.2' begins with 'G1' and a dot, which a Parquet reader may take for a nested column."""
    monkeypatch.setattr(wide, "_SLICE", 1)
    tables.y = tables.y.iloc[:, :3].set_axis(["G1.2", "G1", "G1.2.3"], axis=1)
    competition = read_competition(tables.write(tmp_path))
    assert competition.genes == ("G1.2", "G1", "G1.2.3")
    assert_array_equal(competition.y, tables.y.to_numpy(np.float32))


def test_structures_are_filled_from_the_nearest_source(tables, tmp_path):
    """Their own column first, then training, then the table of compounds, else nothing."""
    tables.id_map["SMILES"] = ["OCC", None, None, None]
    folder = tables.write(tmp_path)
    rows = {"sm_lincs_id": ["X1", "LSM-4"], "sm_name": ["NA", "compound 4"], "SMILES": ["CCCC", "N"], "moa": ["", "x"]}
    pd.DataFrame(rows).to_csv(folder / "compounds.csv", index=False)
    competition = read_competition(folder)
    assert competition.test["SMILES"].tolist() == ["OCC", "CCCl", "CCCC", None]
    assert competition.test["sm_lincs_id"].tolist() == ["LSM-3", "LSM-4", "X1", None]
    assert competition.compounds["moa"].tolist() == [None, "x"]


def test_baseline_and_mark_of_simulation(tables, tmp_path):
    folder = tables.write(tmp_path)
    (folder / "truth.json").write_text(json.dumps({"simulated": True, "version": 1}))
    pd.DataFrame({"cell_type": ["B cells", "NK cells"], "H1": [1.5, 2], "G1": [0, 3]}).to_csv(
        folder / "cell_line_baseline.csv", index=False
    )
    competition = read_competition(folder)
    assert competition.simulated
    assert competition.cell_baseline.loc["NK cells", "G1"] == 3
    assert list(competition.cell_baseline.columns) == ["H1", "G1"]


def test_digest_follows_content_alone(tables, tmp_path):
    first = read_competition(tables.write(tmp_path / "a")).digest
    assert read_competition(tables.write(tmp_path / "b")).digest == first
    (tmp_path / "b" / "notes.txt").write_text("not ours")
    assert read_competition(tmp_path / "b").digest == first
    tables.y.iloc[4, 5] += 0.01
    assert read_competition(tables.write(tmp_path / "c")).digest != first


def test_several_structures_of_one_compound_are_told(tables, tmp_path, caplog):
    tables.train.loc[1, "SMILES"] = "OCC"
    with caplog.at_level(logging.WARNING):
        competition = read_competition(tables.write(tmp_path))
    assert "1 compounds have several SMILES; the first is used: compound 0" in caplog.text
    assert competition.train["SMILES"][1] == "CCO"


def test_all_faults_of_all_tables_at_once(tables, tmp_path):
    tables.train = tables.train.drop(columns="control")
    tables.train.loc[3, "cell_type"] = None
    tables.y.iloc[2, 5] = np.nan
    tables.y.iloc[6, 6] = np.inf
    tables.y.iloc[7, 7] = 1e300
    tables.id_map.loc[1, ["cell_type", "sm_name"]] = ["B cell", "compound 3"]
    tables.id_map = tables.id_map.rename(columns={"id": "Id"})
    text = faults(tables.write(tmp_path))
    genes = tables.y.columns
    assert f"Table 'de_train' ({tmp_path / 'de_train.parquet'}) has 4 problems:" in text
    assert "column 'control' is missing (whether the compound is a positive control); got cell_type, sm_name" in text
    assert "'cell_type' is missing in 1 row (cell type or cell line): row 3, 'None' / 'compound 1'" in text
    assert f"got 1 value NaN or missing: first gene '{genes[5]}', row 2, 'B cells' / 'compound 0'" in text
    assert f"got 2 values infinite or beyond 3.4e38: first gene '{genes[6]}', row 6, 'NK cells' / 'compound 2'" in text
    assert f"Table 'id_map' ({tmp_path / 'id_map.csv'}) has 2 problems:" in text
    assert "column 'id' is missing (number of the pair to predict); rename column 'Id'" in text
    assert "Unknown cell type 'B cell'. Did you mean 'B cells'? Known: B cells, NK cells, T cells." in text


def test_repeated_pairs_ids_and_bad_structures(tables, tmp_path):
    tables.train = pd.concat([tables.train, tables.train[:2]], ignore_index=True)
    tables.y = pd.concat([tables.y, tables.y[:2]], ignore_index=True)
    tables.train.loc[4, "SMILES"] = "C(("
    tables.id_map["SMILES"] = ["C", "", "Cx", None]
    tables.id_map.loc[1, "sm_name"] = "compound 3"
    tables.id_map.loc[3, "id"] = 0
    text = faults(tables.write(tmp_path))
    assert "key ('cell_type', 'sm_name') is repeated by 2 rows: first row 13, 'NK cells' / 'compound 0'" in text
    assert "1 SMILES string in 1 row cannot be parsed: first 'C((' at row 4, 'T cells' / 'compound 1'" in text
    assert "key ('cell_type', 'sm_name') is repeated by 1 row: first row 1, 'B cells' / 'compound 3'" in text
    assert "the key 'id' is repeated by 1 row: first row 3, '0' / 'T cells' / 'new'" in text
    assert "cannot be parsed: first 'Cx' at row 2, 'B cells' / 'NA'" in text


def test_wrong_types(tables, tmp_path):
    tables.train["cell_type"] = 1.5
    tables.train["control"] = "perhaps"
    tables.id_map["id"] = ["a", "1.5", "2", ""]
    text = faults(tables.write(tmp_path))
    assert "column 'cell_type' has type double, text expected (cell type or cell line)" in text
    assert "column 'control' must be True or False, which it is not in 13 rows: first 'perhaps' at row 0" in text
    assert "column 'id' must be a whole number, which it is not in 2 rows: first 'a' at row 0" in text
    assert "'id' is missing in 1 row (number of the pair to predict): row 3" in text


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_text_where_a_number_should_be(tables, tmp_path, form):
    gene = tables.y.columns[5]
    tables.y[gene] = [f"{value:.3f}" for value in tables.y[gene]]
    tables.y.loc[2, gene] = "strong"
    text = faults(tables.write(tmp_path, form=form))
    assert f"numbers expected in 1 gene column, got other things: {gene}; first 'strong' at row 2" in text


def test_columns_that_are_no_genes(tables, tmp_path):
    tables.y = tables.y.iloc[:, :0]
    assert "there is no gene column; its columns are cell_type, sm_name" in faults(tables.write(tmp_path / "none"))
    table = pa.table([[0.0], [1.0]], names=["G1", "G1"])
    (tmp_path / "twice").mkdir()
    pq.write_table(table, tmp_path / "twice" / "de_train.parquet")
    assert "every column needs its own name, got several times: G1" in faults(tmp_path / "twice")


def test_a_row_number_is_no_gene(tables, tmp_path):
    folder = tables.write(tmp_path, form="csv")
    pd.read_csv(folder / "de_train.csv").to_csv(folder / "de_train.csv")
    assert "column '' is a row number, not a gene; write the table without its index" in faults(folder)


def test_template_must_have_the_same_genes_and_ids(tables, tmp_path):
    folder = tables.write(tmp_path)
    first, second, *rest = tables.y.columns
    pd.DataFrame(0, index=[0, 1, 2, 9], columns=[*rest, "H"]).rename_axis("id").to_csv(folder / "sample_submission.csv")
    text = faults(folder)
    assert f"2 gene columns of de_train missing: {first}, {second}" in text
    assert "1 gene column not in de_train: H" in text
    assert "1 id of id_map missing: 3" in text
    assert "1 id not in id_map: 9" in text
    with pytest.raises(InputError, match="1 gene column not in de_train: H"):
        read_template(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[: len(content) // 2], r"is not a whole Parquet file \([\d,]+ bytes\)"),
        (lambda content: content[:40] + bytes(300) + content[340:], "is not a whole Parquet file"),
        (lambda content: b"", r"is empty \(0 bytes\). Copy or download it again."),
        (lambda content: b"cell_type,sm_name\n", "is not a whole Parquet file"),
    ],
)
def test_damaged_parquet(tables, tmp_path, spoil, message):
    path = tables.write(tmp_path) / "de_train.parquet"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InputError, match=f"'{path}' {message}"):
        read_competition(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,cell_type,sm_name\n0,B cells\n", "is not a whole CSV file: CSV parse error: Expected 3 columns, got 2"),
        (b"\x89PNG\r\n\x1a\n\xff", "is not a CSV file: .* Write it as UTF-8 text"),
        (b"", r"is empty \(0 bytes\)"),
        (b"\n\n", "has no header"),
        (b"id,cell_type,sm_name\n", "it has no rows"),
        (b"id,id,cell_type,sm_name\n", "names columns twice: id"),
    ],
)
def test_damaged_id_map(tables, tmp_path, content, message):
    (tables.write(tmp_path) / "id_map.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_competition(tmp_path)


def test_places_that_are_no_competition_folder(tables, tmp_path):
    (tmp_path / ".gitkeep").write_text("")
    assert f"Folder '{tmp_path}' is empty, expected de_train.parquet and id_map.csv" in faults(tmp_path)
    assert "cannot be read: No such file or directory" in faults(tmp_path / "none")
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in faults(tmp_path / "file")
    text = faults(tmp_path)
    assert "no training table: expected de_train.parquet or de_train.csv or de_train.h5ad, got .gitkeep, file." in text
    assert "id_map.csv' cannot be read: No such file or directory" in text


def test_damaged_extras(tables, tmp_path):
    folder = tables.write(tmp_path)
    (folder / "truth.json").write_text("{")
    pd.DataFrame({"sm_lincs_id": ["a", "a"], "SMILES": ["C", "?"]}).to_csv(folder / "compounds.csv", index=False)
    pd.DataFrame({"cell_type": ["a", "a"], "G1": [1, None]}).to_csv(folder / "cell_baseline.csv", index=False)
    text = faults(folder)
    assert "truth.json' does not say if the data are simulated" in text
    assert "the key 'sm_lincs_id' is repeated by 1 row: first row 1, 'a'" in text
    assert "1 SMILES string in 1 row cannot be parsed: first '?'" in text
    assert "the key 'cell_type' is repeated by 1 row" in text
    assert "got 1 value NaN or missing: first gene 'G1', row 1, 'a'" in text


def test_solution_and_predictions_are_aligned_by_name(tmp_path):
    """R05; a value says which row and gene it belongs to: 10 * id + gene number."""
    ids, genes = np.array([3, 0, 2]), ("G2", "G0", "G1")
    values = 10 * ids[:, None] + np.array([2, 0, 1])
    keys = {"id": ids, "Usage": np.array(["Private", "Public", "Private"], object)}
    write_parquet(tmp_path / "solution.parquet", wide_table(keys, genes, values))
    solution = read_solution(tmp_path / "solution.parquet", genes=("G0", "G1", "G2"), ids=np.array([0, 2, 3]))
    assert_array_equal(solution.y, [[0, 1, 2], [20, 21, 22], [30, 31, 32]])
    assert solution.usage.tolist() == ["Public", "Private", "Private"]
    as_written = read_solution(tmp_path / "solution.parquet")
    assert as_written.genes == genes
    assert_array_equal(as_written.ids, ids)
    assert_array_equal(as_written.y, values)
    pd.DataFrame(values, columns=genes).assign(id=ids).to_csv(tmp_path / "oracle.csv", index=False)
    assert_allclose(read_predictions(tmp_path / "oracle.csv", ids=np.array([2, 3, 0]), genes=("G1", "G0", "G2")),
                    [[21, 20, 22], [31, 30, 32], [1, 0, 2]])  # fmt: skip


def test_solution_with_faults(tmp_path):
    keys = {"id": np.array([0, 1]), "Usage": np.array(["Public", "public"], object)}
    write_parquet(tmp_path / "s.parquet", wide_table(keys, ("G0",), np.zeros((2, 1))))
    with pytest.raises(InputError, match="'Usage' must be one of Public, Private, which .* 1 row: first 'public'"):
        read_solution(tmp_path / "s.parquet")
    write_parquet(tmp_path / "p.parquet", wide_table({"id": keys["id"]}, ("G0",), np.zeros((2, 1))))
    with pytest.raises(InputError, match="has 3 problems") as caught:
        read_predictions(tmp_path / "p.parquet", ids=np.array([0, 1, 2]), genes=("G1",))
    assert "1 id of what is wanted missing: 2" in str(caught.value)


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "rows", "unknown"), [("l1000", 272, 0), ("l1000_unseen", 130, 107)])
def test_measured_competitions(real_data, name, rows, unknown):
    """S004-01; shapes, and the score of zeros as stated with the data."""
    competition = read_competition(real_data / name)
    assert competition.y.shape == (3273, 978)
    assert len(competition.test) == rows
    assert competition.train["cell_type"].nunique() == 24
    assert competition.test["SMILES"].notna().all()
    assert len(competition.unknown_compounds) == unknown
    solution = read_solution(
        real_data / name / "solution.parquet", genes=competition.genes, ids=competition.test["id"].to_numpy()
    )
    zeros = np.sqrt((solution.y.astype(float) ** 2).mean(axis=1)).mean()
    assert zeros == pytest.approx({"l1000": 2.083, "l1000_unseen": 1.845}[name], abs=5e-4)
    outside = pd.read_parquet(real_data / name / "de_train.parquet")
    gene = competition.genes[500]
    assert_array_equal(competition.y[:, 500], outside[gene].to_numpy(np.float32))
    assert competition.submission_genes == competition.genes


@pytest.mark.real_data
def test_pairs_of_the_competition(real_data, tmp_path):
    """S004-01; the 614 and 255 pairs of the competition with their counts per cell type, numbers simulated."""
    pairs = pd.read_csv(real_data / "op2" / "train_pairs.csv")
    compounds = pd.read_csv(real_data / "op2" / "compounds.csv")
    train = pairs.merge(compounds, on="sm_name", how="left").assign(control=False)
    columns = ["cell_type", "sm_name", "sm_lincs_id", "SMILES", "control"]
    y = pd.DataFrame(np.random.default_rng(0).normal(size=(len(train), 3)), columns=["A1BG", "A1BG-AS1", "A2M"])
    pd.concat([train[columns], y], axis=1).to_parquet(tmp_path / "de_train.parquet")
    (tmp_path / "id_map.csv").write_bytes((real_data / "op2" / "id_map.csv").read_bytes())
    competition = read_competition(tmp_path)
    counts = competition.train["cell_type"].value_counts().to_dict()
    assert counts == {"NK cells": 146, "T cells CD4+": 146, "T regulatory cells": 146, "T cells CD8+": 142,
                      "B cells": 17, "Myeloid cells": 17}  # fmt: skip
    assert competition.test["cell_type"].value_counts().to_dict() == {"B cells": 128, "Myeloid cells": 127}
    assert competition.unknown_compounds == ()
    assert competition.train["sm_name"].nunique() - competition.test["sm_name"].nunique() == 17
