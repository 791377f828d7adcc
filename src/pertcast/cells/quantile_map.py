"""A reference: each gene's distribution is carried from untreated to treated, quantile by quantile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from pertcast.cells.registry import register
from pertcast.cells.seen import Seen, fitted, measured_contexts
from pertcast.config import Config
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.types import Cells, Floats, Ints

NAME = "quantile-map"


@dataclass(frozen=True, slots=True)
class Marginals:
    """The distribution of every gene in some cells: distinct values, ascending within a gene, and their shares."""

    gene: Ints  # (k,) ascending
    value: Floats  # (k,)
    share: Floats  # (k,) sums to 1 within a gene

    @classmethod
    def of(cls, x: csr_array) -> Marginals:
        """Take the distributions of the columns of (n, g)."""
        n, g = x.shape
        columns = x.tocsc()
        columns.sum_duplicates()
        stored = np.diff(columns.indptr)
        gene = np.concatenate([np.repeat(np.arange(g), stored), np.arange(g)])
        value = np.concatenate([columns.data.astype(np.float64), np.zeros(g)])
        share = np.concatenate([np.full(columns.nnz, 1 / n), 1 - stored / n])
        return _merged(gene, value, share)

    def of_gene(self, gene: int) -> tuple[Floats, Floats]:
        """Distinct values of one gene, and the probability of at most each of them."""
        part = slice(*np.searchsorted(self.gene, [gene, gene + 1]))
        up_to = np.cumsum(self.share[part])
        return self.value[part], up_to / up_to[-1]


def _merged(gene: Ints, value: Floats, share: Floats) -> Marginals:
    """Sort by gene and value, add up the shares of equal values, drop what has none."""
    some = share > 0
    gene, value, share = gene[some], value[some], share[some]
    order = np.lexsort((value, gene))
    gene, value, share = gene[order], value[order], share[order]
    first = np.flatnonzero(np.append(True, (np.diff(gene) != 0) | (np.diff(value) != 0)))
    return Marginals(gene[first], value[first], np.add.reduceat(share, first))


def mixed(parts: list[Marginals]) -> Marginals:
    """Mix distributions, each with the same weight."""
    together = (np.concatenate([getattr(part, name) for part in parts]) for name in ("gene", "value", "share"))
    gene, value, share = together
    return _merged(gene, value, share / len(parts))


@register(NAME)
class QuantileMap:
    """Gene by gene, the value at a quantile of the untreated cells becomes the one at that quantile of the treated.

    The one monotone map that carries one distribution into the other, hence optimal transport in one dimension. In a
    context where the condition was measured, both distributions are that context's; elsewhere they are mixtures of the
    contexts where it was measured, each with the same weight. A value that many cells share (0 above all) covers a
    range of quantiles: `sample` draws one of them per cell, else the mean over the range is taken, so that means are
    right either way. Beyond the values of training the map goes on with slope 1, never below 0.
    Source: Villani 2009, doi:10.1007/978-3-540-71050-9, chapter 2.
    """

    def __init__(self, config: Config):
        self.config = config
        self.seen: Seen | None = None
        self.contexts: dict[str, list[str]] = {}  # of each condition
        self.untreated: dict[str, Marginals] = {}  # by context
        self.treated: dict[tuple[str, str], Marginals] = {}  # by condition and context

    def fit(self, cells: Cells, *, seed: int) -> QuantileMap:  # noqa: ARG002 - nothing is drawn
        """Take the distributions of all genes. Raises InputError without cells."""
        self.contexts = measured_contexts(cells)
        self.seen = Seen.of(NAME, cells, self.contexts)
        wanted = sorted({context for contexts in self.contexts.values() for context in contexts})
        self.untreated = {name: Marginals.of(cells.x[cells.untreated & (cells.context == name)]) for name in wanted}
        self.treated = {
            (name, context): Marginals.of(cells.x[(cells.condition == name) & (cells.context == context)])
            for name, contexts in self.contexts.items()
            for context in contexts
        }
        return self

    def predict(self, control_cells: Cells, condition: str, *, seed: int, sample: bool = False) -> Cells:
        """Carry these cells over. Raises InputError as `Seen.asked`."""
        cells = fitted(self.seen, NAME, "predict").asked(control_cells, condition)
        ranks = np.random.default_rng(seed).random(cells.x.shape) if sample else None
        x = cells.x.toarray().astype(np.float64)
        for context in sorted(set(cells.context)):
            rows = np.flatnonzero(cells.context == context)
            x[rows] = self._carried(x[rows], condition, context, ranks=None if ranks is None else ranks[rows])
        named = np.full(len(cells), condition, dtype=object)
        return replace(cells, x=csr_array(x.astype(np.float32)), condition=named)

    def save(self, folder: Path) -> None:
        facts = fitted(self.seen, NAME, "save").as_dict()
        groups = [*self.untreated.values(), *self.treated.values()]
        arrays = {
            f"{name}.{number}": getattr(group, name)
            for number, group in enumerate(groups)
            for name in ("gene", "value", "share")
        }
        save_arrays(folder, NAME, arrays, {**facts, "contexts": self.contexts, "untreated": list(self.untreated)})

    def load(self, folder: Path) -> QuantileMap:
        arrays, facts = load_arrays(folder, NAME)
        self.seen, self.contexts = Seen.restored(facts), {name: facts["contexts"][name] for name in facts["conditions"]}
        groups = (
            Marginals(*(arrays[f"{name}.{number}"] for name in ("gene", "value", "share")))
            for number in range(len(arrays) // 3)
        )
        pairs = [(name, context) for name, contexts in self.contexts.items() for context in contexts]
        self.untreated = {name: next(groups) for name in facts["untreated"]}
        self.treated = {pair: next(groups) for pair in pairs}
        return self

    def _carried(self, x: Floats, condition: str, context: str, *, ranks: Floats | None) -> Floats:
        """Map cells of one context: (n, g) -> (n, g)."""
        measured = self.contexts[condition]
        use = [context] if context in measured else measured
        source = mixed([self.untreated[name] for name in use])
        target = mixed([self.treated[condition, name] for name in use])
        out = np.empty_like(x)
        for gene in range(x.shape[1]):
            one = None if ranks is None else ranks[:, gene]
            out[:, gene] = _mapped(x[:, gene], source.of_gene(gene), target.of_gene(gene), ranks=one)
        return out


def _mapped(x: Floats, source: tuple[Floats, Floats], target: tuple[Floats, Floats], *, ranks: Floats | None) -> Floats:
    """Map values of one gene: (n,) -> (n,)."""
    values, up_to = source
    below = np.append(0.0, up_to)
    low = below[np.searchsorted(values, x, side="left")]  # probability of less than x
    high = below[np.searchsorted(values, x, side="right")]  # of at most x
    if ranks is None:
        out = _mean_between(low, high, *target)
    else:
        out = _quantile(low + ranks * (high - low), *target)
    outside = np.minimum(x - values[0], 0) + np.maximum(x - values[-1], 0)
    return np.maximum(out + outside, 0.0)


def _quantile(q: Floats, values: Floats, up_to: Floats) -> Floats:
    return values[np.minimum(np.searchsorted(up_to, q, side="left"), len(values) - 1)]


def _mean_between(low: Floats, high: Floats, values: Floats, up_to: Floats) -> Floats:
    """Mean of the quantile function from `low` to `high`; its value there where the two are the same."""
    area = np.append(0.0, np.cumsum(values * np.diff(up_to, prepend=0.0)))
    knots = np.append(0.0, up_to)
    width = high - low
    share = np.where(width > 0, width, 1.0)
    mean = (np.interp(high, knots, area) - np.interp(low, knots, area)) / share
    return np.where(width > 0, mean, _quantile(low, values, up_to))
