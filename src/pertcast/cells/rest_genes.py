"""Networks see the genes that vary most; all others are moved by the closed form that moves counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array, hstack

from pertcast.cells.count_shift import CountShift
from pertcast.cells.log_scale import as_log1p
from pertcast.cells.variable_genes import variable_genes
from pertcast.errors import InputError
from pertcast.types import Cells, Floats, Ints

PREFIX = "rest."  # of array names in a model's file

Codes = Callable[[list[str]], Floats]  # names of conditions -> (k, c), the untreated at 0


@dataclass(frozen=True, slots=True)
class RestGenes:
    """Which genes of the training cells a network sees, and what becomes of the others."""

    genes: tuple[str, ...]
    chosen: Ints  # (k,) columns that the network sees, ascending
    shift: CountShift | None  # None: the network sees all

    @classmethod
    def of(cls, cells: Cells, most: int) -> RestGenes:
        """Choose at most so many genes of training cells; 0: all. Panels with no more genes are left as they are.

        Raises InputError for log values below 0, which say neither how much a gene varies nor what its counts were.
        """
        if not most or len(cells.genes) <= most:
            return cls(cells.genes, np.arange(len(cells.genes)), None)
        if cells.x.nnz and cells.x.data.min() < 0:
            what = f"values below 0, so the {most} genes that vary most cannot be told among {len(cells.genes)}"
            raise InputError(f"Cells hold {what}. Give log1p of counts, or set most_genes to 0 for all genes.")
        return cls(cells.genes, variable_genes(as_log1p(cells), most), CountShift.of(cells))

    @property
    def names(self) -> tuple[str, ...]:
        """Genes that the network sees."""
        return tuple(self.genes[j] for j in self.chosen)

    def seen(self, x: csr_array) -> csr_array:
        """Columns that the network sees, of cells with all genes: (n, g) -> (n, k)."""
        return x if self.shift is None else x[:, self.chosen]

    def whole(
        self,
        x: csr_array,
        cells: Cells,
        condition: str,
        *,
        codes: Codes | None = None,
        rng: np.random.Generator | None,
    ) -> Cells:
        """Put what a network made beside the other genes, moved from the cells' own conditions to this one.

        x      (n, k)  what the network made of its genes, in the cells' unit
        cells  with all genes
        codes  of conditions: one that was never measured is taken for a sum of measured ones whose codes add up to it;
               None: no such condition is asked for
        rng    molecules are drawn; None: expected counts
        Counts of the other genes are relative to the total of all genes of the cell as it was.
        """
        if self.shift is not None:
            others = np.setdiff1d(np.arange(len(self.genes)), self.chosen)
            rest = np.empty((len(cells), len(others)), np.float32)
            for before in sorted(set(cells.condition)):
                rows = np.flatnonzero(cells.condition == before)
                weights, source = (self._weights(name, cells.control, codes) for name in (condition, before))
                rest[rows] = self.shift.move(cells.take(rows), others, weights, source=source, rng=rng)
            both = hstack([csr_array(x), csr_array(rest)], format="csr")
            x = both[:, np.argsort(np.concatenate([self.chosen, others]), kind="stable")]
        named = np.full(len(cells), condition, dtype=object)
        return replace(cells, x=csr_array(x, dtype=np.float32), condition=named)

    def parts(self) -> tuple[dict[str, np.ndarray], dict[str, object] | None]:
        """Arrays and facts, for saving; the genes are the model's."""
        arrays, facts = ({}, None) if self.shift is None else self.shift.parts()
        return {f"{PREFIX}{name}": value for name, value in {**arrays, "chosen": self.chosen}.items()}, facts

    @classmethod
    def restored(
        cls, genes: tuple[str, ...], arrays: Mapping[str, np.ndarray], facts: dict[str, list] | None
    ) -> RestGenes:
        """Rebuild what `parts` gave."""
        own = {name.removeprefix(PREFIX): value for name, value in arrays.items() if name.startswith(PREFIX)}
        return cls(genes, own["chosen"], None if facts is None else CountShift.restored(genes, own, facts))

    def _weights(self, condition: str, control: str, codes: Codes | None) -> dict[str, float]:
        """How much of each measured condition's shift a condition is."""
        measured = list(self.shift.means.measured)
        if condition == control:
            return {}
        if condition in measured:
            return {condition: 1.0}
        table = codes([*measured, condition]).astype(np.float64)
        found = np.linalg.lstsq(table[:-1].T, table[-1], rcond=None)[0]
        return {name: float(weight) for name, weight in zip(measured, found, strict=True) if abs(weight) > 1e-9}
