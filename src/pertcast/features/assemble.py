"""Put the feature blocks of one outer fold together.

Static blocks know names and structures only: their functions cannot receive `y`. Fitted blocks are made from the
fold's training rows, and for a training row from the other rows only. Wide blocks stay small tables plus row indices.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pertcast.config import FeatureConfig
from pertcast.errors import InputError, shorten, unknown
from pertcast.features import chemistry
from pertcast.features.onehot import Vocabulary, onehot_block
from pertcast.features.target_stats import STATS, applied_stats, cross_fitted_stats
from pertcast.features.target_svd import TargetSVD
from pertcast.io.cache import Cache
from pertcast.types import Block, Examples, Floats, Ints, Question, Strings

ONE_HOT = ("cell_type", "compound")
CHEMISTRY_SCORES = 64  # principal scores of fingerprints
PARTS = 5  # by compound; a cell type has many rows, so parts of it describe each other well
STATISTICS = {
    f"{prefix}{stat}": (prefix, stat) for prefix in ("cell_type_", "compound_", "compound_residual_") for stat in STATS
}
CHEMISTRY: dict[str, Callable[[list[str]], Floats]] = {
    "morgan": lambda smiles: chemistry.morgan_bits(smiles).astype(np.float32),
    "morgan_scores": lambda smiles: _principal(chemistry.morgan_bits(smiles)),
    "count_fingerprint": lambda smiles: chemistry.count_fingerprint(smiles).astype(np.float32),
    "descriptors": lambda smiles: _descriptors(smiles),
    "cluster": lambda smiles: _one_hot(chemistry.cluster_ids(chemistry.morgan_bits(smiles))),
    "scaffold": lambda smiles: _one_hot(np.array(chemistry.scaffolds(smiles), dtype=object)),
}
BLOCKS = (*ONE_HOT, *STATISTICS, *CHEMISTRY)


@dataclass(frozen=True, slots=True)
class Assembled:
    """Rows of one outer fold, ready for a model. Only the training rows carry `y`."""

    train: Examples
    valid: Examples
    test: Examples


def assemble(
    question: Question, config: FeatureConfig, *, train: Ints, valid: Ints, cache: Cache | None = None
) -> Assembled:
    """Build the blocks that a recipe asks for.

    train   (n_train,)  rows that may be learned from; nothing of any other row's `y` is read
    valid   (n_valid,)  held-out rows, described as test rows are
    cache               where tables that follow from structures alone are kept
    Raises InputError for an unknown block.
    """
    for name in config.blocks:
        if name not in BLOCKS:
            raise InputError(unknown("feature block", name, BLOCKS))
    rows = _Rows(question, train, valid)
    blocks = {
        **{name: _one_hot_parts(rows, name) for name in config.blocks if name in ONE_HOT},
        **_statistics(rows, config),
        **_chemistry(rows, config, cache),
    }
    return Assembled(*(rows.examples(part, {name: blocks[name][part] for name in config.blocks}) for part in range(3)))


@dataclass(frozen=True, slots=True)
class _Rows:
    """The three parts of a fold (train, valid, test) and who is in them."""

    question: Question
    train: Ints
    valid: Ints

    @property
    def y(self) -> Floats:
        return self.question.y[self.train]

    def names(self, column: str) -> tuple[Strings, Strings, Strings]:
        """Read `cell_type`, `compound` or `smiles` of the three parts."""
        values = getattr(self.question, column)
        return values[self.train], values[self.valid], getattr(self.question, f"test_{column}")

    def examples(self, part: int, blocks: dict[str, Block]) -> Examples:
        ids = (self.train, self.valid, self.question.test_ids)[part]
        cell_type, compound = self.names("cell_type")[part], self.names("compound")[part]
        return Examples(ids, cell_type, compound, self.question.genes, blocks, self.y if part == 0 else None)


def _one_hot_parts(rows: _Rows, column: str) -> tuple[Block, ...]:
    names = rows.names(column)
    vocabulary = Vocabulary.fit(names[0])
    return tuple(onehot_block(part, vocabulary) for part in names)


def _statistics(rows: _Rows, config: FeatureConfig) -> dict[str, tuple[Block, ...]]:
    """Statistics of the training responses' principal scores, by cell type and by compound."""
    wanted = [STATISTICS[name] for name in config.blocks if name in STATISTICS]
    if not wanted:
        return {}
    scores = TargetSVD.fit(rows.y, config.components).encode(rows.y)  # (n_train, k)
    cell_type, compound = rows.names("cell_type"), rows.names("compound")
    part_of_compound = np.unique(compound[0].astype(str), return_inverse=True)[1] % PARTS
    result = {}
    for prefix in sorted({prefix for prefix, _ in wanted}):
        stats = tuple(stat for p, stat in wanted if p == prefix)
        by_type = prefix == "cell_type_"
        keys = cell_type if by_type else compound
        exclude = part_of_compound if by_type else cell_type[0]  # a compound is described by other cell types only
        groups = cell_type[0].astype(str) if prefix == "compound_residual_" else None
        inside = cross_fitted_stats(
            keys[0].astype(str), scores, exclude.astype(str), stats=stats, smooth=config.smooth, groups=groups
        )
        outside = [
            applied_stats(
                keys[0].astype(str), scores, keys[part].astype(str), stats=stats, smooth=config.smooth, groups=groups
            )
            for part in (1, 2)
        ]
        for stat in stats:
            blocks = (inside[stat], outside[0][stat], outside[1][stat])
            result[prefix + stat] = tuple(map(_log_count, blocks)) if stat == "count" else blocks
    return result


