"""Write the pseudobulks of a file of cells as CSV, for `kang_fixture.R`: python write_pseudobulk.py CELLS.h5ad OUT."""

import sys
from pathlib import Path

import pandas as pd

from pertcast.de.pseudobulk import pseudobulk
from pertcast.io.counts import read_counts

if __name__ == "__main__":
    cells = read_counts(Path(sys.argv[1]))
    bulk = pseudobulk(cells.values, cells.obs, ["cell_type", "condition", "sample"], genes=cells.genes)
    pd.concat([bulk.obs, pd.DataFrame(bulk.counts, columns=bulk.genes)], axis=1).to_csv(sys.argv[2], index=False)
