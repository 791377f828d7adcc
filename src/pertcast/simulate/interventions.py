"""What becomes of cells when genes are set, shifted or scaled, and the oracle of the cells that result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal

import numpy as np

from pertcast.errors import InputError, several, shorten
from pertcast.metrics.count_likelihood import CountParameters, checked_counts
from pertcast.simulate.counts import draw_zinb
from pertcast.simulate.exact import Oracle
from pertcast.simulate.mechanisms import StructuralModel
from pertcast.simulate.names import Gene, column, columns
from pertcast.simulate.populations import Context, plain_context, stream
from pertcast.types import Floats, Ints

Observed = Literal["mask", "resimulate"]
STREAM = 4  # random stream of draws after an intervention


@dataclass(frozen=True, slots=True)
class Do:
    """An intervention. Genes by name or position; each gene is either set, or shifted and scaled.

    A set gene has its value whatever its parents are. A scaled gene is drawn anew, its mean multiplied. A shifted gene
    gets whole counts added after it was drawn, zeros included.
    """

    set: Mapping[Gene, float | Floats] = field(default_factory=dict)  # one count, or (n,) with NaN where it stays free
    add: Mapping[Gene, float] = field(default_factory=dict)  # whole counts, at least 0
    scale: Mapping[Gene, float] = field(default_factory=dict)  # factor on the mean, at least 0


@dataclass(frozen=True, slots=True)
class Perturbed:
    """Cells after an intervention."""

    counts: Floats  # (n, g) NaN where a mechanistic gene is masked
    drawn: Ints  # (n, g) what stands behind the mask: drawn from the oracle
    context: Context
    oracle: Oracle  # given the parents' values in `drawn`
    source: Ints  # (n,) row of the cell that each one was made from
    values: Floats  # (n, k) what the k perturbed genes were set to; k = 0 where none was
    perturbed: tuple[str, ...]  # (k,) their names

    def curve(self, gene: str) -> Floats:
        """Return the true mean of a gene before zero inflation, by its name: (n,)."""
        at = column(self.oracle.genes, gene)
        fixed = self.oracle.fixed[:, at]
        return np.where(np.isnan(fixed), self.oracle.parameters.mean[:, at] + self.oracle.shift[:, at], fixed)


@dataclass(frozen=True, slots=True)
class Levels:
    """Values that a gene is set to: start, start + increment, ... below stop."""

    start: float = 0
    stop: float = 30
    increment: float = 1

    def values(self) -> Ints:
        """Return the values (k,). Raises InputError when there is none, or they are no counts."""
        if not self.increment > 0 or not self.stop > self.start:
            raise InputError(
                f"Levels from {self.start:g} to {self.stop:g} in steps of {self.increment:g} are empty. "
                "Start must be below stop, and the increment above 0."
            )
        return _whole(np.arange(self.start, self.stop, self.increment), "Levels")


def drug(genes: Sequence[Gene], *, add: float = 0.0, scale: float = 1.0) -> Do:
    """Return the intervention of a drug that acts on all these genes alike; the published one adds 10 to every gene."""
    return Do(add=dict.fromkeys(genes, add) if add else {}, scale=dict.fromkeys(genes, scale) if scale != 1 else {})


def intervene(
    model: StructuralModel,
    cells: Ints,
    do: Do,
    *,
    context: Context | None = None,
    seed: int,
    observed: Observed = "resimulate",
) -> Perturbed:
    """Perturb cells, draw what follows from it, and recompute the oracle through the equations.

    cells       (n, g) counts of all genes of the model; independent genes that `do` leaves alone keep their values.
                Those of mechanistic genes are never read: what was observed before is no longer so
    context     of the cells; default: first population and batch, average library size, time 0
    observed    mechanistic genes in `counts` are drawn anew ("resimulate") or NaN ("mask"); either way the oracle
                of a gene is given its parents as drawn
    Raises InputError for genes that do not exist, values that are no counts, or a gene both set and changed.
    """
    if observed not in ("mask", "resimulate"):
        raise InputError(f"Observed '{observed}' is neither 'mask' nor 'resimulate'.")
    cells = checked_counts(cells)
    context = plain_context(len(cells)) if context is None else context
    model.checked(cells, context)
    changes = _Changes.of(model.genes, do, len(cells))
    drawn, oracle = _propagate(model, cells, context, changes, stream(seed, STREAM))
    counts = drawn.astype(float)
    if observed == "mask":
        at = columns(model.genes, model.names)
        counts[:, at] = np.where(np.isnan(changes.fixed[:, at]), np.nan, counts[:, at])
    named = columns(model.genes, list(do.set))
    return Perturbed(
        counts, drawn, context, oracle, source=np.arange(len(cells)), values=changes.fixed[:, named],
        perturbed=tuple(model.genes[i] for i in named),
    )  # fmt: skip


def perturbation_grid(
    model: StructuralModel,
    cells: Ints,
    levels: Mapping[Gene, Levels] | Levels,
    *,
    references: Sequence[int] = (0,),
    effect: Literal["suppress", "activate"] = "suppress",
    context: Context | None = None,
    seed: int = 0,
    observed: Observed = "mask",
) -> Perturbed:
    """Copy reference cells, set genes to every combination of levels, and compute the truth of what follows.

    cells       (n, g) counts of all genes of the model
    levels      of each gene to perturb, by name or position; the last one changes fastest. Levels alone are those of
                the parent with the smallest weight (`effect` suppress) or the largest one (activate) in the first
                mechanistic gene
    references  rows of `cells`; each gets the whole grid, in this order
    returns     references x grid cells; `source` says which row each one was made from, `values` what was set
    Raises InputError for genes or cells that do not exist, or levels that are empty or no counts.
    """
    levels = {default_target(model, effect): levels} if isinstance(levels, Levels) else levels
    if not levels:
        raise InputError("Perturbation grid: no gene is named. Give levels for at least one.")
    context = plain_context(len(cells)) if context is None else context
    rows = _reference_rows(references, len(cells))
    grid = np.array(list(product(*(level.values() for level in levels.values()))))  # (m, k)
    source = np.repeat(rows, len(grid))
    each = np.tile(grid, (len(rows), 1))
    do = Do(set={gene: each[:, i] for i, gene in enumerate(levels)})
    done = intervene(model, np.asarray(cells)[source], do, context=context.take(source), seed=seed, observed=observed)
    return replace(done, source=source)


def default_target(model: StructuralModel, effect: str) -> str:
    """Name the parent of the first mechanistic gene with the smallest (suppress) or largest (activate) weight.

    Raises InputError where there is no such gene, its mechanism has no weights, or the effect is another word.
    """
    if effect not in ("suppress", "activate"):
        raise InputError(f"Effect '{effect}' is neither 'suppress' nor 'activate'.")
    weights = getattr(model.mechanistic[0].mechanism, "weights", None) if model.mechanistic else None
    if weights is None:
        raise InputError("No gene is named, and there is no mechanism with weights to choose one by. Name a gene.")
    at = np.argmin(weights) if effect == "suppress" else np.argmax(weights)
    return model.mechanistic[0].parents[at]


@dataclass(frozen=True, slots=True)
class _Changes:
    """An intervention as arrays."""

    fixed: Floats  # (n, g) NaN where free
    add: Floats  # (g,)
    scale: Floats  # (g,)

    @classmethod
    def of(cls, genes: tuple[str, ...], do: Do, n_cells: int) -> _Changes:
        at = [columns(genes, list(part)) for part in (do.set, do.add, do.scale)]
        both = [genes[i] for i in at[0] if i in {*at[1], *at[2]}]
        problems = [f"gene '{gene}' is set, and shifted or scaled as well" for gene in both]
        twice = [genes[i] for part in at for i in sorted(set(part)) if part.count(i) > 1]
        problems += [f"gene '{gene}' is named twice, by name and by position" for gene in twice]
        problems += [f"scale of '{gene}' must be finite and at least 0, got {factor}"
                     for gene, factor in do.scale.items() if not 0 <= factor < np.inf]  # fmt: skip
        if problems:
            raise InputError(several("Intervention", problems))
        fixed, add, scale = np.full((n_cells, len(genes)), np.nan), np.zeros(len(genes)), np.ones(len(genes))
        for i, (gene, value) in zip(at[0], do.set.items(), strict=True):
            value = np.asarray(value, float)
            _whole(value[~np.isnan(value)] if value.ndim else value, f"Values of '{gene}'")
            if value.shape not in ((), (n_cells,)):
                wanted = f"give one, or one for each of the {n_cells} cells"
                raise InputError(f"Values of '{gene}' have shape {value.shape}; {wanted}.")
            fixed[:, i] = value
        add[at[1]] = _whole(list(do.add.values()), "Shifts")
        scale[at[2]] = list(do.scale.values())
        return cls(fixed, add, scale)


def _propagate(
    model: StructuralModel, cells: Ints, context: Context, changes: _Changes, rng: np.random.Generator
) -> tuple[Ints, Oracle]:
    """Draw what an intervention changes, parents before children, and collect every gene's distribution."""
    n_base = len(model.base.genes)
    base, shift = model.base.parameters(context), np.tile(changes.add, (len(cells), 1))
    scaled = CountParameters(base.mean * changes.scale[:n_base], base.dispersion, base.zero_inflation)
    batch = model.base.shift(context)
    shift[:, :n_base] += batch
    values = np.array(cells, np.int64)
    values[:, :n_base] += changes.add[:n_base].astype(np.int64)
    anew = np.flatnonzero(changes.scale[:n_base] != 1)
    values[:, anew] = draw_zinb(scaled.take(anew), rng=rng) + shift[:, anew].astype(np.int64)
    _set(values, changes.fixed, slice(n_base))
    own: dict[str, CountParameters] = {}
    for gene in model.order:
        at = model.places[gene.name]
        own[gene.name] = gene.parameters(model.parents_of(gene, values), context.time, scale=changes.scale[at])
        values[:, at] = draw_zinb(own[gene.name], rng=rng) + int(changes.add[at])
        _set(values, changes.fixed, slice(at, at + 1))
    parts = ("mean", "dispersion", "zero_inflation")
    every = [np.column_stack([getattr(scaled, p), *(getattr(own[name], p) for name in model.names)]) for p in parts]
    return values, Oracle(model.genes, CountParameters(*every), shift, changes.fixed)


def _set(values: Ints, fixed: Floats, part: slice) -> None:
    held = ~np.isnan(fixed[:, part])
    values[:, part][held] = fixed[:, part][held].astype(np.int64)


def _whole(values: object, what: str) -> Floats:
    values = np.asarray(values, float)
    wrong = ~((values >= 0) & (values < np.inf) & (np.floor(values) == values))
    if wrong.any():
        got = shorten(f"{value:g}" for value in values[wrong].ravel())
        raise InputError(f"{what} must be counts, whole and at least 0, got {got}.")
    return values


def _reference_rows(references: Sequence[int], n_cells: int) -> Ints:
    rows = np.asarray(references)
    if rows.ndim != 1 or not rows.size or rows.dtype.kind not in "iu":
        raise InputError("Reference cells must be a list of at least one row number.")
    outside = rows[(rows < 0) | (rows >= n_cells)]
    if outside.size:
        raise InputError(f"Reference cells {shorten(outside)} do not exist: there are rows 0 to {n_cells - 1}.")
    return rows
