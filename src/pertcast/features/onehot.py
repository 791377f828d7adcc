"""Names as numbers: a fixed vocabulary with a place for names it never saw, and its one-hot table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pertcast.types import Block, Ints, Strings


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The k names that training showed, sorted. Code 0 stands for every name that is not among them."""

    names: tuple[str, ...]  # (k,)  sorted, unique

    @classmethod
    def fit(cls, names: Iterable[str]) -> Vocabulary:
        """Collect the unique names; their order of appearance does not matter."""
        return cls(tuple(sorted({str(name) for name in names})))

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, names: Iterable[str]) -> Ints:
        """Return the code of each name (n,): 1..k in the order of `names`, 0 for an unknown one."""
        codes = {name: code for code, name in enumerate(self.names, start=1)}
        return np.array([codes.get(str(name), 0) for name in names], dtype=np.int64)


def onehot_block(names: Strings, vocabulary: Vocabulary) -> Block:
    """One-hot encode the names (n,) as a block of width k; an unknown name has the row of zeros.

    The table (k + 1, k) is the same whatever the rows are, so blocks of training and prediction rows agree.
    """
    k = len(vocabulary)
    table = np.concatenate([np.zeros((1, k), np.float32), np.eye(k, dtype=np.float32)])  # (k + 1, k)
    return Block(table, vocabulary.encode(names))
