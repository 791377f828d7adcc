"""What a compound did in other cell types, carried over to the one asked for by how alike the cell types are.

A plain mean over cell types trusts each as much. Here a compound's responses z_s in cell types s are combined as in
kriging (the best linear prediction under a covariance K of cell types), once effects of cell types are removed:

    answer for type t = k_t' (K + noise I)^-1 (z_s - effect_s)_s

K holds mean cosines between the responses of two cell types to the same compounds, drawn towards the overall mean
cosine where few compounds are shared. So cell types that agree count more, those that repeat each other count once,
and the answer shrinks where nothing alike was measured.

A training row is described without its own part of its cell type: neither the effect of its cell type, nor how alike
that is to others, nor the answer has seen the row, and none moves by one bit when the row's response changes.
Source: Krige 1951; as best linear unbiased prediction, Robinson 1991, doi:10.1214/ss/1177011926.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pertcast.errors import InputError
from pertcast.features.groups import group_sums
from pertcast.features.onehot import Vocabulary
from pertcast.types import Examples, Floats, Ints

TRUST = ("weight", "likest", "explained", "log_count", "log_length")  # columns of `Kriged.trust`
EFFECT_ROWS = 10.0  # pseudo-rows that draw the effect of a cell type to none
COMPOUND_ROWS = 1.0  # pseudo-rows that draw a compound's mean over cell types to none
LIKENESS_ROWS = 4.0  # pseudo-compounds that draw the likeness of two cell types to the overall one
NOISE = 0.5  # variance of a row's own part, that of what cell types may share being 1
TINY = 1e-12  # length below which a response has no direction
PARTS = 5  # of each cell type's rows, by compound: a training row is described without its own


@dataclass(frozen=True, slots=True)
class Kriged:
    """What is expected of rows from the others, in the unit of the scores."""

    effect: Floats  # (r, k)  of the row's cell type on any compound; the overall mean where the type was never seen
    answer: Floats  # (r, k)  of the row's compound beyond that; 0 where it was never seen elsewhere
    trust: Floats  # (r, 5)  see TRUST: how far the answer may be trusted

    @property
    def expected(self) -> Floats:
        """Effect and answer together: (r, k)."""
        return self.effect + self.answer

    def columns(self, width: int) -> Floats:
        """Features for a learner (r, 3 width + 5): leading scores of effect, answer and its direction, and trust."""
        direction = _direction(self.answer)[:, :width]
        return np.concatenate([self.effect[:, :width], self.answer[:, :width], direction, self.trust], axis=1)


@dataclass(frozen=True, slots=True)
class KrigingRows:
    """Training rows by name, ready to describe themselves or any other rows."""

    cell_types: Vocabulary
    compounds: Vocabulary
    pairs: Ints  # (n, 2)  codes of cell type and compound
    scores: Floats  # (n, k)

    @classmethod
    def fit(cls, train: Examples, scores: Floats) -> KrigingRows:
        cell_types, compounds = Vocabulary.fit(train.cell_type), Vocabulary.fit(train.compound)
        pairs = np.stack([cell_types.encode(train.cell_type), compounds.encode(train.compound)], axis=1)
        return cls(cell_types, compounds, pairs, scores)

    def inside(self) -> Kriged:
        """Describe the training rows, each without its own part of its cell type."""
        types, compounds = self.pairs.T
        return krige(types, compounds, self.scores, (types, compounds), parts=compounds % PARTS)

    def outside(self, rows: Examples) -> Kriged:
        """Describe rows that were not trained on."""
        asked = self.cell_types.encode(rows.cell_type), self.compounds.encode(rows.compound)
        return krige(*self.pairs.T, self.scores, asked)

    def arrays(self) -> dict[str, Floats]:
        return {"kriging_pairs": self.pairs, "kriging_scores": self.scores}

    def facts(self) -> dict[str, list[str]]:
        return {"cell_types": list(self.cell_types.names), "compounds": list(self.compounds.names)}

    @classmethod
    def from_saved(cls, arrays: Mapping[str, Floats], facts: Mapping[str, list[str]]) -> KrigingRows:
        names = Vocabulary(tuple(facts["cell_types"])), Vocabulary(tuple(facts["compounds"]))
        return cls(*names, arrays["kriging_pairs"], arrays["kriging_scores"])


def inputs(described: Kriged | None, rows: Examples, blocks: tuple[str, ...], *, width: int) -> tuple[Floats, Floats]:
    """What a learner reads (r, d) float32, and the scores (r, k) that it starts from; zeros (r, 1) without kriging.

    described  what kriging says of the rows, or None to learn from the feature blocks alone
    width      leading scores of each description that become features
    Raises InputError where neither is given.
    """
    if described is None and not blocks:
        raise InputError("A model without kriging needs feature blocks, got none. Name some, or set kriged = true.")
    x = rows.dense(blocks)
    if described is None:
        return x, np.zeros((len(rows), 1), np.float32)
    return np.concatenate([described.columns(width), x], axis=1).astype(np.float32), described.expected


def krige(
    types: Ints, compounds: Ints, scores: Floats, asked: tuple[Ints, Ints], *, parts: Ints | None = None
) -> Kriged:
    """Describe asked rows by the training rows of other cell types, and of their own cell type's other parts.

    types, compounds  (n,)    codes of the training rows
    scores            (n, k)  their responses, e.g. principal scores
    asked             (r,), (r,)  codes of cell type and compound of the rows to describe; 0 if training lacks it
    parts             (n,)    given if the asked rows *are* the training rows: part of each, such as its compound's
                              fold; a row is described without its own part of its cell type
    """
    z = np.asarray(scores, np.float64)
    r, k = len(asked[0]), z.shape[1]
    result = Kriged(np.zeros((r, k), np.float32), np.zeros((r, k), np.float32), np.zeros((r, len(TRUST)), np.float32))
    for code in np.unique(asked[0]):
        elsewhere = types != code
        sources = Sources.fit(types[elsewhere], compounds[elsewhere], z[elsewhere])
        for known, here in _turns(types == code, asked[0] == code, parts):
            effect, likeness = sources.relate(compounds[known], z[known])
            result.effect[here] = effect
            for row in here:
                result.answer[row], result.trust[row] = sources.answer(asked[1][row], likeness)
    return result


def _turns(own: Ints, asked: Ints, parts: Ints | None) -> Iterator[tuple[Ints, Ints]]:
    """Yield rows of a cell type that may be known, and rows then to be described."""
    if parts is None:
        yield np.flatnonzero(own), np.flatnonzero(asked)
        return
    for part in np.unique(parts[own]):
        yield np.flatnonzero(own & (parts != part)), np.flatnonzero(asked & (parts == part))


@dataclass(frozen=True, slots=True)
class Sources:
    """The rows of all cell types but one, told apart into effects of cell types and the rest."""

    overall: Floats  # (k,)
    types: Ints  # (n,)  0..c-1
    rest: Floats  # (n, k)  responses without overall mean and effect of the cell type
    direction: Floats  # (n, k)  the rest at length 1
    rows_of: dict[int, Ints]  # rows of each compound
    likeness: Floats  # (c, c)  between cell types, positive semidefinite, 1 to itself
    base: float  # mean likeness of two cell types

    @classmethod
    def fit(cls, types: Ints, compounds: Ints, z: Floats) -> Sources:
        types = np.unique(types, return_inverse=True)[1]
        of_compound = np.unique(compounds, return_inverse=True)[1]
        overall = z.mean(0) if len(z) else np.zeros(z.shape[1])
        effects = _type_effects(types, of_compound, z - overall)
        rest = z - overall - effects[types]
        direction = _direction(rest)
        order = np.argsort(compounds, kind="stable")
        names, first = np.unique(compounds[order], return_index=True)
        rows_of = dict(zip(names.tolist(), np.split(order, first[1:]), strict=True)) if len(names) else {}
        likeness, base = _likeness(types, direction, rows_of)
        return cls(overall, types, rest, direction, rows_of, likeness, base)

    def relate(self, compounds: Ints, z: Floats) -> tuple[Floats, Floats]:
        """Say of a further cell type, by its known rows, what its effect is (k,), and how alike it is to each (c,)."""
        common = np.zeros_like(z)  # (m, k)  what the compounds do elsewhere
        for i, compound in enumerate(compounds.tolist()):
            rows = self.rows_of.get(compound, ())
            common[i] = self.rest[rows].sum(0) / (len(rows) + COMPOUND_ROWS) if len(rows) else 0.0
        effect = (z - self.overall - common).sum(0) / (len(z) + EFFECT_ROWS)
        own = _direction(z - self.overall - effect)
        total, count = np.zeros(len(self.likeness)), np.zeros(len(self.likeness))
        for i, compound in enumerate(compounds.tolist()):
            rows = self.rows_of.get(compound, ())
            if len(rows):
                np.add.at(total, self.types[rows], self.direction[rows] @ own[i])
                np.add.at(count, self.types[rows], 1)
        return self.overall + effect, np.maximum((total + LIKENESS_ROWS * self.base) / (count + LIKENESS_ROWS), 0)

    def answer(self, compound: int, likeness: Floats) -> tuple[Floats, Floats]:
        """Krige one compound's response in a type of the given likeness (c,): (k,) and its trust (5,)."""
        rows = self.rows_of.get(int(compound), ())
        if not len(rows):
            return np.zeros(self.rest.shape[1]), np.zeros(len(TRUST))
        here = self.types[rows]  # (m,)
        covariance = self.likeness[np.ix_(here, here)] + NOISE * np.eye(len(rows))
        weight = np.linalg.solve(covariance, likeness[here])  # (m,)
        answer = weight @ self.rest[rows]
        explained = weight @ likeness[here]
        length = np.log1p(np.linalg.norm(answer))
        return answer, np.array([weight.sum(), likeness[here].max(), explained, np.log1p(len(rows)), length])


