"""Batch effects taken off log values: per gene, every batch gets the location and scale of a reference.

What tells a cell's biology (condition and context) is fitted beside the batches and put back, so that a batch that
holds more perturbed cells than another does not lose them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from pertcast.cells.log_scale import as_log1p
from pertcast.errors import InputError, shorten, unknown
from pertcast.types import Cells, Floats, Ints

ROUNDS = 100  # of the empirical-Bayes iteration, at most
CLOSE = 1e-6  # relative change at which it ends
LEAST_VARIANCE = 1e-8  # of a gene that varies; below it a scale would be noise over noise


@dataclass(frozen=True, slots=True)
class BatchEffects:
    """What each batch does to each gene beside biology: fitted by `fit_batches`, taken off by `remove`."""

    batches: tuple[str, ...]  # (b,)
    groups: tuple[tuple[str, str], ...]  # (k,)  condition and context
    genes: tuple[str, ...]  # (g,)
    biology: Floats  # (k, g)  mean of each group, batch effects aside
    scale: Floats  # (g,)  spread of cells around biology and batch
    shift: Floats  # (b, g)  location of each batch, in units of `scale`
    spread: Floats  # (b, g)  standard deviation of each batch, in units of `scale`
    target_shift: Floats  # (g,)  what batches are brought to: the reference's, or 0
    target_spread: Floats  # (g,)  the reference's, or 1

    def remove(self, cells: Cells, *, clip: bool = False) -> Cells:
        """Return log1p cells without the effects of their batches.

        clip  values below 0 become 0; means then no longer agree exactly
        Raises InputError for batches, genes or groups that the fit did not see.
        """
        cells = cells.select(self.genes)
        lost = sorted(set(cells.batch) - set(self.batches))
        if lost:
            raise InputError(f"Batches that the fit did not see: {shorten(lost)}. Known: {shorten(self.batches)}.")
        biology = self.biology[_numbers(_groups(cells), self.groups)]  # (n, g)
        batch = _numbers(list(cells.batch), self.batches)
        z = (as_log1p(cells).toarray() - biology) / self.scale
        z = (z - self.shift[batch]) / self.spread[batch] * self.target_spread + self.target_shift
        x = z * self.scale + biology
        x = np.maximum(x, 0) if clip else x
        return replace(cells, x=csr_array(x.astype(np.float32)), unit="log1p")


def fit_batches(cells: Cells, *, reference: str | None = None, empirical_bayes: bool = False) -> BatchEffects:
    """Measure location and scale of every batch, per gene, on the log1p scale.

    reference        batch that stays as it is; None: all move to their common location and scale
    empirical_bayes  draw each batch's genes towards each other, for batches of few cells
    Raises InputError for an unknown reference, batches of fewer than 2 cells, and where batch and biology cannot be
    told apart because a batch shares no condition and context with the others.
    Source: Johnson et al. 2007, doi:10.1093/biostatistics/kxj037; reference batch: Zhang et al. 2018,
    doi:10.1186/s12859-018-2263-6.
    """
    batches, groups = tuple(sorted(set(cells.batch))), tuple(sorted(set(_groups(cells))))
    batch, group = _numbers(list(cells.batch), batches), _numbers(_groups(cells), groups)
    if reference is not None and reference not in batches:
        raise InputError(unknown("batch", reference, batches))
    size = np.bincount(batch, minlength=len(batches))
    _check(batches, size, batch, group)
    x = as_log1p(cells).toarray().astype(np.float64)
    of_batch, biology = _means(x, batch, group, (len(batches), len(groups)))
    grand = of_batch[batches.index(reference)] if reference is not None else size / len(cells) @ of_batch
    biology, of_batch = biology + grand, of_batch - grand
    residual = x - biology[group] - of_batch[batch]
    if reference is not None:
        residual = residual[batch == batches.index(reference)]
    variance = np.square(residual).mean(axis=0)
    still = variance < LEAST_VARIANCE
    scale = np.sqrt(np.where(still, 1.0, variance))
    z = (x - biology[group]) / scale
    shift = of_batch / scale
    parts = [z[batch == number] for number in range(len(batches))]
    spread2 = np.stack([part.var(axis=0, ddof=1) for part in parts])
    if empirical_bayes:
        found = [_shrunken(part, shift[i], spread2[i]) for i, part in enumerate(parts)]
        shift, spread2 = (np.stack(values) for values in zip(*found, strict=True))
    spread = np.sqrt(np.where((spread2 < LEAST_VARIANCE) | still, 1.0, spread2))
    target_shift, target_spread = np.zeros(x.shape[1]), np.ones(x.shape[1])
    if reference is not None:
        own = batches.index(reference)
        target_shift, target_spread = shift[own], spread[own]
    return BatchEffects(batches, groups, cells.genes, biology, scale, shift, spread, target_shift, target_spread)


def correct_batches(
    cells: Cells, *, reference: str | None = None, empirical_bayes: bool = False, clip: bool = False
) -> Cells:
    """Fit batch effects to cells and take them off: log1p values, all else as it was (S003-13)."""
    return fit_batches(cells, reference=reference, empirical_bayes=empirical_bayes).remove(cells, clip=clip)


def _means(x: Floats, batch: Ints, group: Ints, counts: tuple[int, int]) -> tuple[Floats, Floats]:
    """Least squares of x on batch and biology together: (b, g), (k, g); groups have a weighted mean of 0."""
    b, k = counts
    design = np.zeros((len(x), b + k))
    design[np.arange(len(x)), batch] = 1
    design[np.arange(len(x)), b + group] = 1
    found = np.linalg.lstsq(design.T @ design, design.T @ x, rcond=1e-10)[0]
    level = np.bincount(group, minlength=k) / len(x) @ found[b:]
    return found[:b] + level, found[b:] - level


def _shrunken(z: Floats, shift: Floats, spread2: Floats) -> tuple[Floats, Floats]:
    """Posterior location and variance of one batch, genes sharing normal and inverse-gamma priors: (g,) each."""
    n = len(z)
    centre, width2 = shift.mean(), shift.var(ddof=1) if len(shift) > 1 else 1.0
    mean, var = spread2.mean(), max(spread2.var(ddof=1) if len(spread2) > 1 else 1.0, 1e-12)
    shape, rate = (2 * var + mean**2) / var, (mean * var + mean**3) / var
    new_shift, new_spread2 = shift, spread2
    for _ in range(ROUNDS):
        old = new_shift, new_spread2
        new_shift = (n * width2 * shift + new_spread2 * centre) / (n * width2 + new_spread2)
        squares = np.square(z - new_shift).sum(axis=0)
        new_spread2 = (0.5 * squares + rate) / (n / 2 + shape - 1)
        if max(_change(*pair) for pair in zip((new_shift, new_spread2), old, strict=True)) < CLOSE:
            break
    return new_shift, new_spread2


def _change(new: Floats, old: Floats) -> float:
    return float(np.abs(new - old).max() / max(np.abs(old).max(), 1e-12))


def _check(batches: tuple[str, ...], size: Ints, batch: Ints, group: Ints) -> None:
    few = [name for name, n in zip(batches, size, strict=True) if n < 2]
    if few:
        raise InputError(f"Batches of fewer than 2 cells have no spread: {shorten(few)}. Join them with others.")
    met, reached = set(group[batch == 0].tolist()), {0}  # batches that biology connects, step by step
    while True:
        more = {number for number in range(len(batches)) if met & set(group[batch == number].tolist())} - reached
        if not more:
            break
        reached |= more
        met |= {one for number in more for one in group[batch == number].tolist()}
    apart = [name for number, name in enumerate(batches) if number not in reached]
    if apart:
        what = f"share no condition and context with '{batches[0]}' or what is joined to it"
        raise InputError(f"Batches {shorten(apart)} {what}: their effect cannot be told from biology. Correct apart.")


def _groups(cells: Cells) -> list[tuple[str, str]]:
    return list(zip(cells.condition, cells.context, strict=True))


def _numbers(labels: list, known: tuple) -> Ints:
    place = {name: number for number, name in enumerate(known)}
    lost = sorted({str(name) for name in labels if name not in place})
    if lost:
        raise InputError(f"Condition and context that the fit did not see: {shorten(lost)}. Fit with them.")
    return np.array([place[name] for name in labels])
