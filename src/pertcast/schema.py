"""What a table is, and the tables of a competition: their columns, types, units and meanings, and their keys.

The checks of a competition folder and the README of the data folder are made from what stands here.
"""

from __future__ import annotations

from dataclasses import dataclass

CELL_TYPE = "cell_type"
COMPOUND = "sm_name"
COMPOUND_ID = "sm_lincs_id"
SMILES = "SMILES"
MOA = "moa"
TARGET = "target"
CONTROL = "control"
ID = "id"
USAGE = "Usage"
GENE = "gene"
LOCATION = "location"
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


def optional(name: str, dtype: str, unit: str, meaning: str) -> Column:
    """Describe a column without which its table is complete."""
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
        optional(SMILES, "text", "-", "structure, for compounds that de_train lacks"),
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
        optional(COMPOUND, "text", "-", "compound name"),
        optional(SMILES, "text", "-", "structure of the compound"),
        optional(MOA, "text", "-", "mechanism of action; several are set apart by '|'"),
        optional(TARGET, "text", "-", "gene product the compound binds; several are set apart by '|'"),
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
)
