"""Cells as files, in every form that commands read, and the options that say where their labels stand."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import io, sparse

from pertcast.types import Cells

COLUMNS = ("--condition-key", "condition", "--control", "control", "--context-key", "context")


def table(cells: Cells) -> pd.DataFrame:
    """What lies beside the values: condition and context of each cell."""
    return pd.DataFrame({name: list(getattr(cells, name)) for name in ("condition", "context")}, index=list(cells.ids))


def write(cells: Cells, form: str, folder: Path) -> Path:
    """Write cells as anndata would never see them."""
    x = cells.x.toarray()
    if form == "h5ad":
        ad.AnnData(sparse.csr_matrix(x), table(cells), pd.DataFrame(index=list(cells.genes))).write_h5ad(
            folder / "cells.h5ad"
        )
        return folder / "cells.h5ad"
    if form == "mtx":
        path = folder / "tenx"
        path.mkdir()
        io.mmwrite(path / "matrix.mtx", sparse.coo_matrix(x.T.astype(int)))
        (path / "genes.tsv").write_text("".join(f"E{gene}\t{gene}\n" for gene in cells.genes))
        (path / "barcodes.tsv").write_text("".join(f"{name}\n" for name in cells.ids))
        table(cells).to_csv(path / "obs.csv")
        return path
    if form == "csv":
        pd.DataFrame(x.T, index=list(cells.genes), columns=list(cells.ids)).to_csv(folder / "cells.csv.gz")
        table(cells).to_csv(folder / "cells.obs.csv")
        return folder / "cells.csv.gz"
    if form == "npy":
        marks = np.stack([cells.condition == name for name in cells.conditions], axis=1)
        contexts = sorted(set(cells.context))
        batch = np.stack([cells.context == name for name in contexts], axis=1)
        np.save(folder / "cells.npy", np.column_stack([x, marks, batch]))
        names = {"genes": cells.genes, "perturbed": cells.conditions, "batches": contexts}
        (folder / "cells.json").write_text(json.dumps(names))
        return folder / "cells.npy"
    path = folder / "folder"
    for (context, condition), rows in table(cells).reset_index().groupby(["context", "condition"]).groups.items():
        (path / context).mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame(x[rows].T, index=list(cells.genes), columns=list(cells.ids[rows]))
        frame.to_csv(path / context / f"{condition}.csv")
    return path
