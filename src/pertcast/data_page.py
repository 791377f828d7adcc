"""The README of the data folder, made from the tables that are read and written."""

from __future__ import annotations

from pertcast import cell_schema, schema
from pertcast.schema import Table

_DATA_README = """\
# data

| folder | what belongs there |
|---|---|
| `raw/` | the competition's files, as they were downloaded; never edited |
| `interim/` | feature tables made from them; can be removed at any time, and are made again |

Nothing in the two folders is kept under version control. Fill `raw/` with `pertcast download kaggle --out data/raw`, or
with `pertcast download openproblems --out data/raw`. While it is empty, `make submission` makes a simulated competition
of the same form and says so; `pertcast demo --out DIR` makes one anywhere. `pertcast check DIR` names all faults of a
folder at once.

This page is made from `src/pertcast/schema.py` and `src/pertcast/cell_schema.py`.

## Tables

Columns are found by name, and so are genes: their order is free. A table is required where nothing else is said.
"""


def data_readme() -> str:
    """Return the README of the data folder: every table, column by column."""
    return (
        "\n".join([_DATA_README, *(_section(table) for table in (*schema.TABLES, *cell_schema.TABLES))]).rstrip("\n")
        + "\n"
    )


def _section(table: Table) -> str:
    lines = [f"### {table.name}", "", table.meaning, "", f"File: {_files(table)}"]
    if table.key:
        lines.append(f"Occurs once: {', '.join(f'`{name}`' for name in table.key)} together")
    lines += ["", "| column | type | unit | meaning |", "|---|---|---|---|"]
    for column in table.columns:
        optional = "" if column.required else " (optional)"
        lines.append(f"| `{column.name}` | {column.dtype} | {column.unit} | {column.meaning}{optional} |")
    if table.genes:
        lines.append("| one per gene | number | of the table | named by gene symbol |")
    return "\n".join(lines) + "\n"


def _files(table: Table) -> str:
    names = ", or ".join(f"`{file}`" for file in table.files)
    return names if table.required else f"{names} (optional)"
