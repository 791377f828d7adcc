"""What is known of a compound beside its structure, mechanism of action and targets, as bits.

Static: nothing here can see a response. Compounds of one mechanism answer alike where their structures differ, and so
a compound that training never showed has neighbours that a fingerprint would miss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pertcast.errors import InputError
from pertcast.features.onehot import Vocabulary
from pertcast.schema import COMPOUNDS
from pertcast.types import Block, Floats, Strings

ANNOTATION = "annotation"  # name of the block


@dataclass(frozen=True, slots=True)
class Annotations:
    """Bits of every compound of which something is known; no block where none was asked for."""

    compounds: Vocabulary = field(default_factory=lambda: Vocabulary(()))
    tables: Mapping[str, Floats] = field(default_factory=dict)  # block -> (codes + 1, d); row 0: nothing is known

    @classmethod
    def fit(cls, annotations: Mapping[str, frozenset[str]], blocks: Iterable[str]) -> Annotations:
        """Make a column of every term that a compound has.

        annotations   compound -> its terms
        Raises InputError where the block is asked for and no compound has a term.
        """
        if ANNOTATION not in blocks:
            return cls()
        check_annotated(annotations)
        known, terms = Vocabulary.fit(annotations), sorted(set().union(*annotations.values()))
        table = np.zeros((len(known) + 1, len(terms)), np.float32)
        for code, name in enumerate(known.names, start=1):
            table[code, np.isin(terms, sorted(annotations[name]))] = 1.0
        return cls(known, {ANNOTATION: table})

    def blocks(self, compound: Strings) -> dict[str, Block]:
        """Look every row's compound up: (n,) -> {block: (n, d)}. Zeros for one of which nothing is known."""
        codes = self.compounds.encode(compound)
        return {name: Block(table, codes) for name, table in self.tables.items()}


def check_annotated(annotations: Mapping[str, frozenset[str]]) -> None:
    """Raise InputError where no compound has a term."""
    if not annotations:
        raise InputError(
            f"Feature block '{ANNOTATION}' needs the mechanism or the target of some compound, which the data folder "
            f"does not tell. Put {COMPOUNDS.file} there, with a column 'moa' or 'target', or take the block out of the "
            "recipe."
        )
