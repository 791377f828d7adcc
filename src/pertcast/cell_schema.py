"""The tables of single cells: their columns, types, units and meanings, and their keys."""

from __future__ import annotations

from pertcast.schema import (
    CELL_TYPE,
    COMPOUND,
    COMPOUND_ID,
    CONTROL,
    DE_TRAIN,
    GENE,
    LOCATION,
    SMILES,
    Column,
    Table,
    optional,
)

OBS_ID = "obs_id"
COUNT = "count"
FEATURE_TYPE = "feature_type"
EXPRESSION, PEAKS = "Gene Expression", "Peaks"  # feature types, as Cell Ranger writes them
CONDITION = "condition"

_CELL_TYPE = DE_TRAIN.column(CELL_TYPE)
_OBS_ID = Column(OBS_ID, "text", "-", "id of the cell")

COUNTS_LONG = Table(
    "adata_train",
    "adata_train.parquet",
    "Counts of single cells, one row per cell and gene with a count above zero.",
    (
        _OBS_ID,
        Column(GENE, "text", "-", "gene symbol"),
        Column(COUNT, "integer", "molecules", "raw count"),
        optional("normalized_count", "number", "log counts", "count after normalisation"),
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
        optional("library_id", "text", "-", "library the cell was sequenced in"),
        Column("plate_name", "text", "-", "plate"),
        Column("well", "text", "-", "well of the plate; not unique across plates"),
        optional("row", "text", "-", "row of the well"),
        optional("col", "text", "-", "column of the well"),
        optional("cell_id", "text", "-", "source of the cells"),
        optional("donor_id", "text", "-", "donor"),
        _CELL_TYPE,
        optional(COMPOUND_ID, "text", "-", "LINCS id of the compound"),
        optional(COMPOUND, "text", "-", "compound name"),
        optional(SMILES, "text", "-", "structure of the compound"),
        optional("dose_uM", "number", "uM", "dose"),
        optional("timepoint_hr", "number", "h", "time from treatment to measurement"),
        optional(CONTROL, "boolean", "-", "whether the compound is a control"),
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
        optional("normalized_count", "number", "log counts", "count after normalisation"),
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
        optional(CELL_TYPE, "text", "-", "context: cell type or cell line"),
        optional("batch", "text", "-", "batch, plate or data set"),
        optional("donor", "text", "-", "donor, or another biological replicate"),
        optional("dose_uM", "number", "uM", "dose"),
        optional("time_h", "number", "h", "time since the perturbation"),
        optional(SMILES, "text", "-", "structure of the compound"),
    ),
    genes=True,
    required=False,
)

TABLES = (COUNTS_LONG, COUNTS_OBS, COUNTS_EXCLUDED, MULTIOME_LONG, MULTIOME_OBS, MULTIOME_VAR, CELL_OBS)
