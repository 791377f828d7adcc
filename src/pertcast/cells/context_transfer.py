"""Context transfer: an untreated cell keeps its counts, and loses or gains molecules as other contexts tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array

from pertcast.cells.count_moves import Moves, find_moves, pooled_dispersion
from pertcast.cells.registry import register
from pertcast.cells.seen import Seen, fitted
from pertcast.cells.transfer_means import ContextMeans, Measured
from pertcast.config import Config
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.types import Cells, Floats

NAME = "context-transfer"
SCALE = 1e4  # counts are compared per so many
PANEL = 200  # genes; with fewer, one gene's change moves the total, and totals say little of depth
WHOLE = 0.02  # how far from a whole number a recovered count may be
MOSTLY = 0.95  # share of recovered counts that must be whole
SEED = 0  # of the search for rates and of split controls, the same for every fit


class ContextTransferConfig(Config):
    """What counts are compared by."""

    totals: Literal["auto", "cell", "none"] = "auto"  # each cell's own total; none: as they are; auto: by the panel
    most_controls: int = Field(2000, ge=1)  # untreated cells of a context that rates are searched on


@register(NAME, config=ContextTransferConfig)
class ContextTransfer:
    """Counts of untreated cells, moved to the gene means that other contexts predict.

    Mean: a Gaussian process over contexts blended with the nearest ones, held back where effects are no larger than
    noise. Cells: molecules are thinned out, or added from a negative binomial as
    dispersed as the treated cells of training. Values that are log1p of counts are turned to counts and back.
    """

    def __init__(self, config: ContextTransferConfig):
        self.config = config
        self.seen: Seen | None = None
        self.means: ContextMeans | None = None
        self.dispersion: dict[str, Floats] = {}  # condition -> (g,)
        self.control = csr_array((0, 0))  # (k, g) counts of untreated training cells
        self.control_total = np.zeros(0)  # (k,)
        self.control_context = np.zeros(0, dtype=object)  # (k,)

    def fit(self, cells: Cells, *, seed: int) -> ContextTransfer:  # noqa: ARG002 - the same whatever the seed
        """Measure means per context and condition. Raises InputError without cells."""
        self.seen = Seen.of(NAME, cells, ())
        counts, total = self._counts(cells)
        y = _log(counts, total)
        self.means = ContextMeans.of(y, cells, seed=SEED)
        self.seen = Seen.of(NAME, cells, self.means.measured)
        self.dispersion = {}
        for condition in self.means.measured:
            treated = cells.condition == condition
            groups = [np.flatnonzero(treated & (cells.context == name)) for name in self.means.contexts]
            self.dispersion[condition] = pooled_dispersion(counts, total, groups)
        kept = self._kept(cells)
        self.control, self.control_total = counts[kept], total[kept]
        self.control_context = cells.context[kept]
        return self

    def predict(self, control_cells: Cells, condition: str, *, seed: int, sample: bool = False) -> Cells:
        """Predict these cells under a condition: molecules drawn if `sample`, else expected.

        Raises InputError as `Seen.asked`.
        """
        seen = fitted(self.seen, NAME, "predict")
        cells = seen.asked(control_cells, condition)
        counts, total = self._counts(cells)
        rng = np.random.default_rng(seed)
        moved = cells.x.toarray()
        for name in sorted(set(cells.context)):
            rows = np.flatnonzero(cells.context == name)
            moves = self._moves(condition, name)
            before = counts[rows].toarray().astype(np.float64)
            after = moves.draw(before, total[rows], rng=rng) if sample else moves.expected(before, total[rows])
            if cells.unit == "log1p":
                after = np.log1p(after / total[rows, None] * SCALE)
            genes = np.flatnonzero((moves.keep < 1) | (moves.add > 0))  # the others stay as they are, to the last bit
            moved[np.ix_(rows, genes)] = after[:, genes]
        named = np.full(len(cells), condition, dtype=object)
        return replace(cells, x=csr_array(moved.astype(np.float32)), condition=named)

    def save(self, folder: Path) -> None:
        seen, means = fitted(self.seen, NAME, "save"), self.means
        arrays = {"centre": means.centre, "control_total": self.control_total}
        arrays |= {f"control_{part}": getattr(self.control, part) for part in ("data", "indices", "indptr")}
        for number, (condition, known) in enumerate(means.measured.items()):
            parts = {name: np.asarray(getattr(known, name)) for name in Measured.__slots__}
            arrays |= {f"{number}.{name}": value for name, value in parts.items()}
            arrays[f"{number}.dispersion"] = self.dispersion[condition]
        facts = {
            "config": self.config.model_dump(mode="json"), "seen": seen.as_dict(), "contexts": means.contexts,
            "control_context": list(self.control_context),
        }  # fmt: skip
        save_arrays(folder, NAME, arrays, facts)

    def load(self, folder: Path) -> ContextTransfer:
        arrays, facts = load_arrays(folder, NAME)
        self.config = ContextTransferConfig.model_validate(facts["config"])
        self.seen = Seen.restored(facts["seen"])
        measured = {
            condition: Measured(**{name: arrays[f"{number}.{name}"][()] for name in Measured.__slots__})
            for number, condition in enumerate(self.seen.conditions)
        }
        self.means = ContextMeans(tuple(facts["contexts"]), arrays["centre"], measured)
        self.dispersion = {name: arrays[f"{n}.dispersion"] for n, name in enumerate(self.seen.conditions)}
        parts = tuple(arrays[f"control_{part}"] for part in ("data", "indices", "indptr"))
        self.control_total = arrays["control_total"]
        self.control = csr_array(parts, shape=(len(self.control_total), len(self.seen.genes)))
        self.control_context = np.array(facts["control_context"], dtype=object)
        return self

    def _moves(self, condition: str, context: str) -> Moves:
        """Rates for a context; searched on its untreated training cells, or on all where it has none."""
        rows = np.flatnonzero(self.control_context == context)
        rows = rows if len(rows) else np.arange(len(self.control_context))
        shift = self.means.shift(condition, context)
        total, dispersion = self.control_total[rows], self.dispersion[condition]
        order = np.argsort(self.seen.genes)  # random numbers go by name: the order of columns must not matter
        counts = self.control[rows][:, order]
        return find_moves(counts, total, shift[order], dispersion[order], scale=SCALE, seed=SEED).take(
            np.argsort(order)
        )

    def _counts(self, cells: Cells) -> tuple[csr_array, Floats]:
        """Counts (n, g), and what a cell's counts are divided by (n,)."""
        if cells.unit == "log1p":
            return _recovered(cells.x)
        by_cell = self.config.totals == "cell" or (self.config.totals == "auto" and len(cells.genes) >= PANEL)
        if not by_cell:
            return cells.x, np.full(len(cells), SCALE)
        return cells.x, np.maximum(np.asarray(cells.x.sum(axis=1), float).ravel(), 1.0)

    def _kept(self, cells: Cells) -> np.ndarray:
        """Untreated cells, at most so many of each context."""
        rng, kept = np.random.default_rng(SEED), []
        for name in self.means.contexts:
            rows = np.flatnonzero(cells.untreated & (cells.context == name))
            kept.append(np.sort(rng.permutation(rows)[: self.config.most_controls]))
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
