"""What command line, notebooks and tests call for single cells: from a file of cells to tables and models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pertcast.de.compare import Comparison, needed_columns
from pertcast.de.pseudobulk import Pseudobulk, pseudobulk
from pertcast.de.table import DETable, carry, de_table
from pertcast.errors import InputError, shorten
from pertcast.io.atomic import write_parquet
from pertcast.io.cell_forms import Reading, read_form


@dataclass(frozen=True, slots=True)
class Differential:
    """A table of differential expression, the samples behind it, and where it was written."""

    table: DETable
    bulk: Pseudobulk
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
    *,
    group: str,
    condition: str,
    control: str,
    replicate: Sequence[str],
    covariates: Sequence[str] = (),
    out: Path | None = None,
    long: Path | None = None,
    weights: bool = True,
    expressed_only: bool = True,
    exact: bool = False,
    min_cells: int = 1,
    layer: str | None = None,
    skip: bool = False,
) -> Differential:
    """Test every condition against the control within each group, from a file of cells.

    path            cells in any form of `read_form`, raw counts in X or in `layer`
    group           column of `obs` within whose levels conditions are compared, such as the cell type
    condition       column of `obs`; `control` is one of its labels
    replicate       columns that tell samples apart: cells that agree in them, in group, condition and covariates are
                    summed into one sample
    covariates      columns that the design corrects for, such as donor or plate
    out             Parquet file: `cell_type` (the group), `sm_name` (the condition), and a float64 column per gene with
                    signed -log10 p; 0 where a gene was not tested. `sm_lincs_id`, `SMILES` and `control` are carried
                    along where `obs` has them, so that the file can serve as a competition's de_train
    long            Parquet file with a row per group, condition and tested gene: log2 fold change, mean log2 CPM, t, p,
                    adjusted p, their log10, and natural log odds of responding
    weights         voom; without it log2 CPM, whose prior variance follows the mean (limma-trend)
    expressed_only  test only genes that edgeR's filter keeps within the group
    exact           standard errors of weighted contrasts from each gene's own equations, not limma's approximation
    min_cells       samples of fewer cells are dropped
    skip            leave groups out that cannot be tested, with a remark, instead of raising

    Raises InputError, naming all faults at once.
    """
    for target in (out, long):
        if target is not None and target.suffix != ".parquet":
            raise InputError(f"'{target}' must end in .parquet, the form it is written in.")
    if out is not None and out == long:
        raise InputError(f"'{out}' is named twice: the wide and the long table are files of their own.")
    how = Comparison(condition, control, tuple(covariates), weights, expressed_only, "exact" if exact else "limma")
    cells = read_form(path, Reading(layer=layer))
    keys = needed_columns(how, [group], replicate)
    bulk = pseudobulk(cells.values, cells.obs, keys, genes=cells.genes, min_cells=min_cells)
    table = carry(de_table(bulk, group, how, skip=skip), cells.obs, condition)
    if out is not None:
        write_wide_de(out, table)
    if long is not None:
        write_long_de(long, table)
    return Differential(table, bulk, out, long)


def write_wide_de(path: Path, table: DETable) -> None:
    """Write the keys and signed -log10 p, a float64 column per gene."""
    import pyarrow as pa

    columns = np.ascontiguousarray(table.signed_log10_p.T)  # (g, r)
    arrays = [pa.array(table.keys[name].to_numpy()) for name in table.keys] + [pa.array(column) for column in columns]
    write_parquet(path, pa.table(arrays, names=[*table.keys, *table.genes]))


def write_long_de(path: Path, table: DETable) -> None:
    """Write a row per group, condition and tested gene."""
    import pyarrow as pa

    write_parquet(path, pa.Table.from_pandas(table.long(), preserve_index=False))
