"""Genes that follow from other genes: a structural model, its draws, and its exact oracle for any cells.

Independent genes come first (`BasePlan`); mechanistic genes hang on them and on each other, without a cycle. Whatever
values the parents have, drawn or set by an intervention, the distribution of a gene is computed from them through its
equation, never copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from graphlib import CycleError, TopologicalSorter

import numpy as np
from scipy import sparse

from pertcast.errors import InputError, several
from pertcast.metrics.count_likelihood import (
    CountParameters,
    check_zero_share,
    checked_parameters,
    solve_zero_inflation,
)
from pertcast.simulate.counts import draw_zinb
from pertcast.simulate.equations import (
    Mechanism,
    WeightedDispersion,
    checked_mean,
    mechanism_as_dict,
    mechanism_faults,
    mechanism_from_dict,
)
from pertcast.simulate.exact import Oracle
from pertcast.simulate.names import columns
from pertcast.simulate.populations import BasePlan, Context, plan_from_dict, stream
from pertcast.types import Floats, Ints

MECHANISMS = 2  # random streams of mechanistic genes, beside those of the plan
FORMAT = 1  # of the JSON form


@dataclass(frozen=True, slots=True)
class MechanisticGene:
    """One gene whose distribution is a function of its parents."""

    name: str
    parents: tuple[str, ...]  # (p,) independent or mechanistic genes
    mechanism: Mechanism
    dispersion: float | WeightedDispersion = 1e-3
    zero_share: float | None = None  # wanted share of zeros in every cell; what the mean alone exceeds is clipped to
    zero_inflation: float = 0.0  # used where no share is wanted

    def __post_init__(self) -> None:
        problems = mechanism_faults(self.mechanism)
        if len(self.parents) != self.mechanism.n_parents:
            problems.append(f"its mechanism takes {self.mechanism.n_parents} parents, {len(self.parents)} are named")
        if self._varying and len(self.dispersion.weights) != len(self.parents):
            problems.append(f"{len(self.dispersion.weights)} weights of its dispersion, {len(self.parents)} parents")
        if problems:
            raise InputError(several(f"Mechanistic gene '{self.name}'", problems))
        if not self._varying:
            checked_parameters(0.0, self.dispersion, self.zero_inflation)
        if self.zero_share is not None:
            check_zero_share(self.zero_share)

    @property
    def _varying(self) -> bool:
        return isinstance(self.dispersion, WeightedDispersion)

    def parameters(self, parents: Floats, time: Floats, *, scale: Floats | float = 1.0) -> CountParameters:
        """Return the distribution of the gene given its parents (n, p) and the time (n,): three arrays (n,).

        scale   factor on the mean (n,), as a drug may set it
        """
        mean = checked_mean(self.name, self.mechanism.mean(parents, time) * scale)
        one = self.dispersion
        dispersion = one.values(parents) if self._varying else np.full(len(mean), float(one))
        if self.zero_share is None:
            return CountParameters(mean, dispersion, np.full(len(mean), float(self.zero_inflation)))
        return CountParameters(mean, dispersion, solve_zero_inflation(self.zero_share, mean, dispersion, clip=True))


@dataclass(frozen=True, slots=True)
class StructuralModel:
    """Independent genes, mechanistic genes, and what follows from them. Columns: independent genes, then as given."""

    base: BasePlan
    mechanistic: tuple[MechanisticGene, ...] = ()
    genes: tuple[str, ...] = field(init=False)  # (g,) all of them, in the order of columns
    order: tuple[MechanisticGene, ...] = field(init=False)  # parents before children
    places: Mapping[str, int] = field(init=False, compare=False)  # column of every gene

    def __post_init__(self) -> None:
        genes = (*self.base.genes, *(gene.name for gene in self.mechanistic))
        twice = sorted({name for name in genes if genes.count(name) > 1}) if len(set(genes)) < len(genes) else []
        if twice:
            raise InputError(f"Structural model: gene names occur twice: {', '.join(twice)}. Rename them.")
        columns(genes, [parent for gene in self.mechanistic for parent in gene.parents])
        by_name = {gene.name: gene for gene in self.mechanistic}
        try:
            order = tuple(TopologicalSorter({name: gene.parents for name, gene in by_name.items()}).static_order())
        except CycleError as error:
            path = " -> ".join(error.args[1])
            raise InputError(f"Structural model: genes hang on each other in a circle: {path}. Cut it.") from None
        object.__setattr__(self, "genes", genes)
        object.__setattr__(self, "places", {name: i for i, name in enumerate(genes)})
        object.__setattr__(self, "order", tuple(by_name[name] for name in order if name in by_name))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the mechanistic genes."""
        return tuple(gene.name for gene in self.mechanistic)

    def oracle(self, counts: Ints | Floats, context: Context) -> Oracle:
        """Return the exact distribution of every gene of every cell, given the values of its parents in that cell.

        counts  (n, g) dense; only columns that are parents are read
        Raises InputError when a parent's value is masked (NaN) or the table does not fit.
        """
        counts = self.checked(counts, context)
        base, free = self.base.parameters(context), np.broadcast_to(np.nan, counts.shape)
        if not self.mechanistic:
            return Oracle(self.genes, base, self.base.shift(context), free)
        parts = [[part] for part in (base.mean, base.dispersion, base.zero_inflation)]
        for gene in self.mechanistic:
            own = gene.parameters(self.parents_of(gene, counts), context.time)
            for part, values in zip(parts, (own.mean, own.dispersion, own.zero_inflation), strict=True):
                part.append(values[:, None])
        shift = np.zeros(counts.shape)
        shift[:, : len(self.base.genes)] = self.base.shift(context)
        return Oracle(
            self.genes,
            CountParameters(*(np.concatenate(part, axis=1) for part in parts)),
            shift,
            free,
        )

    def parents_of(self, gene: MechanisticGene, counts: Ints | Floats) -> Floats:
        """Return the values of a gene's parents (n, p) from all columns (n, g), dense or sparse."""
        values = counts[:, [self.places[name] for name in gene.parents]]
        values = np.asarray(values.toarray() if sparse.issparse(values) else values, float)
        if np.isnan(values).any():
            raise InputError(f"Gene '{gene.name}': values of its parents are masked (NaN). Draw them first.")
        return values

    def checked(self, counts: Ints | Floats, context: Context) -> Ints | Floats:
        """Raise InputError unless counts are (n, g) for the cells of the context and all genes."""
        wanted = (len(context), len(self.genes))
        if np.shape(counts) != wanted:
            raise InputError(f"Counts have shape {np.shape(counts)}, the model and its cells {wanted}.")
        return counts

    def blocks(self, context: Context, *, seed: int) -> Iterator[tuple[slice, sparse.csr_array]]:
        """Draw counts of all genes block by block, parents before children: rows, counts (block, g) int32."""
        for number, (rows, base) in enumerate(self.base.blocks(context, seed=seed)):
            if not self.mechanistic:
                yield rows, base
                continue
            own = self._draw(base, context.time[rows], rng=stream(seed, MECHANISMS, number))
            yield rows, sparse.hstack([base, sparse.csr_array(own)], format="csr")

    def _draw(self, base: sparse.csr_array, time: Floats, *, rng: np.random.Generator) -> Ints:
        """Draw all mechanistic genes (n, m) of cells whose independent genes are drawn (n, g), parents first."""
        whole, drawn = base.tocsc(), {}
        for gene in self.order:
            parents = np.empty((base.shape[0], len(gene.parents)))
            for i, name in enumerate(gene.parents):
                parents[:, i] = drawn[name] if name in drawn else whole[:, [self.places[name]]].toarray()[:, 0]
            drawn[gene.name] = draw_zinb(gene.parameters(parents, time), rng=rng)
        return np.stack([drawn[name] for name in self.names], axis=1).astype(np.int32)

    def as_dict(self) -> dict[str, object]:
        """Return the model in the form of JSON: all numbers that its oracle needs."""
        return {
            "format": FORMAT,
            "base": self.base.as_dict(),
            "mechanistic": [_gene_as_dict(gene) for gene in self.mechanistic],
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, object]) -> StructuralModel:
        """Read what `as_dict` gave. Raises InputError when it is damaged or of another format."""
        if facts.get("format") != FORMAT:
            raise InputError(f"Structural model has format {facts.get('format')}, this version reads {FORMAT}.")
        try:
            return cls(plan_from_dict(facts["base"]), tuple(_gene_from_dict(gene) for gene in facts["mechanistic"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"Structural model is damaged: {error!r}. Simulate it again.") from error


def _gene_as_dict(gene: MechanisticGene) -> dict[str, object]:
    dispersion = asdict(gene.dispersion) if isinstance(gene.dispersion, WeightedDispersion) else gene.dispersion
    return {
        "name": gene.name, "parents": list(gene.parents), "mechanism": mechanism_as_dict(gene.mechanism),
        "dispersion": dispersion, "zero_share": gene.zero_share, "zero_inflation": gene.zero_inflation,
    }  # fmt: skip


def _gene_from_dict(facts: Mapping[str, object]) -> MechanisticGene:
    dispersion = facts["dispersion"]
    if isinstance(dispersion, Mapping):
        dispersion = WeightedDispersion(tuple(dispersion["weights"]), dispersion["floor"])
    return MechanisticGene(
        name=facts["name"], parents=tuple(facts["parents"]), mechanism=mechanism_from_dict(facts["mechanism"]),
        dispersion=dispersion, zero_share=facts["zero_share"], zero_inflation=facts["zero_inflation"],
    )  # fmt: skip
