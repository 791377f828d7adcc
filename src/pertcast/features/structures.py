"""Blocks of compound structure: a table over all known structures, and a place in it for one that comes later.

Static: nothing here can see a response. What a block learned from the structures it was made of (principal axes,
scales, clusters) is kept beside its table, so that a further structure is described as if it had been among them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pertcast.errors import InputError, shorten
from pertcast.features import chemistry
from pertcast.features.target_svd import TargetSVD
from pertcast.io.cache import Cache
from pertcast.types import Block, Floats, Strings

CHEMISTRY_SCORES = 64  # principal scores of fingerprints
CLUSTER_DISTANCE = 0.8  # largest Tanimoto distance within a cluster

Arrays = Mapping[str, NDArray]


@dataclass(frozen=True, slots=True)
class Structures:
    """The u structures of a question, block by block."""

    known: tuple[str, ...]  # (u,)  canonical SMILES, sorted
    rows: Mapping[str, int]  # SMILES as written, and as in `known` -> row of the tables
    tables: Mapping[str, Floats]  # block -> (u + 1, d); row 0: no structure known
    learned: Mapping[str, Arrays]  # block -> what places a further structure in it

    @classmethod
    def fit(cls, smiles: Iterable[object], names: Iterable[str], *, cache: Cache | None = None) -> Structures:
        """Describe all structures of a question at once, each computed once, however it is written.

        smiles   of any rows; what is no text is no structure
        Raises InputError where a block is asked for and no row has a structure.
        """
        written = sorted({s for s in smiles if isinstance(s, str)})
        canonical = chemistry.canonical_smiles(written, written)
        known = tuple(sorted(set(canonical)))
        place = {structure: i + 1 for i, structure in enumerate(known)}
        rows = place | {text: place[structure] for text, structure in zip(written, canonical, strict=True)}
        made = {name: _cached(cache, name, list(known)) for name in names}
        learned = {name: {key: array for key, array in made[name].items() if key != "x"} for name in made}
        return cls(known, rows, {name: padded(arrays["x"]) for name, arrays in made.items()}, learned)

    def blocks(self, smiles: Strings) -> dict[str, Block]:
        """Look every row's structure up: (n,) -> {block: (n, d)}. Zeros for a row without one.

        Raises InputError where a SMILES that is not known cannot be parsed.
        """
        written = sorted({s for s in smiles if isinstance(s, str) and s not in self.rows})
        canonical = dict(zip(written, chemistry.canonical_smiles(written, written), strict=True))
        new = sorted({structure for structure in canonical.values() if structure not in self.rows})
        place = {**self.rows, **{structure: len(self.known) + 1 + i for i, structure in enumerate(new)}}
        index = np.array([place[canonical.get(s, s)] if isinstance(s, str) else 0 for s in smiles], dtype=int)
        return {name: Block(self._with(name, new), index) for name in self.tables}

    def _with(self, name: str, new: list[str]) -> Floats:
        if not new:
            return self.tables[name]
        return np.concatenate([self.tables[name], PLACED[name](new, list(self.known), self.learned[name])])


def padded(table: Floats) -> Floats:
    """Put a row of zeros before the table: no structure known."""
    return np.concatenate([np.zeros_like(table[:1]), table])


def _cached(cache: Cache | None, name: str, structures: list[str]) -> Arrays:
    if not structures:
        raise InputError(f"Feature block '{name}' needs SMILES, but no row has one. Take it out of the recipe.")
    if cache is None:
        return CHEMISTRY[name](structures)
    inputs = {"block": name, "structures": structures}
    return cache.get_or_build(name, inputs=inputs, build=lambda: CHEMISTRY[name](structures))


def _bits(smiles: list[str]) -> Floats:
    return chemistry.morgan_bits(smiles).astype(np.float32)


def _counts(smiles: list[str]) -> Floats:
    return chemistry.count_fingerprint(smiles).astype(np.float32)


def _scores(smiles: list[str]) -> dict[str, NDArray]:
    """Reduce fingerprints to their leading principal scores: what a linear model of few rows can use."""
    bits = _bits(smiles)
    if not bits.var():  # one compound, or all alike
        return {"x": np.zeros((len(bits), 1), np.float32)}
    svd = TargetSVD.fit(bits, CHEMISTRY_SCORES)
    return {"x": svd.encode(bits), **svd.arrays()}


def _placed_scores(new: list[str], known: list[str], learned: Arrays) -> Floats:
    return TargetSVD.from_arrays(learned).encode(_bits(new)) if learned else np.zeros((len(new), 1), np.float32)


def _descriptors(smiles: list[str]) -> dict[str, NDArray]:
    table = chemistry.descriptors(smiles)
    if table.replaced:
        names = shorten(f"{name} ({count})" for name, count in table.replaced.items())
        logging.getLogger(__name__).warning("Descriptors without a value, replaced by the median: %s", names)
    return {"x": table.values, "center": table.scale.center, "spread": table.scale.spread}


def _placed_descriptors(new: list[str], known: list[str], learned: Arrays) -> Floats:
    scale = chemistry.DescriptorScale(learned["center"], learned["spread"])
    return chemistry.descriptors(new, scale=scale).values


def _clusters(smiles: list[str]) -> Floats:
    return _one_hot(chemistry.cluster_ids(_bits(smiles), threshold=CLUSTER_DISTANCE))


def _placed_clusters(new: list[str], known: list[str], learned: Arrays) -> Floats:
    """Join the cluster whose farthest member is nearest, if a cluster may be that wide; else none."""
    members = _clusters(known) > 0  # (u, c)
    distance = 1 - chemistry.tanimoto(_bits(new), _bits(known))  # (r, u)
    farthest = np.stack([distance[:, of].max(axis=1) for of in members.T], axis=1)  # (r, c)
    nearest = farthest == farthest.min(axis=1, keepdims=True)
    first = np.cumsum(nearest, axis=1) == 1  # of clusters as near as each other
    return (nearest & first & (farthest <= CLUSTER_DISTANCE)).astype(np.float32)


def _scaffolds(smiles: list[str]) -> Floats:
    return _one_hot(chemistry.scaffolds(smiles))


def _placed_scaffolds(new: list[str], known: list[str], learned: Arrays) -> Floats:
    labels = np.unique(chemistry.scaffolds(known))
    return (chemistry.scaffolds(new)[:, None] == labels).astype(np.float32)


def _one_hot(labels: np.ndarray) -> Floats:
    codes = np.unique(labels, return_inverse=True)[1]
    return np.eye(codes.max() + 1, dtype=np.float32)[codes]


# How a block is made of all structures (u,): its table `x` (u, d) and what it learned of them.
CHEMISTRY: dict[str, Callable[[list[str]], dict[str, NDArray]]] = {
    "morgan": lambda smiles: {"x": _bits(smiles)},
    "morgan_scores": _scores,
    "feature_morgan": lambda smiles: {"x": chemistry.feature_bits(smiles)},
    "torsions": lambda smiles: {"x": chemistry.torsion_bits(smiles)},
    "atom_pairs": lambda smiles: {"x": chemistry.pair_bits(smiles)},
    "count_fingerprint": lambda smiles: {"x": _counts(smiles)},
    "descriptors": _descriptors,
    "cluster": lambda smiles: {"x": _clusters(smiles)},
    "scaffold": lambda smiles: {"x": _scaffolds(smiles)},
}
# How further structures (r,) are described: from them, the known ones (u,) and what was learned -> (r, d).
PLACED: dict[str, Callable[[list[str], list[str], Arrays], Floats]] = {
    "morgan": lambda new, known, learned: _bits(new),
    "morgan_scores": _placed_scores,
    "feature_morgan": lambda new, known, learned: chemistry.feature_bits(new),
    "torsions": lambda new, known, learned: chemistry.torsion_bits(new),
    "atom_pairs": lambda new, known, learned: chemistry.pair_bits(new),
    "count_fingerprint": lambda new, known, learned: _counts(new),
    "descriptors": _placed_descriptors,
    "cluster": _placed_clusters,
    "scaffold": _placed_scaffolds,
}
ALONE = (
    "morgan",
    "feature_morgan",
    "torsions",
    "atom_pairs",
    "count_fingerprint",
    "cluster",
    "scaffold",
)  # follow from the known structures at once: not stored
