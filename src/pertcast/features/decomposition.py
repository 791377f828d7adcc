"""A response table taken apart: what is a cell type's, what a compound's, what a single row's, and noise.

    y_tcg = m_tg + h_tg sum_k s_tk x_tck l_gk + e_tcg,    x_tc = (z_c, b_tc)

A compound c has a short profile z, learned from whichever cell types show it; a cell type t answers with a gain s per
component and a gain h per gene, both drawn towards 1, on top of its own effect m. A row strays by itself, too, along
few directions that rows share: the depth of its wells moves all genes of few counts together. What b says of a row is
kept out of the compound's profile and is not predicted. What is missing is simply not there: no value is filled in.
Profiles and loadings are averaged over their posterior, so that components that the data do not support shrink to
nothing by themselves; with many genes and few rows that is most of the gain over plain alternating least squares. A
row counts by the inverse of its noise: the score is a mean of roots.

Sources: variational principal components (Bishop 1999) with missing values (Ilin and Raiko 2010, JMLR 11:1957);
gains per mode as in PARAFAC (Harshman 1970); directions of single rows as in probabilistic canonical correlation with
private factors (Klami et al. 2013, JMLR 14:965).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from pertcast.config import Config
from pertcast.features.groups import group_sums
from pertcast.features.target_svd import TargetSVD
from pertcast.types import Floats, Ints, Strings

GENES = 1024  # genes whose posterior covariances are held at a time
PSEUDO = 4.0  # components' worth of the typical spread that each compound's and gene's own spread is drawn towards
PSEUDO_GENES = 200.0  # genes' worth of typical noise that a row's noise is drawn towards
NOISE_FROM = 4  # rounds before the noise is learned: the first ones leave much unexplained
ROWS_FROM = 2 / 3  # of the rounds before rows stray by themselves: what is left then, no compound explains
LEAST_SPREAD, MOST_SPREAD = 1e-3, 1.0  # bounds of the variance of gains per gene


class DecompositionConfig(Config):
    """How many directions a table is given, and how long they are learned."""

    components: int = Field(30, ge=1)  # of profiles; too many do little harm
    row_components: int = Field(1, ge=0)  # directions in which each row strays by itself
    rounds: int = Field(30, ge=1)  # of learning each part given the others
    gain_rows: float = Field(50.0, gt=0)  # pseudo-rows that draw a cell type's gain per component to 1
    gains_from: int = Field(5, ge=0)  # rounds before gains are learned: profiles first
    gene_gains: bool = True  # whether genes have gains of their own in each cell type


def decompose(y: Floats, cell_type: Strings, compound: Strings, config: DecompositionConfig) -> Decomposition:
    """Take the responses y (n, g) of n rows apart."""
    of_type, of_compound = (np.unique(names.astype(str), return_inverse=True)[1] for names in (cell_type, compound))
    order = np.argsort(of_type, kind="stable")  # rows of a cell type stand together, and are read without a copy
    found = Decomposition.start(y[order], of_type[order], of_compound[order], config.components)
    found.place = np.argsort(order)
    for number in range(config.rounds):
        if number == int(ROWS_FROM * config.rounds) and config.row_components:
            found.add_row_components(config.row_components)
        found.update_profiles()
        found.update_genes(gains=config.gene_gains and number > config.gains_from)
        if number >= config.gains_from:
            found.update_gains(config.gain_rows)
        found.update_means()
        if number >= NOISE_FROM:
            found.update_noise()
    return found


@dataclass(slots=True, eq=False)
class Decomposition:
    """What is believed of every part, given the others.

    n rows, t cell types, c compounds, g genes; k components: r of the compounds, then q of those of single rows.
    Rows of one cell type are multiplied with the same numbers: but for the products with y, sums are taken by type.
    """

    y: Floats  # (n, g)
    of_type: Ints  # (n,)
    of_compound: Ints  # (n,)
    rows: tuple[slice | Ints, ...]  # of each cell type
    place: Ints  # (n,)  where each row of the table given stands here
    mean: Floats  # (t, g)  a cell type's own effect
    mean_spread: float  # variance of the own effects about their average over cell types
    profile: Floats  # (c, r)
    profile_cov: Floats  # (c, r, r)
    profile_spread: Floats  # (c,)  variance: how strong a compound is
    score: Floats  # (n, k)  the compound's profile, then what is the row's own
    own_cov: Floats  # (n, q, q)  covariance of what is the row's own
    mixed_cov: Floats  # (n, q, r)  covariance of that with the compound's profile
    loading: Floats  # (g, k)
    loading_spread: Floats  # (g,)  variance: how much a gene answers
    second: Floats  # (t, k, k)  expected sum over genes of h^2 l l'
    gain: Floats  # (t, k)
    gene_gain: Floats  # (t, g)
    gain_spread: float  # variance of gains per gene
    noise: float  # variance of a typical row, per gene
    relative: Floats  # (n,)  variance of a row, in units of `noise`

    @classmethod
    def start(cls, y: Floats, of_type: Ints, of_compound: Ints, components: int) -> Decomposition:
        """Begin at principal directions of the compounds' average responses; strong compounds count by their root."""
        y = y.astype(np.float64)
        t, c, g = of_type.max() + 1, of_compound.max() + 1, y.shape[1]
        weight = 1 / np.maximum(np.sqrt((y**2).mean(1)), 1e-9)  # (n,)
        mean = group_sums(weight[:, None] * y, of_type, t) / np.bincount(of_type, weight, t)[:, None]
        mean *= (np.bincount(of_type) / (np.bincount(of_type) + 3))[:, None]
        deviation = y - mean[of_type]
        average = group_sums(deviation, of_compound, c) / np.bincount(of_compound)[:, None]  # (c, g)
        size = np.maximum(np.sqrt((average**2).mean(1, keepdims=True)), 1e-9)
        loading, _ = _directions(average / np.sqrt(size), components)  # (g, r)
        profile = average @ loading
        r = profile.shape[1]
        noise = max(float(np.median((deviation**2).mean(1))), 1e-9)
        return cls(
            y, of_type, of_compound, tuple(_rows(of_type, number) for number in range(t)), np.arange(len(y)), mean,
            0.1 * noise, profile, np.zeros((c, r, r)), np.maximum((profile**2).mean(1), 1e-6 * noise),
            profile[of_compound], np.zeros((len(y), 0, 0)), np.zeros((len(y), 0, r)), loading, np.full(g, 1 / g),
            np.tile(loading.T @ loading, (t, 1, 1)), np.ones((t, r)), np.ones((t, g)), 0.05, noise, np.ones(len(y)),
        )  # fmt: skip

    def add_row_components(self, count: int) -> None:
        """Begin the directions in which rows stray at the principal ones of what the compounds leave, rows of one size.

        Their scores have variance 1; the loadings say how far that is.
        """
        rest = self.y - self.mean[self.of_type] - self._effect()
        rest /= np.maximum(np.sqrt((rest**2).mean(1, keepdims=True)), 1e-9)
        directions, sizes = _directions(rest, count)
        found = directions * sizes * np.sqrt(self.noise / len(rest))
        self.loading = np.concatenate([self.loading, found], axis=1)
        self.gain = np.concatenate([self.gain, np.ones((len(self.gain), found.shape[1]))], axis=1)
        self.second = np.array([(h * self.loading.T) @ (h[:, None] * self.loading) for h in self.gene_gain])

    def update_profiles(self) -> None:
        """Learn every compound's profile from the cell types that show it, and what each row has of its own.

        What is the row's own is integrated out first, so that the profile does not depend on a guess of it.
        """
        (c, r), (t, k), answer = self.profile.shape, self.gain.shape, self._answer()
        q, precision = k - r, self._precision()[:, None, None]
        total = precision[:, 0] * self.gain[self.of_type] * self._responses()  # (n, k)
        own_cov = np.linalg.inv(precision * answer[self.of_type, r:, r:] + np.eye(q))  # given the profile
        across = answer[:, r:, :r]  # (t, q, r)
        back = own_cov @ (precision * across[self.of_type])  # (n, q, r)  how the row's own answers to the profile
        shared = self._weights(precision[:, 0, 0]) @ answer[:, :r, :r].reshape(t, r * r)
        lost = group_sums(precision**2 * own_cov, self.of_compound * t + self.of_type, c * t).reshape(c, t * q * q)
        shared -= lost @ (across[:, :, None, :, None] * across[:, None, :, None, :]).reshape(t * q * q, r * r)
        reduced = total[:, :r] - np.einsum("nji,nj->ni", back, total[:, r:])
        self.profile_cov = np.linalg.inv(shared.reshape(c, r, r) + np.eye(r) / self.profile_spread[:, None, None])
        self.profile = np.einsum("cij,cj->ci", self.profile_cov, group_sums(reduced, self.of_compound, c))
        squares = (self.profile**2).sum(1) + np.einsum("cii->c", self.profile_cov)
        typical = np.exp(np.log(squares / r).mean())
        self.profile_spread = (squares + PSEUDO * typical) / (r + PSEUDO)
        profile = self.profile[self.of_compound]
        own = np.einsum("nij,nj->ni", own_cov, total[:, r:]) - np.einsum("nij,nj->ni", back, profile)
        self.score = np.concatenate([profile, own], axis=1)
        self.mixed_cov = -back @ self.profile_cov[self.of_compound] if q else back
        self.own_cov = own_cov - self.mixed_cov @ back.transpose(0, 2, 1)

    def update_genes(self, *, gains: bool) -> None:
        """Learn loadings and, where asked, gains per gene, a block of genes at a time."""
        t, k = self.gain.shape
        curvature = (_outer(self.gain) * self._score_squares()).reshape(t, k * k)
        inputs = self._precision()[:, None] * self._inputs()
        typical = float(self.loading_spread.mean())
        self.second, deviations = np.zeros((t, k, k)), []
        for start in range(0, self.y.shape[1], GENES):
            genes = slice(start, start + GENES)
            gain, prior = self.gene_gain[:, genes], np.eye(k) / self.loading_spread[genes, None, None]
            response = self._answers_to(inputs, genes)  # (t, g, k)
            covariance = np.linalg.inv(((gain**2).T @ curvature).reshape(-1, k, k) + prior)  # (g, k, k)
            loading = np.einsum("gij,gj->gi", covariance, (gain[:, :, None] * response).sum(0))
            squares = (_outer(loading) + covariance).reshape(-1, k * k)
            if gains:
                explained = curvature @ squares.T  # (t, g)
                product = (response * loading).sum(2)
                gain = (product + 1 / self.gain_spread) / (explained + 1 / self.gain_spread)
                deviations.append((gain - 1) ** 2 + 1 / (explained + 1 / self.gain_spread))
                self.gene_gain[:, genes] = gain
            self.loading[genes] = loading
            sizes = squares[:, :: k + 1].sum(1)  # of the diagonal
            self.loading_spread[genes] = (sizes + PSEUDO * typical) / (k + PSEUDO)
            self.second += (gain**2 @ squares).reshape(t, k, k)
        if gains:
            self.gain_spread = float(np.clip(np.concatenate(deviations, axis=1).mean(), LEAST_SPREAD, MOST_SPREAD))

    def _answers_to(self, inputs: Floats, genes: slice) -> Floats:
        """Products of some genes' responses with the inputs of their rows, by cell type: (n, k) -> (t, g, k)."""
        return np.array(
            [
                self.y[here, genes].T @ inputs[here] - np.outer(mean[genes], inputs[here].sum(0))
                for here, mean in zip(self.rows, self.mean, strict=True)
            ]
        )

    def update_gains(self, pseudo_rows: float) -> None:
        """Learn how strongly a cell type answers with each component."""
        products = self._precision()[:, None] * self.score * self._responses()
        totals = group_sums(products, self.of_type, len(self.gain))  # (t, k)
        curvatures = self._score_squares() * self.second
        for number, rows in enumerate(np.bincount(self.of_type)):
            total, curvature = totals[number], curvatures[number]
            prior = max(pseudo_rows * np.trace(curvature) / len(total) / rows, 1e-9)
            self.gain[number] = np.linalg.solve(curvature + prior * np.eye(len(total)), total + prior)

    def update_means(self) -> None:
        """Learn the cell types' own effects, drawn to their average: a type known by few rows has little of its own."""
        precision, t = self._precision(), len(self.mean)
        rows = np.bincount(self.of_type, precision, t)[:, None]  # (t, 1)  rows over their noise
        measured = np.array([precision[here] @ self.y[here] for here in self.rows])  # (t, g)
        inputs = group_sums(precision[:, None] * self._inputs(), self.of_type, t)  # (t, k)
        rest = (measured - self.gene_gain * (inputs @ self.loading.T)) / rows
        trust = 1 / (self.mean_spread + 1 / rows)
        average = (trust * rest).sum(0) / trust.sum()
        share = self.mean_spread * trust  # (t, 1)
        self.mean = average + share * (rest - average)
        self.mean_spread = max(float(((self.mean - average) ** 2 + share / rows).mean()), 1e-9)

    def update_noise(self) -> None:
        """Learn how noisy rows are, what is unsure of profiles and loadings included."""
        (c, r), genes, answer = self.profile.shape, self.y.shape[1], self._answer()
        expected = np.empty(len(self.y))  # square of the effect
        for here, of_type in zip(self.rows, answer, strict=True):
            expected[here] = ((self.score[here] @ of_type) * self.score[here]).sum(1)
        unsure = self.profile_cov.reshape(c, r * r) @ answer[:, :r, :r].reshape(-1, r * r).T  # (c, t)
        expected += unsure[self.of_compound, self.of_type]
        expected += 2 * (self.mixed_cov * answer[self.of_type, r:, :r]).sum((1, 2))
        expected += (self.own_cov * answer[self.of_type, r:, r:]).sum((1, 2))
        measured = np.empty(len(self.y))
        for here, mean in zip(self.rows, self.mean, strict=True):
            measured[here] = ((self.y[here] - mean) ** 2).sum(1)
        explained = (self._inputs() * self._responses()).sum(1)
        variance = np.maximum((measured - 2 * explained + expected) / genes, 1e-9)  # (n,)
        self.noise = float(np.exp(np.log(variance).mean()))
        self.relative = (genes * variance / self.noise + PSEUDO_GENES) / (genes + PSEUDO_GENES)

    def row_factors(self) -> dict[str, Floats]:
        """What single rows stray by themselves, as factors that `row_part` multiplies."""
        r = self.profile.shape[1]
        return {"own": self._inputs()[self.place, r:], "direction": self.loading[:, r:], "gene_gain": self.gene_gain}

    def arrays(self) -> dict[str, Floats]:
        """What predictions need."""
        r = self.profile.shape[1]
        shared = {"loading": self.loading[:, :r], "gain": self.gain[:, :r]}
        return {"mean": self.mean, "profile": self.profile, "gene_gain": self.gene_gain, **shared}

    def _precision(self) -> Floats:
        return 1 / (self.noise * self.relative)  # (n,)

    def _inputs(self) -> Floats:
        return self.score * self.gain[self.of_type]  # (n, k)

    def _answer(self) -> Floats:
        """Expected products of what a unit of each component does in a cell type: (t, k, k)."""
        return _outer(self.gain) * self.second

    def _responses(self) -> Floats:
        """Products of the rows with what their cell type answers with: (n, k)."""
        products = np.empty((len(self.y), self.loading.shape[1]))
        for here, mean, gene_gain in zip(self.rows, self.mean, self.gene_gain, strict=True):
            answer = gene_gain[:, None] * self.loading
            products[here] = self.y[here] @ answer - mean @ answer
        return products

    def _weights(self, precision: Floats) -> Floats:
        """Precision that each compound's rows have in each cell type: (c, t)."""
        shape = len(self.profile), len(self.gain)
        return np.bincount(self.of_compound * shape[1] + self.of_type, precision, shape[0] * shape[1]).reshape(shape)

    def _score_squares(self) -> Floats:
        """Expected squares of the scores, summed over the rows of a cell type by their precision: (t, k, k)."""
        (c, r), t, precision = self.profile.shape, len(self.gain), self._precision()
        weighted = precision[:, None] * self.score
        total = np.array([weighted[here].T @ self.score[here] for here in self.rows])
        total[:, :r, :r] += (self._weights(precision).T @ self.profile_cov.reshape(c, r * r)).reshape(t, r, r)
        total[:, r:, r:] += group_sums(precision[:, None, None] * self.own_cov, self.of_type, t)
        mixed = group_sums(precision[:, None, None] * self.mixed_cov, self.of_type, t)
        total[:, r:, :r] += mixed
        total[:, :r, r:] += mixed.transpose(0, 2, 1)
        return total

    def _effect(self) -> Floats:
        return self.gene_gain[self.of_type] * (self._inputs() @ self.loading.T)  # (n, g)


def row_part(cell_type: Strings, *, own: Floats, direction: Floats, gene_gain: Floats) -> Floats:
    """What single rows stray by themselves (n, g).

    own        (n, q)  how far each row strays in each direction
    direction  (g, q)
    gene_gain  (t, g)  of the cell types in the order of their names
    """
    of_type = np.unique(cell_type.astype(str), return_inverse=True)[1]
    return gene_gain[of_type] * (own @ direction.T)


def _directions(table: Floats, count: int) -> tuple[Floats, Floats]:
    """Principal directions (g, r) of a table (n, g) and their singular values (r,), at most `count`, at least one."""
    if not table.any():
        return np.zeros((table.shape[1], 1)), np.zeros(1)
    main = TargetSVD.fit(table, count, center=False)
    return main.components.T.astype(np.float64), main.singular_values


def _rows(of_type: Ints, number: int) -> slice | Ints:
    """Rows of a cell type, as a slice where they stand together."""
    rows = np.flatnonzero(of_type == number)
    return slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] + 1 == len(rows) else rows


def _outer(vectors: Floats) -> Floats:
    return vectors[..., :, None] * vectors[..., None, :]