def _direction(rest: Floats) -> Floats:
    return rest / np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), TINY)


def _type_effects(types: Ints, compounds: Ints, z: Floats) -> Floats:
    """Ridge effects of cell types (c, k) in z ~ type + compound, compounds eliminated (Schur complement)."""
    count = np.zeros((types.max(initial=-1) + 1, compounds.max(initial=-1) + 1))  # (c, d)
    np.add.at(count, (types, compounds), 1.0)
    share = count / (count.sum(0) + COMPOUND_ROWS)  # (c, d)
    by_type, by_compound = group_sums(z, types, len(count)), group_sums(z, compounds, count.shape[1])
    left = np.diag(count.sum(1) + EFFECT_ROWS) - share @ count.T
    return np.linalg.solve(left, by_type - share @ by_compound)


def _likeness(types: Ints, direction: Floats, rows_of: dict[int, Ints]) -> tuple[Floats, float]:
    """Mean cosine of two cell types over shared compounds (c, c), shrunk and made a covariance; and its mean."""
    c = types.max(initial=-1) + 1
    total, count = np.zeros((c, c)), np.zeros((c, c))
    for rows in rows_of.values():
        if len(rows) > 1:
            at = np.ix_(types[rows], types[rows])
            np.add.at(total, at, direction[rows] @ direction[rows].T)
            np.add.at(count, at, 1)
    other = ~np.eye(c, dtype=bool)
    base = max(float(total[other].sum() / max(count[other].sum(), 1)), 0.0)
    likeness = (total + LIKENESS_ROWS * base) / (count + LIKENESS_ROWS)
    likeness[~other] = 1.0
    values, vectors = np.linalg.eigh(likeness)
    likeness = (vectors * np.maximum(values, 0)) @ vectors.T
    scale = np.sqrt(np.diag(likeness))
    return likeness / np.outer(scale, scale), base
