"""Counts of cells moved to the gene means that other contexts predict: all that a closed form knows of conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from pertcast.cells.count_moves import Moves, find_moves, pooled_dispersion
from pertcast.cells.transfer_means import ContextMeans, Measured
from pertcast.types import Cells, Floats, Ints, Strings

SCALE = 1e4  # counts are compared per so many
PANEL = 200  # genes; with fewer, one gene's change moves the total, and totals say little of depth
WHOLE = 0.02  # how far from a whole number a recovered count may be
MOSTLY = 0.95  # share of recovered counts that must be whole
MOST_CONTROLS = 2000  # untreated cells of a context that rates are searched on
SEED = 0  # of the search for rates and of split controls, the same for every fit
PARTS = ("data", "indices", "indptr")  # of a sparse matrix

Totals = Literal["auto", "cell", "none"]
Weights = Mapping[str, float]  # measured condition -> how much of its shift; none at all: untreated


@dataclass(frozen=True, slots=True)
class CountShift:
    """Shifts of log means per condition and context, and the untreated cells that rates are searched on."""

    genes: tuple[str, ...]
    totals: Totals  # each cell's own total; none: counts as they are; auto: by the panel
    means: ContextMeans
    dispersion: Mapping[str, Floats]  # condition -> (g,) of its treated cells
    control: csr_array  # (k, g) counts
    control_total: Floats  # (k,)
    control_context: Strings  # (k,)

    @classmethod
    def of(cls, cells: Cells, *, totals: Totals = "auto", most_controls: int = MOST_CONTROLS) -> CountShift:
        """Measure means per context and condition in cells of either unit; the same whatever the seed of a fit."""
        counts, total = comparable_counts(cells, totals)
        means = ContextMeans.of(_log(counts, total), cells, seed=SEED)
        dispersion = {}
        for condition in means.measured:
            treated = cells.condition == condition
            groups = [np.flatnonzero(treated & (cells.context == name)) for name in means.contexts]
            dispersion[condition] = pooled_dispersion(counts, total, groups)
        kept = _kept(cells, means.contexts, most_controls)
        return cls(cells.genes, totals, means, dispersion, counts[kept], total[kept], cells.context[kept])

    def move(
        self, cells: Cells, genes: Ints, weights: Weights, *, source: Weights, rng: np.random.Generator | None
    ) -> Floats:
        """Move cells of all genes, in this order, and return the chosen ones in the cells' unit: (n, k).

        genes            (k,)  columns
        source, weights  what was done to these cells, and what is to have been done
        rng              molecules are drawn; None: expected counts
        """
        counts, total = comparable_counts(cells, self.totals)
        moved = cells.x[:, genes].toarray()
        for name in sorted(set(cells.context)):
            rows = np.flatnonzero(cells.context == name)
            moves = self._moves(weights, source, name).take(genes)
            changed = np.flatnonzero((moves.keep < 1) | (moves.add > 0))  # the others stay as they are, to the last bit
            before = counts[rows][:, genes].toarray().astype(np.float64)
            after = moves.expected(before, total[rows]) if rng is None else moves.draw(before, total[rows], rng=rng)
            if cells.unit == "log1p":
                after = np.log1p(after / total[rows, None] * SCALE)
            moved[np.ix_(rows, changed)] = after[:, changed]
        return moved

    def controls(self, context: str) -> Ints:
        """Rows of the untreated training cells of a context; of all where it has none."""
        rows = np.flatnonzero(self.control_context == context)
        return rows if len(rows) else np.arange(len(self.control_context))

    def parts(self) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """Arrays and facts, for saving; the genes are the owner's."""
        arrays = {"centre": self.means.centre, "error": self.means.error, "control_total": self.control_total}
        arrays |= {f"control_{part}": getattr(self.control, part) for part in PARTS}
        for number, (condition, known) in enumerate(self.means.measured.items()):
            arrays |= {f"{number}.{name}": np.asarray(getattr(known, name)) for name in Measured.__slots__}
            arrays[f"{number}.dispersion"] = self.dispersion[condition]
        facts = {
            "contexts": self.means.contexts, "measured": list(self.means.measured), "totals": self.totals,
            "control_context": list(self.control_context),
        }  # fmt: skip
        return arrays, facts

    @classmethod
    def restored(
        cls, genes: tuple[str, ...], arrays: Mapping[str, np.ndarray], facts: Mapping[str, list]
    ) -> CountShift:
        """Rebuild what `parts` gave."""
        numbered = list(enumerate(facts["measured"]))
        measured = {
            condition: Measured(**{name: arrays[f"{number}.{name}"][()] for name in Measured.__slots__})
            for number, condition in numbered
        }
        total = arrays["control_total"]
        control = csr_array(tuple(arrays[f"control_{part}"] for part in PARTS), shape=(len(total), len(genes)))
        return cls(
            genes, facts["totals"], ContextMeans(tuple(facts["contexts"]), arrays["centre"], arrays["error"], measured),
            {condition: arrays[f"{number}.dispersion"] for number, condition in numbered},
            control, total, np.array(facts["control_context"], dtype=object),
        )  # fmt: skip

    def _moves(self, weights: Weights, source: Weights, context: str) -> Moves:
        """Rates of all genes in a context; searched on its untreated training cells, or on all where it has none.

        Cells that something was done to have other counts than untreated ones: rates are then searched on the latter
        moved likewise.
        """
        rows = self.controls(context)
        order = np.argsort(self.genes)  # random numbers go by name: the order of columns must not matter
        counts, total = self.control[rows][:, order], self.control_total[rows]
        dispersion = self._dispersion({**source, **weights})[order]
        shift, before = (self._shift(part, context)[order] for part in (weights, source))
        if source:
            there = find_moves(counts, total, before, dispersion, scale=SCALE, seed=SEED)
            counts = csr_array(there.draw(counts.toarray(), total, rng=np.random.default_rng(SEED)))
        found = find_moves(counts, total, shift - before, dispersion, scale=SCALE, seed=SEED)
        return found.take(np.argsort(order))

    def _shift(self, weights: Weights, context: str) -> Floats:
        none = np.zeros(len(self.genes))
        return sum((weight * self.means.shift(name, context) for name, weight in weights.items()), none)

    def _dispersion(self, weights: Weights) -> Floats:
        """Dispersion of added molecules (g,), averaged over conditions by their share."""
        size = sum(map(abs, weights.values()))
        shares = ((abs(weight) / size, self.dispersion[name]) for name, weight in weights.items() if size)
        return sum((share * dispersion for share, dispersion in shares), np.zeros(len(self.genes)))


