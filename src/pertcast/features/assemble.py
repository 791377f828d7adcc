"""Put the feature blocks of one outer fold together.

Static blocks know names and structures only: their functions cannot receive `y`. Fitted blocks are made from the
fold's training rows, and for a training row from the other rows only. Wide blocks stay small tables plus row indices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pertcast.config import FeatureConfig
from pertcast.errors import InputError, unknown
from pertcast.features.fitted import BLOCKS, ONE_HOT, STATISTICS, Features, log_counts, wanted_statistics
from pertcast.features.structures import CHEMISTRY
from pertcast.features.target_stats import cross_fitted_stats
from pertcast.features.target_svd import TargetSVD
from pertcast.io.cache import Cache
from pertcast.types import Block, Examples, Floats, Ints, Question

__all__ = ["BLOCKS", "CHEMISTRY", "ONE_HOT", "PARTS", "STATISTICS", "Assembled", "assemble"]
PARTS = 5  # by compound; a cell type has many rows, so parts of it describe each other well


@dataclass(frozen=True, slots=True)
class Assembled:
    """Rows of one outer fold, ready for a model. Only the training rows carry `y`."""

    train: Examples
    valid: Examples
    test: Examples
    features: Features  # describes any further row as valid and test rows are described


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
    y = question.y[train]
    scores = TargetSVD.fit(y, config.components).encode(y) if wanted_statistics(config) else None  # (n_train, k)
    features = Features.fit(question, config, train=train, scores=scores, cache=cache)
    parts = [
        features.describe(rows, cell_type=question.cell_type[rows], compound=question.compound[rows],
                          smiles=question.smiles[rows])
        for rows in (train, valid)
    ]  # fmt: skip
    test = features.describe(
        question.test_ids, cell_type=question.test_cell_type, compound=question.test_compound,
        smiles=question.test_smiles,
    )  # fmt: skip
    inside = {} if scores is None else _cross_fitted(features.pairs, scores, config)
    trust = None if question.reliability is None else question.reliability[train]
    weight = None if trust is None else trust / trust.mean()
    own = replace(parts[0], blocks={**parts[0].blocks, **inside}, y=y, weight=weight, cells=question.cells)
    return Assembled(own, parts[1], test, features)


def _cross_fitted(pairs: Ints, scores: Floats, config: FeatureConfig) -> dict[str, Block]:
    """Statistics that describe each training row by other training rows; `pairs` (n, 2) are its codes."""
    cell_type, compound = pairs.T
    result = {}
    for prefix, stats in wanted_statistics(config).items():
        by_type = prefix == "cell_type_"
        blocks = cross_fitted_stats(
            cell_type if by_type else compound,
            scores,
            (compound - 1) % PARTS if by_type else cell_type,  # a compound is described by other cell types only
            stats=stats,
            smooth=config.smooth,
            groups=cell_type if prefix == "compound_residual_" else None,
        )
        result |= {prefix + stat: block for stat, block in log_counts(blocks).items()}
    return result
