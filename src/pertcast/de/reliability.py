"""How far a row of responses can be trusted: the cells, samples and counts that it was computed from.

A row of few cells has responses that are shifted and noisy, and a gene without a count on either side has one that is
an artefact of library sizes; models may count such rows less.
"""

import numpy as np
import pandas as pd

from pertcast.de.pseudobulk import N_CELLS, Pseudobulk
from pertcast.schema import CELL_TYPE, COMPOUND


def row_reliability(bulk: Pseudobulk, keys: pd.DataFrame, *, group: str, condition: str, control: str) -> pd.DataFrame:
    """Describe what stands behind each row of a table of responses: (r, 8), rows as in `keys`.

    bulk                 samples that the table was computed from
    keys                 (r, ..) `cell_type` (the group) and `sm_name` (the condition)
    group, condition     columns of the samples; `control` is a label of the latter

    Columns: cell_type, sm_name; cells and samples of the condition and of the control in its group; silent_genes, those
    without a count in either; reliability n / (n + m), where 1 / n = 1 / cells + 1 / control cells, as in the variance
    of a difference, and m is the median of n.
    """
    groups, labels = (bulk.obs[name].astype(str).to_numpy() for name in (group, condition))
    cells, seen = bulk.obs[N_CELLS].to_numpy(), bulk.counts > 0  # (n,), (n, g)
    rows = []
    for name, label in keys[[CELL_TYPE, COMPOUND]].itertuples(index=False):
        own, other = (np.flatnonzero((groups == name) & (labels == one)) for one in (label, control))
        silent = int(np.count_nonzero(~(seen[own].any(axis=0) | seen[other].any(axis=0))))
        rows.append((name, label, cells[own].sum(), cells[other].sum(), len(own), len(other), silent))
    names = [CELL_TYPE, COMPOUND, "cells", "control_cells", "samples", "control_samples", "silent_genes"]
    table = pd.DataFrame(rows, columns=names)
    n = 1 / (1 / table["cells"] + 1 / table["control_cells"])
    return table.assign(reliability=n / (n + n.median()))
