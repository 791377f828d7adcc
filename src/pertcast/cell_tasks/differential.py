"""Differential expression from file to file: cells or samples to a table of responses, and how far each row carries."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pertcast.de.compare import Comparison, needed_columns
from pertcast.de.presets import Analysis
from pertcast.de.pseudobulk import N_CELLS, Pseudobulk, enough_cells, pseudobulk
from pertcast.de.reliability import row_reliability
from pertcast.de.table import DETable, carry, de_table
from pertcast.errors import InputError, several, shorten
from pertcast.io.atomic import atomic_path, write_parquet
from pertcast.io.cell_forms import Reading, read_form
from pertcast.io.cells import write_openproblems_responses
from pertcast.io.long_counts import long_files, pseudobulk_long

ROWS = ".rows.csv"  # ending of the table beside a table of responses


@dataclass(frozen=True, slots=True)
class Differential:
    """A table of differential expression, the samples behind it, and where it was written."""

    table: DETable
    bulk: Pseudobulk
    rows: pd.DataFrame  # what each row of the table was computed from
    out: Path | None
    long: Path | None

    def facts(self) -> dict[str, object]:
        """Say what was tested, as one object for machines; an infinite df is the text "inf"."""
        groups = []
        for group in self.table.groups:
            told = asdict(group)
            groups.append({key: "inf" if isinstance(v, float) and np.isinf(v) else v for key, v in told.items()})
        return {
            "rows": len(self.table),
            "genes": len(self.table.genes),
            "genes_tested": int(self.table.tested.any(axis=0).sum()),
            "samples": len(self.bulk),
            "samples_dropped": len(self.bulk.dropped),
            "groups": groups,
            "remarks": self.remarks(),
            "file": None if self.out is None else str(self.out),
            "rows_file": None if self.out is None else str(self.out.with_suffix(ROWS)),
            "long": None if self.long is None else str(self.long),
        }

    def remarks(self) -> list[str]:
        """List what a reader should know of the table."""
        remarks = list(self.table.remarks)
        if len(self.bulk.dropped):
            rows = (" / ".join(map(str, row)) for row in self.bulk.dropped.itertuples(index=False))
            remarks.append(f"{len(self.bulk.dropped)} samples of too few cells were dropped: {shorten(rows)}")
        for group in self.table.groups:
            if group.left_out:
                names = shorten(group.left_out)
                remarks.append(f"{group.group}: left out of the design, since other columns determine them: {names}")
        return remarks


def differential_expression(
    path: Path,
    asked: Analysis,
    *,
    out: Path | None = None,
    long: Path | None = None,
    weights: bool = True,
    exact: bool = False,
    min_cells: int = 1,
    layer: str | None = None,
    skip: bool = False,
) -> Differential:
    """Test every condition against the control within each group, from a file of cells.

    path            cells in any form of `read_form`, raw counts in X or in `layer`; or the competition's cells, the
                    long table `adata_train.parquet` or its folder, which is streamed: the table of the cells lies
                    beside it, and pairs of cell and gene that are excluded there are left out
    asked           groups, condition, control; columns that tell samples apart (cells that agree in them, in group,
                    condition and covariates are summed into one sample); covariates that the design corrects for
    out             Parquet file: `cell_type` (the group), `sm_name` (the condition), and a float64 column per gene with
                    signed -log10 p; 0 where a gene was not tested. `sm_lincs_id`, `SMILES` and `control` are carried
                    along where the cells have them, so that the file can serve as a competition's de_train. Or h5ad
                    with the benchmark's layers. Beside it `<name>.rows.csv` says what each row was computed from
    long            Parquet file with a row per group, condition and tested gene: log2 fold change, mean log2 CPM, t, p,
                    adjusted p, their log10, and natural log odds of responding
    weights         voom; without it log2 CPM, whose prior variance follows the mean (limma-trend)
    exact           standard errors of weighted contrasts from each gene's own equations, not limma's approximation
    min_cells       samples of fewer cells are dropped
    skip            leave groups out that cannot be tested, with a remark, instead of raising

    Raises InputError, naming all faults at once.
    """
    _check_places(out, long)
    if skip and asked.joint:
        raise InputError("One model of all groups cannot leave some out. Leave --skip out, or their cells.")
    sd = "exact" if exact else "limma"
    how = Comparison(
        asked.condition, asked.control, asked.covariates, weights, asked.expressed_only, sd, plain=asked.plain
    )
    bulk, told = _samples(path, needed_columns(how, [asked.group], asked.replicate), min_cells, layer)
    table = carry(de_table(bulk, asked.group, how, skip=skip, joint=asked.joint), told, asked.condition)
    rows = row_reliability(bulk, table.keys, group=asked.group, condition=asked.condition, control=asked.control)
    if out is not None:
        write_wide_de(out, table)
        with atomic_path(out.with_suffix(ROWS)) as temporary:
            rows.to_csv(temporary, index=False)
    if long is not None:
        write_long_de(long, table)
    return Differential(table, bulk, rows, out, long)


def _check_places(out: Path | None, long: Path | None) -> None:
    for target, endings in ((out, (".parquet", ".h5ad")), (long, (".parquet",))):
        if target is not None and target.suffix not in endings:
            raise InputError(f"'{target}' must end in {' or '.join(endings)}, the form it is written in.")
    if out is not None and out == long:
        raise InputError(f"'{out}' is named twice: the wide and the long table are files of their own.")


def _samples(path: Path, keys: list[str], min_cells: int, layer: str | None) -> tuple[Pseudobulk, pd.DataFrame]:
    """Sum cells up by sample: the samples, and a table that says of cells, or of samples, what they share."""
    files = long_files(path)
    if files is None:
        cells = read_form(path, Reading(layer=layer))
        bulk = pseudobulk(cells.values, cells.obs, keys, genes=cells.genes, min_cells=min_cells)
        return bulk, cells.obs
    if layer is not None:
        raise InputError(f"'{files.counts}' has no layers, and so no layer '{layer}'. Leave the layer out.")
    groups, counts, genes = pseudobulk_long(files.counts, files.obs, excluded=files.excluded, by=keys)
    empty = [
        f"'{key}' in {groups[key].isna().sum()} of {len(groups)} samples" for key in keys if groups[key].isna().any()
    ]
    if empty:
        raise InputError(several(f"Cells of '{files.obs}' have no label", empty, fix="Every cell needs one."))
    groups = groups.rename(columns={"cells": N_CELLS})
    return enough_cells(counts, groups, genes=genes, min_cells=min_cells), groups


def write_wide_de(path: Path, table: DETable) -> None:
    """Write the keys and signed -log10 p, a float64 column per gene; or the benchmark's layers, as h5ad."""
    import pyarrow as pa

    if path.suffix == ".h5ad":
        write_openproblems_responses(path, keys=table.keys, genes=table.genes, table=table)
        return

    columns = np.ascontiguousarray(table.signed_log10_p.T)  # (g, r)
    arrays = [pa.array(table.keys[name].to_numpy()) for name in table.keys] + [pa.array(column) for column in columns]
    write_parquet(path, pa.table(arrays, names=[*table.keys, *table.genes]))


def write_long_de(path: Path, table: DETable) -> None:
    """Write a row per group, condition and tested gene."""
    import pyarrow as pa

    write_parquet(path, pa.Table.from_pandas(table.long(), preserve_index=False))
