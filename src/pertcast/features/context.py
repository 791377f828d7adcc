"""Blocks that describe a cell type by its untreated cells, so that one which training never saw has neighbours too.

Static: nothing here can see a response.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pertcast.errors import InputError, shorten
from pertcast.features.onehot import Vocabulary
from pertcast.types import Block, Floats, Profiles, Strings


@dataclass(frozen=True, slots=True)
class Contexts:
    """Scores of every cell type whose untreated cells are known, block by block."""

    cell_types: Vocabulary = field(default_factory=lambda: Vocabulary(()))
    tables: Mapping[str, Floats] = field(default_factory=dict)  # block -> (codes + 1, d); row 0: a type not described

    @classmethod
    def fit(cls, profiles: Mapping[str, Profiles], names: Iterable[str], *, asked: Iterable[str]) -> Contexts:
        """Describe the cell types of the profiles by the blocks named.

        asked   cell types of the question: each must be described
        Raises InputError where there is no profile of a block, or none of a cell type that is asked for.
        """
        names = tuple(names)
        check_described(profiles, names, asked=asked)
        known = Vocabulary.fit({one for name in names for one in profiles[name].cell_types})
        return cls(known, {name: _table(profiles[name], known) for name in names})

    def blocks(self, cell_type: Strings) -> dict[str, Block]:
        """Look every row's cell type up: (n,) -> {block: (n, d)}. Zeros, the average type, for one not described."""
        codes = self.cell_types.encode(cell_type)
        return {name: Block(table, codes) for name, table in self.tables.items()}


def check_described(profiles: Mapping[str, Profiles], names: Iterable[str], *, asked: Iterable[str]) -> None:
    """Raise InputError for blocks of untreated cells that lack their table, or a cell type that is asked for."""
    asked = set(asked)
    for name in names:
        if name not in profiles:
            raise InputError(
                f"Feature block '{name}' needs a table of untreated cells, which the data folder lacks. "
                f"Put {name} there (data/README.md says in which form), or take the block out of the recipe."
            )
        missing = sorted(asked - set(profiles[name].cell_types))
        if missing:
            raise InputError(
                f"Table '{name}' lacks {len(missing)} of {len(asked)} cell types: {shorten(missing)}. "
                f"Add their untreated profiles, or take the block out of the recipe."
            )


def _table(profiles: Profiles, known: Vocabulary) -> Floats:
    """Place the scores of the described types among all that are known: (codes + 1, d)."""
    scores = context_scores(profiles.values)  # (k, d)
    table = np.zeros((len(known) + 1, scores.shape[1]), np.float32)
    table[known.encode(profiles.cell_types)] = scores
    return table


def context_scores(values: Floats) -> Floats:
    """Turn profiles into coordinates that keep their distances: (k, b) -> (k, d), d < k.

    Principal scores of the centred profiles, all of them, in the unit in which a profile's mean squared length is 1:
    two types that have nothing in common are a squared distance of 2 apart. Zeros for a single or for equal profiles.
    """
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    gram = centred @ centred.T  # (k, k); its eigenvectors are enough, however many genes there are
    variance, axes = np.linalg.eigh(gram)
    kept = variance > 1e-10 * max(variance[-1], 1e-300)
    variance, axes = variance[kept][::-1], axes[:, kept][:, ::-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])  # the sign is free: fix it
    if variance.sum() <= 0:
        return np.zeros((len(values), 1), np.float32)
    return (axes * np.sqrt(variance * len(values) / variance.sum())).astype(np.float32)
