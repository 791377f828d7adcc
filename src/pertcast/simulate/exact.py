"""The exact distribution of every gene of every cell: what an oracle knows, and its score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pertcast.errors import InputError
from pertcast.metrics.count_likelihood import CountParameters, checked_counts, zinb_log_likelihood, zinb_moments
from pertcast.simulate.names import columns
from pertcast.types import Floats, Ints


@dataclass(frozen=True, slots=True)
class Oracle:
    """Distributions of g genes in n cells: a zero-inflated negative binomial plus `shift`, or one certain value.

    Where a gene hangs on other genes, its distribution is the one given their values in the same cell.
    """

    genes: tuple[str, ...]  # (g,)
    parameters: CountParameters  # (n, g), of the counts before `shift` is added
    shift: Floats  # (n, g) added to every count after it is drawn, zeros included
    fixed: Floats  # (n, g) the value that an intervention set, NaN where the gene is free

    def __len__(self) -> int:
        return len(self.shift)

    @property
    def mean(self) -> Floats:
        """Return expected counts, zero inflation and shift included: (n, g)."""
        p = self.parameters
        free = zinb_moments(p.mean, p.dispersion, p.zero_inflation).mean + self.shift
        return np.where(np.isnan(self.fixed), free, self.fixed)

    @property
    def variance(self) -> Floats:
        """Variance of the counts, 0 where an intervention set the gene: (n, g)."""
        p = self.parameters
        return np.where(np.isnan(self.fixed), zinb_moments(p.mean, p.dispersion, p.zero_inflation).variance, 0.0)

    @property
    def zero_probability(self) -> Floats:
        """Probability of a zero: (n, g)."""
        return np.exp(self.log_likelihood(np.zeros(self.shift.shape, int)))

    def log_likelihood(self, counts: Ints | Floats) -> Floats:
        """Natural log of the probability of every count of (n, g); NaN where a count is NaN (masked).

        Raises InputError for another shape, or counts that are negative or not whole.
        """
        counts = np.asarray(counts)
        if counts.shape != self.shift.shape:
            raise InputError(f"Oracle: counts have shape {counts.shape}, its cells and genes {self.shift.shape}.")
        p = self.parameters
        if counts.dtype.kind in "iu" and not self.shift.any() and np.isnan(self.fixed).all():
            return zinb_log_likelihood(counts, p.mean, p.dispersion, p.zero_inflation)
        masked = np.isnan(counts) if counts.dtype.kind == "f" else np.zeros(counts.shape, bool)
        before = checked_counts(np.where(masked, 0, counts)) - self.shift
        free = np.isnan(self.fixed)
        possible = free & (before >= 0) & (np.floor(before) == before)
        out = zinb_log_likelihood(np.where(possible, before, 0), p.mean, p.dispersion, p.zero_inflation)
        out = np.where(possible | ~free, out, -np.inf)
        out = np.where(free, out, np.where(counts == self.fixed, 0.0, -np.inf))
        return np.where(masked, np.nan, out)

    def nll(self, counts: Ints | Floats) -> float:
        """Mean negative log likelihood over all entries that are free and not masked, in nats.

        Entries that an intervention set say nothing about a model and do not count. Raises as `log_likelihood`.
        """
        free = self.log_likelihood(counts)[np.isnan(self.fixed)]
        free = free[~np.isnan(free)]
        if not free.size:
            raise InputError("Oracle: no entry is both free and observed, so there is no likelihood.")
        return float(-free.mean())

    def pmf(self, gene: str, values: Ints) -> Floats:
        """Probability of each of the values (k,) of one gene in every cell: (n, k). Raises InputError for no gene."""
        one = self.only(gene)
        values = np.asarray(values)
        wide = Oracle(
            genes=(gene,) * len(values),
            parameters=CountParameters(
                *(np.repeat(getattr(one.parameters, name), len(values), axis=1) for name in CountParameters.__slots__)
            ),
            shift=np.repeat(one.shift, len(values), axis=1),
            fixed=np.repeat(one.fixed, len(values), axis=1),
        )
        return np.exp(wide.log_likelihood(np.broadcast_to(values, wide.shift.shape)))

    def only(self, *genes: str) -> Oracle:
        """Return the oracle of some genes, by name."""
        if genes == self.genes:
            return self
        at = columns(self.genes, genes)
        return Oracle(tuple(self.genes[i] for i in at), self.parameters.take(at), self.shift[:, at], self.fixed[:, at])
