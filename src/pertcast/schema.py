"""Every table that is read or written: its columns, their types, units and meanings, and its key.

The checks of a competition folder and the README of the data folder are made from what stands here.
"""

from __future__ import annotations

from dataclasses import dataclass

CELL_TYPE = "cell_type"
COMPOUND = "sm_name"
COMPOUND_ID = "sm_lincs_id"
SMILES = "SMILES"
CONTROL = "control"
ID = "id"
USAGE = "Usage"
OBS_ID = "obs_id"
GENE = "gene"
COUNT = "count"
LOCATION = "location"
FEATURE_TYPE = "feature_type"
EXPRESSION, PEAKS = "Gene Expression", "Peaks"
CONDITION = "condition"
CELLS_FILE = "cells.h5ad"  # single cells behind de_train

PUBLIC, PRIVATE = "Public", "Private"
DEFAULT_LAYER = "clipped_sign_log10_pval"  # the benchmark's target: signed -log10 p with p floored at 1e-4
PREDICTION_LAYER = "prediction"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: what it holds, in which type and unit, and whether the table is complete without it."""

    name: str
    dtype: str  # "text", "integer", "number" or "boolean"
    unit: str  # "-" where there is none
    meaning: str
    required: bool = True
    unique: bool = False  # no value occurs twice
    values: tuple[str, ...] = ()  # the only values allowed; empty: any


@dataclass(frozen=True, slots=True)
class Table:
    """One table. `key` names the columns whose combination occurs once; `genes` says that a column per gene follows."""

    name: str
    file: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    genes: bool = False
    required: bool = True
    other_files: tuple[str, ...] = ()  # further names under which the table is looked for, in this order

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file, *self.other_files)

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)


_CELL_TYPE = Column(CELL_TYPE, "text", "-", "cell type or cell line")
_COMPOUND = Column(COMPOUND, "text", "-", "compound name")
_COMPOUND_ID = Column(COMPOUND_ID, "text", "-", "LINCS id of the compound")
_ID = Column(ID, "integer", "-", "number of the pair to predict", unique=True)
_OBS_ID = Column(OBS_ID, "text", "-", "id of the cell")


def _optional(name: str, dtype: str, unit: str, meaning: str) -> Column:
    return Column(name, dtype, unit, meaning, required=False)


DE_TRAIN = Table(
    "de_train",
    "de_train.parquet",
    "Measured responses. One row per pair of cell type and compound; then one number per gene: differential expression "
    "against the negative control, as signed -log10 p (or another score of that kind).",
    (
        _CELL_TYPE,
        _COMPOUND,
        _COMPOUND_ID,
        Column(SMILES, "text", "-", "structure of the compound"),
        Column(CONTROL, "boolean", "-", "whether the compound is a positive control"),
    ),
    key=(CELL_TYPE, COMPOUND),
    genes=True,
    other_files=("de_train.csv", "de_train.h5ad"),
)
ID_MAP = Table(
    "id_map",
    "id_map.csv",
    "The pairs to predict. A compound that training never saw is allowed; a cell type that it never saw only where "
    "cell_baseline describes it.",
    (
        _ID,
        Column(CELL_TYPE, "text", "-", "cell type or cell line, as in de_train"),
        Column(COMPOUND, "text", "-", "compound name, as in de_train where it occurs there"),
        _optional(SMILES, "text", "-", "structure, for compounds that de_train lacks"),
    ),
    key=(CELL_TYPE, COMPOUND),
)
SAMPLE_SUBMISSION = Table(
    "sample_submission",
    "sample_submission.csv",
    "The form of a submission. Without it the genes stand in the order of de_train.",
    (_ID,),
    key=(ID,),
    genes=True,
    required=False,
)
SUBMISSION = Table(
    "submission",
    "submission.csv",
    "Predicted responses, in the unit of de_train: one row per row of id_map, one finite number per gene.",
    (_ID,),
    key=(ID,),
    genes=True,
    required=False,
)
SOLUTION = Table(
    "solution",
    "solution.parquet",
    "The truth of the pairs to predict. Used for scores alone, never for fitting.",
    (
        _ID,
        Column(USAGE, "text", "-", "which leaderboard the row counts for", values=(PUBLIC, PRIVATE)),
    ),
    key=(ID,),
    genes=True,
    required=False,
)
COMPOUNDS = Table(
    "compounds",
    "compounds.csv",
    "More about the compounds. Further columns are kept as they are.",
    (
        _COMPOUND_ID,
        _optional(COMPOUND, "text", "-", "compound name"),
        _optional(SMILES, "text", "-", "structure of the compound"),
        _optional("moa", "text", "-", "mechanism of action"),
        _optional("target", "text", "-", "gene product the compound binds"),
    ),
    key=(COMPOUND_ID,),
    required=False,
)
CELL_BASELINE = Table(
    "cell_baseline",
    "cell_baseline.csv",
    "Expression of the untreated cell types, as log expression: one number per gene, of any set of genes.",
    (_CELL_TYPE,),
    key=(CELL_TYPE,),
    genes=True,
    required=False,
    other_files=("cell_line_baseline.csv", "baseline_expression_by_cell_type.csv"),
)
CELL_ACCESSIBILITY = Table(
    "cell_accessibility",
    "cell_accessibility.parquet",
    "Chromatin accessibility of the untreated cell types, as log(1 + counts in 10,000): a number column per cell type, "
    "named by it. Written by `pertcast baseline`.",
    (Column(LOCATION, "text", "-", "peak"),),
    key=(LOCATION,),
    required=False,
)
CONTEXTS = (CELL_BASELINE.name, CELL_ACCESSIBILITY.name)  # also the names of feature blocks
DE_ROWS = Table(
    "de_train_rows",
    "de_train.rows.csv",
    "How far each row of de_train can be trusted: what it was computed from. Written by `pertcast de`.",
    (
        _CELL_TYPE,
        _COMPOUND,
        Column("cells", "integer", "cells", "cells of the compound"),
        Column("control_cells", "integer", "cells", "cells of the control in this cell type"),
        Column("samples", "integer", "samples", "replicates of the compound: wells, donors"),
        Column("control_samples", "integer", "samples", "replicates of the control"),
        Column("silent_genes", "integer", "genes", "genes without a count in either: their response says nothing"),
        Column("reliability", "number", "-", "between 0 and 1; 0.5 for the median number of cells on both sides"),
    ),
    key=(CELL_TYPE, COMPOUND),
    required=False,
)
COUNTS_LONG = Table(
    "adata_train",
    "adata_train.parquet",
    "Counts of single cells, one row per cell and gene with a count above zero.",
    (
        _OBS_ID,
        Column(GENE, "text", "-", "gene symbol"),
        Column(COUNT, "integer", "molecules", "raw count"),
        _optional("normalized_count", "number", "log counts", "count after normalisation"),
    ),
    key=(OBS_ID, GENE),
    required=False,
)
COUNTS_OBS = Table(
    "adata_obs_meta",
    "adata_obs_meta.csv",
    "What is known of each cell of adata_train.",
    (
        _OBS_ID,
        _optional("library_id", "text", "-", "library the cell was sequenced in"),
        Column("plate_name", "text", "-", "plate"),
        Column("well", "text", "-", "well of the plate; not unique across plates"),
        _optional("row", "text", "-", "row of the well"),
        _optional("col", "text", "-", "column of the well"),
        _optional("cell_id", "text", "-", "source of the cells"),
        _optional("donor_id", "text", "-", "donor"),
        _CELL_TYPE,
        _optional(COMPOUND_ID, "text", "-", "LINCS id of the compound"),
        _optional(COMPOUND, "text", "-", "compound name"),
        _optional(SMILES, "text", "-", "structure of the compound"),
        _optional("dose_uM", "number", "uM", "dose"),
        _optional("timepoint_hr", "number", "h", "time from treatment to measurement"),
        _optional(CONTROL, "boolean", "-", "whether the compound is a control"),
    ),
    key=(OBS_ID,),
    required=False,
)
COUNTS_EXCLUDED = Table(
    "adata_excluded_ids",
    "adata_excluded_ids.csv",
    "Counts of adata_train that were left out of de_train.",
    (_OBS_ID, Column(GENE, "text", "-", "gene symbol")),
    key=(OBS_ID, GENE),
    required=False,
)
MULTIOME_LONG = Table(
    "multiome_train",
    "multiome_train.parquet",
    "Expression and chromatin accessibility of untreated cells, one row per cell and location above zero.",
    (
        _OBS_ID,
        Column(LOCATION, "text", "-", "gene symbol or peak"),
        Column(COUNT, "integer", "molecules", "raw count"),
        _optional("normalized_count", "number", "log counts", "count after normalisation"),
    ),
    key=(OBS_ID, LOCATION),
    required=False,
)
MULTIOME_OBS = Table(
    "multiome_obs_meta",
    "multiome_obs_meta.csv",
    "What is known of each cell of multiome_train.",
    (_OBS_ID, _CELL_TYPE, Column("donor_id", "text", "-", "donor")),
    key=(OBS_ID,),
    required=False,
)
MULTIOME_VAR = Table(
    "multiome_var_meta",
    "multiome_var_meta.csv",
    "What is known of each location of multiome_train.",
    (
        Column(LOCATION, "text", "-", "gene symbol or peak"),
        Column("gene_id", "text", "-", "Ensembl id of the gene, or the peak"),
        Column(FEATURE_TYPE, "text", "-", "`Gene Expression` or `Peaks`", values=(EXPRESSION, PEAKS)),
        Column("genome", "text", "-", "reference genome"),
        Column("interval", "text", "-", "position on the genome"),
    ),
    key=(LOCATION,),
    required=False,
)
CELL_OBS = Table(
    "cell_obs",
    "*.h5ad",
    "The rows of a single-cell file (`obs`). The names of the columns are settings; these are the defaults.",
    (
        Column(CONDITION, "text", "-", "perturbation of the cell, one label being the control"),
        _optional(CELL_TYPE, "text", "-", "context: cell type or cell line"),
        _optional("batch", "text", "-", "batch, plate or data set"),
        _optional("donor", "text", "-", "donor, or another biological replicate"),
        _optional("dose_uM", "number", "uM", "dose"),
        _optional("time_h", "number", "h", "time since the perturbation"),
        _optional(SMILES, "text", "-", "structure of the compound"),
    ),
    genes=True,
    required=False,
)

TABLES = (
    DE_TRAIN,
    ID_MAP,
    SAMPLE_SUBMISSION,
    SUBMISSION,
    SOLUTION,
    COMPOUNDS,
    CELL_BASELINE,
    CELL_ACCESSIBILITY,
    DE_ROWS,
    COUNTS_LONG,
    COUNTS_OBS,
    COUNTS_EXCLUDED,
    MULTIOME_LONG,
    MULTIOME_OBS,
    MULTIOME_VAR,
    CELL_OBS,
)

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

This page is made from `src/pertcast/schema.py`.

## Tables

Columns are found by name, and so are genes: their order is free. A table is required where nothing else is said.
"""


def data_readme() -> str:
    """Return the README of the data folder: every table, column by column."""
    return "\n".join([_DATA_README, *(_section(table) for table in TABLES)]).rstrip("\n") + "\n"


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
