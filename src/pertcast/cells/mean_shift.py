"""A reference: every cell moves by what the condition did to gene means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, diags_array

from pertcast.cells.registry import register
from pertcast.cells.seen import Seen, fitted, measured_contexts
from pertcast.config import Config
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.types import Cells, Floats

NAME = "mean-shift"


@register(NAME, floor=True)
class MeanShift:
    """A constant per gene is added to every cell, so that means change as they did in training; never below 0.

    The change is the difference of gene means, treated less untreated, averaged over the contexts where both were
    measured: contexts count once, cells are not paired. Where it is negative, cells at 0 cannot follow; the constant is
    then the one that lowers the mean of the untreated training cells by just that much. Source: S002-11.
    """

    def __init__(self, config: Config):
        self.config = config
        self.seen: Seen | None = None
        self.shift = np.zeros((0, 0))  # (c, g) in the order of `seen.conditions`

    def fit(self, cells: Cells, *, seed: int) -> MeanShift:  # noqa: ARG002 - nothing is drawn
        """Measure the shifts. Raises InputError without cells."""
        contexts = measured_contexts(cells)
        self.seen = Seen.of(NAME, cells, contexts)
        rows = [_constants(cells, name, within) for name, within in contexts.items()]
        self.shift = np.array(rows).reshape(len(rows), len(cells.genes))
        return self

    def predict(self, control_cells: Cells, condition: str, *, seed: int, sample: bool = False) -> Cells:
        """Shift these cells; with `sample`, counts are rounded up or down by chance so that their expectation stays.

        Raises InputError as `Seen.asked`.
        """
        cells = fitted(self.seen, NAME, "predict").asked(control_cells, condition)
        named = np.full(len(cells), condition, dtype=object)
        return replace(shifted(cells, self.of(condition), seed=seed if sample else None), condition=named)

    def of(self, condition: str) -> Floats:
        """What a condition that training showed adds to every gene: (g,)."""
        return self.shift[fitted(self.seen, NAME, "tell").conditions.index(condition)]

    def save(self, folder: Path) -> None:
        facts = fitted(self.seen, NAME, "save").as_dict()
        save_arrays(folder, NAME, {"shift": self.shift}, facts)

    def load(self, folder: Path) -> MeanShift:
        arrays, facts = load_arrays(folder, NAME)
        self.seen, self.shift = Seen.restored(facts), arrays["shift"]
        return self


def shifted(cells: Cells, shift: Floats, *, seed: int | None) -> Cells:
    """Add (g,) to every cell, never below 0; with a seed, counts are rounded up or down by chance."""
    x = np.maximum(cells.x.toarray() + shift, 0.0)
    if seed is not None and cells.unit == "counts":
        x = np.floor(x + np.random.default_rng(seed).random(x.shape))
    return replace(cells, x=csr_array(x.astype(np.float32)))


def _constants(cells: Cells, condition: str, contexts: list[str]) -> Floats:
    """What to add per gene so that the balanced mean of untreated cells becomes that of the treated ones: (g,)."""
    treated = _balanced(cells, cells.condition == condition, contexts)
    untreated = _balanced(cells, cells.untreated, contexts)
    wanted, now = treated.sum(axis=0), untreated.sum(axis=0)  # (g,) means
    constants = wanted - now
    columns, weight = untreated.tocsc(), _weights(cells, cells.untreated, contexts)
    for gene in np.flatnonzero(constants < 0):
        part = slice(columns.indptr[gene], columns.indptr[gene + 1])
        mass = weight[columns.indices[part]]
        constants[gene] = -_lowered(columns.data[part] / mass, mass, wanted[gene])
    return constants


def _lowered(values: Floats, mass: Floats, wanted: float) -> float:
    """Find t >= 0 with sum of mass * max(values - t, 0) = wanted, which is at most the sum at t = 0."""
    order = np.argsort(-values, kind="stable")
    values, mass = values[order], mass[order]
    total, above = np.cumsum(values * mass), np.cumsum(mass)
    left = total - values * above  # the sum where t is each of the values
    last = max(int(np.searchsorted(left, wanted, side="right")) - 1, 0)
    return max((total[last] - wanted) / above[last], 0.0)


def _balanced(cells: Cells, chosen: np.ndarray, contexts: list[str]) -> csr_array:
    """Cells times their weight, so that columns sum to means over contexts of the contexts' means: (n, g) float64."""
    return csr_array(diags_array(_weights(cells, chosen, contexts)) @ cells.x.astype(np.float64))


def _weights(cells: Cells, chosen: np.ndarray, contexts: list[str]) -> Floats:
    """One over the number of chosen cells of the context and over the number of contexts; 0 for all others: (n,)."""
    weight = np.zeros(len(cells))
    for context in contexts:
        rows = chosen & (cells.context == context)
        weight[rows] = 1 / (rows.sum() * len(contexts))
    return weight
