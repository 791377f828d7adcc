"""Did a condition do anything? Shifts that contexts agree on, against those between halves of untreated cells."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from pertcast.types import Floats, Ints

SPLITS = 40  # of the untreated cells of every context
ERRORS = 5.0  # standard deviations of those by which an effect must exceed their mean


def is_detected(y: csr_array, controls: list[Ints], treated: list[Ints], *, seed: int) -> bool:
    """Whether the shifts of a condition agree between contexts more than chance and shared programs make them.

    y         (n, g)  log means are taken of it
    controls  rows of the untreated cells of each context that measured the condition
    treated   rows of its treated cells

    Agreement is the sum of inner products of shifts of different contexts: their noise is independent, so what they
    have in common is an effect. With one context it is the squared length. It must exceed ERRORS standard deviations
    of the same number taken from random parts of the untreated cells, as large as the treated ones and scaled to the
    same error: genes that move together by themselves are in there, too.
    """
    real = np.stack([_mean(y, t) - _mean(y, c) for c, t in zip(controls, treated, strict=True)])  # (m, g)
    weight = np.array([1 / (1 / len(c) + 1 / len(t)) for c, t in zip(controls, treated, strict=True)])
    weight = weight / weight.sum()
    rng = np.random.default_rng(seed)
    null = np.stack([_split_shifts(y, c, len(t), rng) for c, t in zip(controls, treated, strict=True)])  # (m, s, g)
    splits = [_agreement(null[:, number], weight) for number in range(SPLITS)]
    return bool(_agreement(real, weight) > np.mean(splits) + ERRORS * np.std(splits, ddof=1))


def _agreement(shifts: Floats, weight: Floats) -> float:
    weighted = weight[:, None] * shifts
    own = np.square(weighted).sum()
    return float(own if len(shifts) == 1 else np.square(weighted.sum(axis=0)).sum() - own)


def _split_shifts(y: csr_array, rows: Ints, size: int, rng: np.random.Generator) -> Floats:
    """Differences between random parts of untreated cells, scaled to the error of treated less untreated: (s, g)."""
    n = len(rows)
    part = min(size, n // 2)
    if part == 0:
        return np.zeros((SPLITS, y.shape[1]))
    order = np.argsort(rng.random((SPLITS, n)), axis=1)
    indicator = np.full((SPLITS, n), -1.0 / (n - part))
    np.put_along_axis(indicator, order[:, :part], 1.0 / part, axis=1)
    error = (1 / n + 1 / size) / (1 / part + 1 / (n - part))
    return np.sqrt(error) * np.asarray((y[rows].T @ indicator.T).T)


def _mean(y: csr_array, rows: Ints) -> Floats:
    return np.asarray(y[rows].mean(axis=0), float)
