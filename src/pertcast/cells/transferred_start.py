"""Networks of cells begin at the means of the closed form: measured ones, or transferred from other contexts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from pertcast.cells.count_shift import PANEL, SEED
from pertcast.cells.log_scale import as_log1p
from pertcast.cells.rest_genes import RestGenes
from pertcast.cells.transfer_means import ContextMeans
from pertcast.errors import InputError
from pertcast.nn.context_start import NOWHERE, ContextStart
from pertcast.types import Cells, Floats, Ints

MOST = 100_000_000  # numbers of changes: 400 MB

Homes = tuple[str, ...]  # names of the contexts that a start has means of, in its order


def transferred_start(
    cells: Cells, rest: RestGenes, codes: Callable[[list[str]], Floats], *, relabelled: bool = False
) -> tuple[ContextStart | None, Homes]:
    """Changes of the means of the genes that a network sees, as `ContextMeans` gives them for every context.

    Where transfer tells contexts left out less well than the mean over contexts does, unmeasured ones get that.
    rest        which genes these are, and the closed form that moves the others
    codes       of conditions: (k, c), the untreated at 0. A condition begins at what is linear in its code; with codes
                that are independent these are the changes of each measured condition themselves
    relabelled  whether contexts are others than when `rest` was made
    No start where nothing was measured beside untreated cells. Raises InputError where it would not fit in memory.
    """
    shared = rest.shift is not None and not relabelled and len(rest.genes) >= PANEL  # of smaller ones totals differ
    means = rest.shift.means if shared else ContextMeans.of(as_log1p(cells), cells, seed=SEED)
    measured = list(means.measured)
    if not measured:
        return None, ()
    unit = np.linalg.pinv(codes(measured).astype(np.float64))  # (c, m)
    _check_size(len(means.contexts), len(unit), len(rest.chosen))
    change = np.empty((len(means.contexts), len(unit), len(rest.chosen)), np.float32)
    transfers = _transfers(means, rest.chosen)
    for number in range(len(means.contexts)):
        shifts = [_believed(means, name, number, transfers=transfers)[rest.chosen] for name in measured]
        change[number] = unit @ np.stack(shifts)
    centre = means.centre[:, rest.chosen].astype(np.float32)
    return ContextStart(torch.tensor(centre), torch.tensor(change)), means.contexts


def restored_start(weights: Mapping[str, Tensor], name: str) -> ContextStart | None:
    """Rebuild the start of this name from the weights of the networks that have it, if they do."""
    if f"{name}.centre" not in weights:
        return None
    return ContextStart(weights[f"{name}.centre"], weights[f"{name}.change"])


def number_of(context: Iterable[str], homes: Homes) -> Tensor:
    """Number of each cell's context in a start, NOWHERE where it has none: (n,)."""
    place = {name: number for number, name in enumerate(homes)}
    return torch.tensor([place.get(name, NOWHERE) for name in context], dtype=torch.int64)


def _transfers(means: ContextMeans, genes: Ints) -> bool:
    """Whether transfer tells contexts that are left out at least as well as the mean over contexts."""
    transferred = mean = 0.0
    for condition, known in means.measured.items():
        for row, number in enumerate(known.contexts if len(known.contexts) > 1 else ()):
            context = means.contexts[number]
            left = means.without(condition, context)
            transferred += np.square((left.shift(condition, context) - known.shift[row])[genes]).sum()
            mean += np.square((left.mean_shift(condition) - known.shift[row])[genes]).sum()
    return bool(transferred <= mean)


def _believed(means: ContextMeans, condition: str, number: int, *, transfers: bool) -> Floats:
    if transfers or number in means.measured[condition].contexts:
        return means.shift(condition, means.contexts[number])
    return means.mean_shift(condition)


def _check_size(contexts: int, width: int, genes: int) -> None:
    if contexts * width * genes > MOST:
        what = f"{contexts} contexts x {width} numbers of a condition's code x {genes} genes"
        fix = "Set most_genes to fewer, or let training begin without transferred means."
        raise InputError(f"The start would hold {what}, more than {MOST:,}. {fix}")
