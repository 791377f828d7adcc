"""Counts of cells as h5ad, written as they come, so that memory holds one block of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from pertcast.types import Ints

CHUNK = 1 << 20  # numbers of a chunk on disk


class CellStream:
    """An h5ad file that blocks of cells are added to; `X` is CSR. Used as a context, closed at its end."""

    def __init__(self, path: Path):
        self.path, self.ends = Path(path), [np.zeros(1, np.int64)]

    def __enter__(self) -> CellStream:
        self.file = h5py.File(self.path, "w")
        self.file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        self.x = self.file.create_group("X")
        return self

    def __exit__(self, *raised: object) -> None:
        self.file.close()

    def add(self, counts: sparse.csr_array) -> None:
        """Add cells below those that are there: (n, g)."""
        self.ends.append(self.ends[-1][-1] + counts.indptr[1:].astype(np.int64))
        self._append("data", counts.data)
        self._append("indices", counts.indices)

    def finish(self, obs: pd.DataFrame, genes: tuple[str, ...], uns: Mapping[str, object]) -> None:
        """Write the table of all cells that were added (n, ..), the names of the genes (g,), and what is noted."""
        from anndata.io import write_elem

        self._append("indptr", np.concatenate(self.ends))
        shape = np.array([len(obs), len(genes)])
        self.x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
        write_elem(self.file, "obs", obs)
        write_elem(self.file, "var", pd.DataFrame(index=pd.Index(genes, dtype=object)))
        write_elem(self.file, "uns", dict(uns))
        for empty in ("layers", "obsm", "varm", "obsp", "varp"):
            write_elem(self.file, empty, {})

    def _append(self, name: str, values: Ints) -> None:
        """Append to a one-dimensional dataset, which is created when needed."""
        if name not in self.x:
            self.x.create_dataset(
                name, data=values, maxshape=(None,), chunks=(CHUNK,), compression="gzip", compression_opts=1,
                shuffle=True,
            )  # fmt: skip
            return
        whole = self.x[name]
        first = len(whole)
        whole.resize((first + len(values),))
        whole[first:] = values
