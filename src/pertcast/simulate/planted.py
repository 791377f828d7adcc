"""Mechanistic genes planted into simulated cells: the published linear one draw by draw, and one of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pertcast.errors import InputError, unknown
from pertcast.metrics.count_likelihood import CountParameters, checked_counts
from pertcast.simulate.cells import SimulatedCells
from pertcast.simulate.equations import (
    KINDS,
    Hill,
    Interaction,
    Linear,
    Mechanism,
    Polynomial,
    Threshold,
    TimeDependent,
    WeightedDispersion,
)
from pertcast.simulate.mechanisms import MechanisticGene, StructuralModel
from pertcast.simulate.names import gene_names
from pertcast.simulate.populations import BasePlan, stream
from pertcast.types import Ints

NAME = "mechanistic"
WEIGHTS = (-2.0, 2.0)  # published range
ALMOST_POISSON = 1e-3  # published dispersion
PLANTED = 7  # random stream


@dataclass(frozen=True, slots=True)
class PlantedGene:
    """A mechanistic gene, its draws, and what they were drawn from."""

    gene: MechanisticGene
    counts: Ints  # (n,)
    parameters: CountParameters  # three arrays (n,)
    clipped_mean: float  # share of cells whose mean sits at the floor
    clipped_zeros: float  # share of cells that have more zeros than wanted, and no zero inflation


def add_mechanistic_gene(
    counts: Ints,
    *,
    seeds: tuple[int, int] = (43, 11),
    zero_share: float = 0.8,
    varying_dispersion: bool = False,
    genes: tuple[str, ...] | None = None,
    name: str = NAME,
) -> PlantedGene:
    """Draw the published mechanistic gene: a random weighted sum of all genes, cut off at 0.1, is its mean.

    counts      (n, g) whole numbers, dense
    seeds       of the weights, and of everything else; numpy's legacy generator, never the global one
    zero_share  wanted in every cell; where the mean alone gives more zeros, zero inflation is clipped to 0
    varying_dispersion  a random weighted average of all genes, at least 0.1, instead of 1e-3
    genes       names of the columns; default gene-0, gene-1, ...
    Raises InputError for counts that are negative or not whole, or weights that cancel.
    """
    counts = checked_counts(counts)
    if counts.ndim != 2 or not counts.size:
        raise InputError(f"Counts must be a table (n, g) with cells and genes, got shape {counts.shape}.")
    if not all(0 <= seed < 1 << 32 for seed in seeds):
        raise InputError(f"Seeds of the mechanistic gene must be at least 0 and below 2^32, got {seeds}.")
    n, g = counts.shape
    weights, rest = (np.random.RandomState(seed) for seed in seeds)  # noqa: NPY002 - the published numbers come from it
    mechanism = Linear(tuple(weights.uniform(*WEIGHTS, g).tolist()))
    dispersion = WeightedDispersion(tuple(rest.uniform(*WEIGHTS, g).tolist())) if varying_dispersion else ALMOST_POISSON
    gene = MechanisticGene(name, genes or gene_names(g), mechanism, dispersion, zero_share=zero_share)
    p = gene.parameters(counts.astype(float), np.zeros(n))
    size = 1 / p.dispersion
    drawn = rest.negative_binomial(size, size / (size + p.mean))
    drawn = np.where(rest.binomial(1, p.zero_inflation) == 1, 0, drawn)
    return PlantedGene(gene, drawn, p, float((p.mean == mechanism.floor).mean()), float((p.zero_inflation == 0).mean()))


def with_mechanistic_gene(cells: SimulatedCells, planted: PlantedGene) -> SimulatedCells:
    """Append a planted gene as the last column of the cells that it was drawn from.

    Raises InputError when it hangs on genes that the cells do not have.
    """
    model = StructuralModel(cells.model.base, (*cells.model.mechanistic, planted.gene))
    counts = np.column_stack([cells.dense, planted.counts])
    return SimulatedCells(counts, cells.context, model)


def random_mechanism(kind: str, parents: int, *, rng: np.random.Generator) -> Mechanism:
    """Draw a mechanism of any kind, with numbers that suit counts from 0 to some tens.

    kind        linear, polynomial, hill, interaction, threshold or time (which has two parents)
    parents     how many genes it hangs on, at least 1
    Raises InputError for another kind, or parents that do not suit it.
    """
    if kind not in KINDS:
        raise InputError(unknown("kind of mechanism", kind, KINDS))
    least = {"time": 2, "interaction": 2}.get(kind, 1)
    if parents < least or (kind == "time" and parents != 2):
        wanted = "exactly 2 parents" if kind == "time" else f"at least {least} parents"
        raise InputError(f"A mechanism of kind '{kind}' has {wanted}, got {parents}.")
    return _DRAWS[kind](parents, rng)


def mechanism_model(
    base: BasePlan, kinds: Sequence[str], *, seed: int, parents: int | None = None, zero_share: float | None = None
) -> StructuralModel:
    """Plant one mechanistic gene of each of these kinds on random parents among the independent genes.

    parents     of each gene; default: all genes for a linear one as published, else two
    zero_share  wanted in every cell, clipped where the mean alone gives more zeros; None: no zero inflation
    Raises InputError for other kinds, or more parents than genes.
    """
    rng, genes = stream(seed, PLANTED), []
    for number, kind in enumerate(kinds):
        p = parents if parents is not None else len(base.genes) if kind == "linear" else 2
        if p > len(base.genes):
            raise InputError(f"A mechanism of kind '{kind}' wants {p} parents, there are {len(base.genes)} genes.")
        mechanism = random_mechanism(kind, p, rng=rng)
        own = tuple(base.genes[i] for i in sorted(rng.choice(len(base.genes), p, replace=False)))
        name = f"{kind}-{number}" if len(kinds) > 1 else NAME
        genes.append(MechanisticGene(name, own, mechanism, ALMOST_POISSON, zero_share=zero_share))
    return StructuralModel(base, tuple(genes))


def _weights(n: int, rng: np.random.Generator, low: float = WEIGHTS[0], high: float = WEIGHTS[1]) -> tuple[float, ...]:
    return tuple(rng.uniform(low, high, n).tolist())


def _interaction(n: int, rng: np.random.Generator) -> Interaction:
    pairs = tuple((i, i + 1, float(rng.uniform(0.2, 0.6))) for i in range(n - 1))
    return Interaction(_weights(n, rng, -0.5, 1.5), pairs)


def _polynomial(n: int, rng: np.random.Generator) -> Polynomial:
    first, second = rng.uniform(0.2, 1.5, n), rng.uniform(-0.03, 0.08, n)
    return Polynomial(tuple(zip(first.tolist(), second.tolist(), strict=True)))


_DRAWS = {
    "linear": lambda n, rng: Linear(_weights(n, rng)),
    "polynomial": _polynomial,
    "hill": lambda n, rng: Hill(_weights(n, rng, 0.5, 1.5), most=20.0, half=float(rng.uniform(2, 8))),
    "interaction": _interaction,
    "threshold": lambda n, rng: Threshold(_weights(n, rng, 0.5, 1.5), cut=float(rng.uniform(1, 5))),
    "time": lambda n, rng: TimeDependent(float(rng.uniform(0.05, 0.2))),
}
