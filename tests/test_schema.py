"""The schema: what it says of the tables agrees with itself, with the README made from it, and with real files."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pertcast import cell_schema, schema
from pertcast.data_page import data_readme

REPOSITORY = Path(__file__).parents[1]
TABLES = (*schema.TABLES, *cell_schema.TABLES)


def test_data_readme_is_made_from_the_schema():
    written = (REPOSITORY / "data" / "README.md").read_text(encoding="utf-8")
    assert written == data_readme(), "write data_readme() to data/README.md"


def test_every_column_of_every_table_stands_in_the_readme():
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^### |\Z)", data_readme(), flags=re.M | re.S))
    assert list(sections) == [table.name for table in TABLES]
    for table in TABLES:
        rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| ([^|]+) \|", sections[table.name], flags=re.M)
        assert rows == [(column.name, column.dtype, column.unit) for column in table.columns]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_tables_are_consistent(table):
    names = [column.name for column in table.columns]
    assert len(set(names)) == len(names)
    assert {column.dtype for column in table.columns} <= {"text", "integer", "number", "boolean"}
    for name in table.key:
        assert table.column(name).required, "a key must be there"
    assert table.column("no such column") is None


def test_columns_of_the_competition():
    """S004-01; the columns of de_train.parquet in the competition's order."""
    names = [column.name for column in schema.DE_TRAIN.columns]
    assert names == ["cell_type", "sm_name", "sm_lincs_id", "SMILES", "control"]
    assert schema.DE_TRAIN.files == ("de_train.parquet", "de_train.csv", "de_train.h5ad")
    assert len(cell_schema.COUNTS_OBS.columns) == 15


@pytest.mark.real_data
def test_schema_agrees_with_measured_files(real_data):
    """S004-01; required columns are there, and the columns that are no genes are those of the schema."""
    for folder in ("l1000", "l1000_unseen"):
        names = pq.read_schema(real_data / folder / "de_train.parquet").names
        assert names[:5] == [column.name for column in schema.DE_TRAIN.columns]
        assert pq.read_schema(real_data / folder / "solution.parquet").names[:2] == ["id", "Usage"]
    id_map = pd.read_csv(real_data / "l1000_unseen" / "id_map.csv", nrows=1)
    assert list(id_map.columns) == [column.name for column in schema.ID_MAP.columns]
    for path in ("l1000/compounds.csv", "op2/compounds.csv"):
        names = pd.read_csv(real_data / path, nrows=1).columns
        assert {column.name for column in schema.COMPOUNDS.columns if column.required} <= set(names)
    assert (real_data / "l1000" / schema.CELL_BASELINE.other_files[0]).exists()
    assert (real_data / "op2" / schema.CELL_BASELINE.other_files[1]).exists()


def test_schema_and_tables_import_no_learning_library():
    """R37; checking a file must not cost the import of torch, scikit-learn, lightgbm or anndata."""
    code = "import sys, pertcast.schema, pertcast.io.tables, pertcast.io.atomic; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "sklearn", "lightgbm", "anndata", "pandera", "rdkit"} & set(loaded)
