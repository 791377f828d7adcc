"""Two samples of cells as every metric takes them: checked, cut into genes, or thinned out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pertcast.errors import InputError, several
from pertcast.types import Floats

Cellwise = NDArray | sparse.sparray | sparse.spmatrix  # (n, g)

BLOCK = 1 << 22  # numbers of both samples that are held densely at once: 32 MB in float64


def checked_samples(y_true: Cellwise, y_pred: Cellwise) -> tuple[Cellwise, Cellwise]:
    """Check both samples; sparse ones become columns, which blocks are cut from."""
    sides, problems = [], []
    for name, side in (("y_true", y_true), ("y_pred", y_pred)):
        side = side.tocsc() if sparse.issparse(side) else np.asarray(side)
        if side.ndim != 2 or not all(side.shape) or side.dtype.kind not in "fiub":
            got = f"{side.dtype} of shape {side.shape}"
            problems.append(f"{name} must be numbers of shape (cells, genes), at least 1 of each; it is {got}")
        elif not np.isfinite(stored := side.data if sparse.issparse(side) else side).all():
            bad = stored.size - int(np.isfinite(stored).sum())
            problems.append(f"{name} holds {bad} values that are NaN or infinite")
        sides.append(side)
    true, predicted = sides
    if not problems and true.shape[1] != predicted.shape[1]:
        both = f"y_true has {true.shape[1]}, y_pred {predicted.shape[1]}"
        problems.append(f"both must hold the same genes: {both}. Select them by name first")
    if problems:
        raise InputError(several("Samples of cells", problems))
    return true, predicted


def gene_blocks(true: Cellwise, predicted: Cellwise) -> Iterator[tuple[Floats, Floats]]:
    """Dense float64 columns of both samples, a few genes at a time: (n, b), (m, b)."""
    step = max(1, BLOCK // (true.shape[0] + predicted.shape[0]))
    for start in range(0, true.shape[1], step):
        columns = slice(start, start + step)
        yield _dense(true[:, columns]), _dense(predicted[:, columns])


def drawn_cells(side: Cellwise, seed: int, most: int) -> Floats:
    """At most `most` cells, dense; which ones are drawn follows from what they are, not from where they stand."""
    if side.shape[0] <= most:
        return _dense(side)
    generator = np.random.default_rng(seed)
    direction = generator.standard_normal(side.shape[1])
    if sparse.issparse(side):
        place = side @ direction
    else:
        place = np.zeros(len(side))
        for column, weight in enumerate(direction):  # gene by gene: the same sum for a cell wherever it stands
            place += weight * side[:, column]
    rows = np.argsort(place, kind="stable")[np.sort(generator.permutation(len(place))[:most])]
    return _dense(side.tocsr()[rows] if sparse.issparse(side) else side[rows])


def _dense(values: Cellwise) -> Floats:
    values = values.toarray() if sparse.issparse(values) else values
    return values.astype(np.float64, order="C")  # one order, so that sums round alike however the cells were stored
