"""Factors that put decoded means right, until drawn cells have the wanted log means; and draws of known sums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from pertcast.cells.count_moves import DISPERSION, added, kept
from pertcast.cells.count_shift import CountShift
from pertcast.cells.log_scale import TOTAL
from pertcast.types import Cells, Floats

SEARCHED = (300, 600)  # cells that rates are searched on, at least and about at most
STEPS = 6  # of the search
MOST_STEP = 1.0  # of the log of a factor
LEAST = 1e-3  # of a log mean; of less, draws tell too little


def control_cells(known: CountShift, context: str, *, batch: str) -> Cells:
    """Untreated training cells of a context, of all where it has none; few of them several times over.

    Their batch was not kept: all get the one that is named.
    """
    rows = known.controls(context)
    rows = np.tile(rows, -(-SEARCHED[0] // len(rows)))
    rows = rows[:: -(-len(rows) // SEARCHED[1])]
    named = {name: np.full(len(rows), name, dtype=object) for name in ("control", batch)}
    return Cells(
        ids=named["control"], genes=known.genes, x=known.control[rows], unit="counts", condition=named["control"],
        context=known.control_context[rows], batch=named[batch], control="control",
    )  # fmt: skip


def find_gain(
    draw: Callable[[Floats], csr_array], before: csr_array, total: Floats, shift: Floats, gain: Floats
) -> Floats:
    """Logs of factors of decoded means at which the mean of log1p(count / total * 10,000) moves by `shift`: (g,).

    draw    gain (g,) -> counts (n, g), with the same random numbers every time
    before  (n, g)  counts of untreated cells
    total   (n,)    what a cell's counts are divided by
    gain    (g,)    to begin with
    """
    wanted = np.maximum(_log_mean(before, total) + shift, 0)
    for _ in range(STEPS):
        got = _log_mean(draw(gain), total)
        gain = gain + np.clip(np.log((wanted + LEAST) / (got + LEAST)), -MOST_STEP, MOST_STEP)
    return gain


def with_sums(drawn: csr_array, expected: csr_array, total: Floats, *, rng: np.random.Generator) -> csr_array:
    """Let each gene of drawn counts (n, g) have as many molecules in all as expected; which cells, is chance.

    Where there are too many, molecules are lost at random; where too few, they are added in proportion to totals (n,).
    """
    x = drawn.toarray().astype(np.int64)
    have, want = x.sum(axis=0), np.asarray(expected.sum(axis=0), np.float64)
    more, fewer = np.flatnonzero(have > want), np.flatnonzero(have < want)
    x[:, more] = kept(x[:, more], want[more] / have[more], rng=rng)
    x[:, fewer] += added((want - have)[fewer] / total.sum(), total, np.full(len(fewer), DISPERSION[0]), rng=rng)
    return csr_array(x.astype(np.float32))


def _log_mean(x: csr_array, total: Floats) -> Floats:
    y = csr_array(x.multiply(TOTAL / total[:, None]))
    y.data = np.log1p(y.data)
    return y.mean(axis=0)