def _chemistry(rows: _Rows, config: FeatureConfig, cache: Cache | None) -> dict[str, tuple[Block, ...]]:
    """Look up tables of compound structure; a compound without a structure gets zeros."""
    wanted = [name for name in config.blocks if name in CHEMISTRY]
    if not wanted:
        return {}
    both = (rows.question.smiles, rows.question.test_smiles)
    written = sorted({s for column in both for s in column if isinstance(s, str)})
    canonical = dict(zip(written, chemistry.canonical_smiles(written, written), strict=True))
    structures = sorted(set(canonical.values()))  # each computed once, however it is written
    place = {smiles: i + 1 for i, smiles in enumerate(structures)}
    code = {smiles: place[canonical[smiles]] for smiles in written}
    index = [np.array([code.get(s, 0) for s in part], int) for part in rows.names("smiles")]
    result = {}
    for name in wanted:
        table = _cached(cache, name, structures)
        padded = np.concatenate([np.zeros_like(table[:1]), table])  # row 0: no structure known
        result[name] = tuple(Block(padded, i) for i in index)
    return result


def _cached(cache: Cache | None, name: str, structures: list[str]) -> Floats:
    if not structures:
        raise InputError(f"Feature block '{name}' needs SMILES, but no row has one. Take it out of the recipe.")
    if cache is None:
        return CHEMISTRY[name](structures)
    inputs = {"block": name, "structures": structures}
    return cache.get_or_build(name, inputs=inputs, build=lambda: {"x": CHEMISTRY[name](structures)})["x"]


def _log_count(block: Block) -> Block:
    return Block(np.log1p(block.table), block.index)


def _descriptors(smiles: list[str]) -> Floats:
    table = chemistry.descriptors(smiles)
    if table.replaced:
        names = shorten(f"{name} ({count})" for name, count in table.replaced.items())
        logging.getLogger(__name__).warning("Descriptors without a value, replaced by the median: %s", names)
    return table.values


def _principal(bits: Floats) -> Floats:
    """Reduce fingerprints to their leading principal scores: what a linear model of few rows can use."""
    bits = bits.astype(np.float32)
    if not bits.var():  # one compound, or all alike
        return np.zeros((len(bits), 1), np.float32)
    return TargetSVD.fit(bits, CHEMISTRY_SCORES).encode(bits)


def _one_hot(labels: np.ndarray) -> Floats:
    codes = np.unique(labels, return_inverse=True)[1]
    return np.eye(codes.max() + 1, dtype=np.float32)[codes]