def comparable_counts(cells: Cells, totals: Totals) -> tuple[csr_array, Floats]:
    """Counts (n, g), recovered from log1p values where that is what cells hold, and what each cell's are divided by."""
    if cells.unit == "log1p":
        return _recovered(cells.x)
    if totals == "none" or (totals == "auto" and len(cells.genes) < PANEL):
        return cells.x, np.full(len(cells), SCALE)
    return cells.x, np.maximum(np.asarray(cells.x.sum(axis=1), float).ravel(), 1.0)


def _kept(cells: Cells, contexts: tuple[str, ...], most: int) -> Ints:
    """Untreated cells, at most so many of each context."""
    rng, kept = np.random.default_rng(SEED), []
    for name in contexts:
        rows = np.flatnonzero(cells.untreated & (cells.context == name))
        kept.append(np.sort(rng.permutation(rows)[:most]))
    return np.concatenate(kept) if kept else np.zeros(0, int)


def _log(counts: csr_array, total: Floats) -> csr_array:
    """log1p of counts per SCALE: (n, g)."""
    y = csr_array(counts.multiply(SCALE / total[:, None]))
    y.data = np.log1p(y.data)
    return y


def _recovered(y: csr_array) -> tuple[csr_array, Floats]:
    """Turn log1p values back to counts: the least value of a cell above 0 is taken for one molecule.

    Where the others are then not whole numbers, values are no log counts: each is taken for so many hundredths.
    """
    values = csr_array(y, dtype=np.float64)
    values.data = np.expm1(values.data)
    one = np.array([part.min() if len(part) else 1.0 for part in np.split(values.data, values.indptr[1:-1])])
    counts = csr_array(values.multiply(1 / one[:, None]))
    whole = np.abs(counts.data - np.rint(counts.data)) <= WHOLE * np.maximum(counts.data, 1)
    if counts.nnz == 0 or whole.mean() >= MOSTLY:
        counts.data = np.rint(counts.data)
        return counts, SCALE / one
    counts = csr_array(values)
    counts.data = np.rint(counts.data * 100)
    return counts, np.full(len(one), SCALE * 100)
