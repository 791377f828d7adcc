"""Cells in parts of given sizes, once: to train on, to stop by, to report. Whole donors where the donor is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pertcast.errors import InputError
from pertcast.types import Cells, Ints

LEAST_BATCHES = 3  # from which on whole ones are parted unless cells are asked for


def part_cells(
    cells: Cells, shares: Sequence[float], *, seed: int, by: Literal["auto", "batch", "cell"] = "auto"
) -> tuple[Ints, ...]:
    """Part cells at random: row numbers of each part, ascending, every cell in one.

    shares  of the cells in each part; they add up to 1
    by      cell; or batch (donor, biopsy, run), which is never split, so that parts are only about as large as asked;
            auto: batch where there are at least 3 and as many as parts (S001-15, R06)
    Raises InputError where a part would be empty.
    """
    names = np.array(sorted(set(cells.batch)), dtype=object)
    if by == "auto":
        by = "batch" if len(names) >= max(LEAST_BATCHES, len(shares)) else "cell"
    units = names if by == "batch" else np.arange(len(cells))
    if len(units) < len(shares):
        fix = "Part by cell, or give more." if by == "batch" else "Give more."
        raise InputError(f"{len(units)} {'batches' if by == 'batch' else 'cells'} fill no {len(shares)} parts. {fix}")
    order = np.random.default_rng(seed).permutation(len(units))
    if by == "cell":
        cuts = np.clip(np.round(np.cumsum(shares)[:-1] * len(cells)).astype(int), 1, len(cells) - 1)
        return tuple(np.sort(part) for part in np.split(order, cuts))
    wanted, held = np.array(shares) * len(cells), np.zeros(len(shares))
    part = {}
    for name in names[order]:  # the next batch goes where most is missing
        part[name] = int(np.argmax((wanted - held) / wanted))
        held[part[name]] += (cells.batch == name).sum()
    which = np.array([part[name] for name in cells.batch])
    return tuple(np.flatnonzero(which == number) for number in range(len(shares)))
