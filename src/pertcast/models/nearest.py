"""Nearest compounds: rows whose compound acts alike elsewhere, or looks alike, averaged, drawn to the additive answer.

A compound's profile is what it does in the other cell types, less what those cell types do on average. A pair's own
cell type never enters its own profile, in training as in the question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from pydantic import Field

from pertcast.config import Config
from pertcast.errors import NotFittedError
from pertcast.features.groups import group_sums
from pertcast.features.onehot import Vocabulary
from pertcast.features.similarity import cell_type_similarity, structure_kernel
from pertcast.features.target_svd import TargetSVD
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.models.registry import register
from pertcast.types import Block, Examples, Floats, Ints

KEPT = 0.15  # share of a cell type's rows that a left-out row of it may use, as the question leaves a few
LEFT_OUT = 800  # training rows that are predicted to choose how neighbours count
SIMILARITY_SCORES = 64  # leading scores by which cell types are compared
TYPE_PSEUDO = 5.0  # pseudo-rows that draw a cell type's effect to none
ROUNDS = 10  # of fitting effects of cell types and compounds in turn
ROWS = 256  # rows whose neighbours are sought at a time
Choice = tuple[float, float, float]  # sharpness, weight of similar cell types, pseudo-weight


class NearestConfig(Config):
    """Several values of a setting are tried on rows left out."""

    structure: tuple[str, ...] = ("morgan",)  # fingerprints that find neighbours of compounds that training lacks
    components: int = Field(120, ge=1)  # principal scores of the response
    smooth: float = Field(1.0, gt=0)  # pseudo-rows that draw a profile to none
    sharpness: tuple[float, ...] = (4.0, 6.0, 8.0)  # powers of the cosine of two profiles
    structure_sharpness: tuple[float, ...] = (1.0, 2.0, 4.0)  # powers of the Tanimoto similarity of two structures
    similar_types: tuple[float, ...] = (0.5, 1.0, 2.0)  # weights of rows of other cell types, times their similarity
    pseudo: tuple[float, ...] = (0.05, 0.2, 0.8, 3.0, 12.0)  # weights of the additive answer


@register("nearest", config=NearestConfig)
class Nearest:
    """Compounds nearest by what they do in other cell types, or by structure: averaged and shrunk."""

    def __init__(self, config: NearestConfig):
        self.config = config
        self.arrays: dict[str, Floats] = {}
        self.names: tuple[Vocabulary, Vocabulary] | None = None

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int = 0) -> Nearest:
        """Store the rows; choose by left-out rows how neighbours count, for seen and unseen compounds apart."""
        svd = TargetSVD.fit(train.y, self.config.components)
        scores = svd.encode(train.y).astype(np.float64)  # (n, k)
        self.names = Vocabulary.fit(train.cell_type), Vocabulary.fit(train.compound)
        asked = self._asked(train)
        effects = _type_effects(asked.of_type, asked.of_compound, scores, smooth=self.config.smooth)  # (c + 1, k)
        similarity = cell_type_similarity(
            asked.of_type - 1, asked.of_compound, scores[:, :SIMILARITY_SCORES], types=len(self.names[0])
        )
        store = {
            "of_type": asked.of_type,
            "of_compound": asked.of_compound,
            **_stored(asked.structure),
            "effects": effects,
            "deviations": scores - effects[asked.of_type],
            "similarity": np.concatenate([similarity.mean(0, keepdims=True), similarity]),  # row 0: unknown type
        }
        chosen = self._choose(store, svd.residual_norm2(train.y))
        self.arrays = {**svd.arrays(), **store, **chosen}
        return self

    def predict(self, rows: Examples) -> Floats:
        if not self.arrays:
            raise NotFittedError("Nearest was asked to predict before `fit`. Call `fit` or `load` first.")
        asked, store = self._asked(rows), _Store.of(self.arrays, smooth=self.config.smooth)
        scores = np.empty((len(rows), self.arrays["deviations"].shape[1]))
        for start in range(0, len(rows), ROWS):
            part = asked.take(np.arange(start, min(start + ROWS, len(rows))))
            near = store.neighbours(part)
            seen = store.answer(part, near, tuple(self.arrays["seen"]), unseen=False)
            unseen = store.answer(part, near, tuple(self.arrays["unseen"]), unseen=True)
            scores[start : start + ROWS] = np.where(near.known[:, None], seen, unseen)
        return TargetSVD.from_arrays(self.arrays).decode(scores)

    def save(self, folder: Path) -> None:
        facts = {"cell_types": self.names[0].names, "compounds": self.names[1].names}
        save_arrays(folder, "nearest", self.arrays, facts)

    def load(self, folder: Path) -> Nearest:
        self.arrays, facts = load_arrays(folder, "nearest")
        self.names = Vocabulary(tuple(facts["cell_types"])), Vocabulary(tuple(facts["compounds"]))
        return self

    def _asked(self, rows: Examples) -> _Asked:
        types, compounds = self.names
        structure = tuple(rows.block(name) for name in self.config.structure)
        return _Asked(types.encode(rows.cell_type), compounds.encode(rows.compound), structure)

    def _choose(self, arrays: Mapping[str, Floats], rest: Floats) -> dict[str, Floats]:
        """Try every choice on training rows that are left out as the question leaves rows out."""
        store = _Store.of(arrays, smooth=self.config.smooth)
        rows = np.sort(np.random.default_rng(0).permutation(len(rest))[:LEFT_OUT])
        chosen = {}
        for name, sharpness in (("seen", self.config.sharpness), ("unseen", self.config.structure_sharpness)):
            unseen = name == "unseen"
            choices = list(product(sharpness, self.config.similar_types, self.config.pseudo))
            roots = np.zeros(len(choices))
            for part in np.array_split(rows, -(-len(rows) // ROWS)):
                asked = store.asked(part)
                near = store.neighbours(asked, without=part, unseen=unseen)
                truth = store.deviations[part] + store.effects[store.of_type[part]]
                for i, choice in enumerate(choices):
                    error = store.answer(asked, near, choice, unseen=unseen) - truth
                    roots[i] += np.sqrt((error**2).sum(1) + rest[part]).sum()
            chosen[name] = np.array(choices[int(np.argmin(roots))])
        return chosen


@dataclass(frozen=True, slots=True)
class _Asked:
    """Rows to be predicted."""

    of_type: Ints  # (a,)  0 for a cell type that training lacks
    of_compound: Ints  # (a,)  0 for a compound that training lacks
    structure: tuple[Block, ...]  # of a rows each

    def take(self, rows: Ints) -> _Asked:
        return _Asked(self.of_type[rows], self.of_compound[rows], tuple(block.take(rows) for block in self.structure))


@dataclass(frozen=True, slots=True)
class _Near:
    """How near each asked row is to each stored row."""

    profile: Floats  # (a, k)  what the asked row's compound does in other cell types
    known: Floats  # (a,)  bool: some row tells of the compound
    cosine: Floats  # (a, n)  of profiles, 1 for the same compound, 0 for opposite ones
    structure: Floats  # (a, n)  similarity of structures
    types: Floats  # (a, n)  similarity of cell types, -1 for the same one
    allowed: Floats  # (a, n)  bool: rows that may be used


@dataclass(frozen=True, slots=True)
class _Store:
    """The training rows, in a form in which neighbours are sought."""

    of_type: Ints  # (n,)
    of_compound: Ints  # (n,)
    structure: tuple[Block, ...]  # of n rows each
    effects: Floats  # (c + 1, k)  of cell types; row 0: none
    deviations: Floats  # (n, k)  scores less the cell type's effect
    similarity: Floats  # (c + 1, c)
    profiles: Floats  # (n, k)
    smooth: float

    @classmethod
    def of(cls, arrays: Mapping[str, Floats], *, smooth: float) -> _Store:
        names = ("of_type", "of_compound", "effects", "deviations", "similarity")
        kinds = sum(name.startswith("structures.") for name in arrays)
        structure = tuple(Block(arrays[f"structures.{i}"], arrays[f"structure.{i}"]) for i in range(kinds))
        of_type, of_compound, deviations = (arrays[name] for name in ("of_type", "of_compound", "deviations"))
        profiles = _profiles(of_type, of_compound, (of_type, of_compound, deviations), smooth=smooth)[0]
        return cls(**{name: arrays[name] for name in names}, structure=structure, profiles=profiles, smooth=smooth)

    def asked(self, rows: Ints) -> _Asked:
        """Ask for stored rows."""
        structure = tuple(block.take(rows) for block in self.structure)
        return _Asked(self.of_type[rows], self.of_compound[rows], structure)

    def neighbours(self, asked: _Asked, *, without: Ints | None = None, unseen: bool = False) -> _Near:
        """Compare asked rows with stored ones.

        without   (a,)  the stored rows that are asked for: left out with most rows of their cell type
        unseen          leave out their compound's other rows as well
        """
        stored = (self.of_type, self.of_compound, self.deviations)
        profile, known = _profiles(asked.of_type, asked.of_compound, stored, smooth=self.smooth)
        same_compound = asked.of_compound[:, None] == self.of_compound[None, :]
        same_type = asked.of_type[:, None] == self.of_type[None, :]
        allowed = np.ones(same_type.shape, bool)
        if without is not None:
            kept = np.random.default_rng(1).random(len(self.of_type)) < KEPT
            allowed = ~(same_type & (same_compound | ~kept))
        if unseen:
            allowed &= ~same_compound
        cosine = np.maximum(_unit(profile) @ _unit(self.profiles).T, 0.0)
        alike = structure_kernel(asked.structure, self.structure)
        types = np.where(same_type, -1.0, np.maximum(self.similarity[asked.of_type][:, self.of_type - 1], 0.0))
        return _Near(profile, known, np.where(same_compound, 1.0, cosine), alike, types, allowed)

    def answer(self, asked: _Asked, near: _Near, choice: Choice, *, unseen: bool) -> Floats:
        """Average the deviations of the neighbours with the additive answer: (a, k) scores."""
        sharpness, of_similar_types, pseudo = choice
        weight = (near.structure if unseen else near.cosine) ** sharpness  # (a, n)
        weight = weight * np.where(near.types < 0, 1.0, of_similar_types * near.types) * near.allowed
        additive = 0.0 if unseen else pseudo * near.profile
        deviation = (additive + weight @ self.deviations) / (pseudo + weight.sum(1))[:, None]
        return self.effects[asked.of_type] + deviation


def _stored(structure: tuple[Block, ...]) -> dict[str, Floats]:
    """Keep each structure once."""
    arrays = {}
    for i, block in enumerate(structure):
        rows, index = np.unique(block.index, return_inverse=True)
        arrays |= {f"structures.{i}": block.table[rows], f"structure.{i}": index}
    return arrays


def _type_effects(of_type: Ints, of_compound: Ints, scores: Floats, *, smooth: float) -> Floats:
    """Effects of cell types (c + 1, k), fitted together with those of compounds; row 0: no effect."""
    types, compounds = of_type.max() + 1, of_compound.max() + 1
    per_type, per_compound = np.bincount(of_type, minlength=types), np.bincount(of_compound, minlength=compounds)
    of_compounds = np.zeros((compounds, scores.shape[1]))
    for _ in range(ROUNDS):
        of_types = group_sums(scores - of_compounds[of_compound], of_type, types)
        of_types /= (per_type + TYPE_PSEUDO)[:, None]
        of_compounds = group_sums(scores - of_types[of_type], of_compound, compounds)
        of_compounds /= (per_compound + smooth)[:, None]
    return of_types


def _profiles(
    of_type: Ints, of_compound: Ints, stored: tuple[Ints, Ints, Floats], *, smooth: float
) -> tuple[Floats, Floats]:
    """Mean deviation of each pair's compound in all other cell types, shrunk (a, k), and whether any tells of it."""
    compounds = max(of_compound.max(), stored[1].max()) + 1
    total = group_sums(stored[2], stored[1], compounds)
    count = np.bincount(stored[1], minlength=compounds)
    pairs, of_pair = np.unique(stored[0] * compounds + stored[1], return_inverse=True)
    own = group_sums(stored[2], of_pair, len(pairs) + 1)  # last row: the pair was not measured
    own_count = np.append(np.bincount(of_pair), 0)
    asked = of_type * compounds + of_compound
    place = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    place = np.where(pairs[place] == asked, place, len(pairs))
    others = count[of_compound] - own_count[place]
    return (total[of_compound] - own[place]) / (others + smooth)[:, None], others > 0


def _unit(x: Floats) -> Floats:
    return x / np.maximum(np.sqrt((x**2).sum(1)), 1e-12)[:, None]
