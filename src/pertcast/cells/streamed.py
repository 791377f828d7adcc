"""Cells that are larger than memory, made ready for a fit that leaves them on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pertcast.cells.log_scale import as_log1p
from pertcast.io.arrays import row_pieces
from pertcast.io.cell_shards import MatrixOnDisk
from pertcast.types import Cells, Ints
from pertcast.validation.cell_parts import part_cells

MOST_VALID = 10_000  # cells that training is stopped by; they are held in memory
MOST_SAMPLED = 10_000  # cells that the reference is measured in


@dataclass(frozen=True, slots=True)
class StreamedCells:
    """Cells to train on, on disk; and two samples that fit into memory."""

    train: Cells  # log1p
    valid: Cells  # log1p
    sample: Cells  # in the unit of the file


def split_streamed(cells: Cells, scratch: Path, *, valid_share: float, seed: int) -> StreamedCells:
    """Part cells that lie on disk as a fit in memory does, and write those that train on the log scale.

    cells        of `read_mapped`; they are read piece by piece
    scratch      new folder for the training cells, which must stay while they are used
    valid_share  of the cells, held out to stop by; whole batches where there are 3. Of many, a random sample
    """
    kept, held = part_cells(cells, (1 - valid_share, valid_share), seed=seed)
    rng = np.random.default_rng(seed)
    with MatrixOnDisk(scratch, len(cells.genes)) as matrix:
        ends = np.concatenate([[0], np.cumsum(np.diff(cells.x.indptr)[kept])])
        for rows in row_pieces(ends):
            matrix.add(as_log1p(cells.take(kept[rows])))
    x = matrix.mapped()
    labels = {name: getattr(cells, name)[kept] for name in ("ids", "condition", "context", "batch")}
    train = replace(cells, x=x, unit="log1p", **labels)
    stop = cells.take(_sample(held, MOST_VALID, rng))
    sample = cells.take(_sample(np.arange(len(cells)), MOST_SAMPLED, rng))
    return StreamedCells(train, replace(stop, x=as_log1p(stop), unit="log1p"), sample)


def _sample(rows: Ints, most: int, rng: np.random.Generator) -> Ints:
    """At most so many of the rows, ascending."""
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))
