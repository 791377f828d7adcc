"""What the feature blocks of a fold learned, kept: enough to describe any further row just as test rows are described.

A row that was not trained on is described by its names and its structure alone, so a table per block will do: a row of
it for every cell type, compound or structure that is known, and one for those that are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pertcast.config import FeatureConfig
from pertcast.errors import InputError
from pertcast.features.annotation import ANNOTATION, Annotations, check_annotated
from pertcast.features.context import Contexts, check_described
from pertcast.features.onehot import Vocabulary, onehot_block
from pertcast.features.structures import ALONE, CHEMISTRY, Structures, padded
from pertcast.features.target_stats import STATS, applied_stats
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.io.cache import Cache
from pertcast.schema import CONTEXTS
from pertcast.types import Block, Examples, Floats, Ints, Question, Strings

ONE_HOT = ("cell_type", "compound")
STATISTICS = {
    f"{prefix}{stat}": (prefix, stat) for prefix in ("cell_type_", "compound_", "compound_residual_") for stat in STATS
}
BLOCKS = (*ONE_HOT, *STATISTICS, *CHEMISTRY, *CONTEXTS, ANNOTATION)


@dataclass(frozen=True, slots=True)
class Features:
    """Feature blocks fitted on the training rows of a fold."""

    genes: tuple[str, ...]
    names: tuple[str, ...]  # of the blocks, in the order of the recipe
    cell_types: Vocabulary  # of the training rows
    compounds: Vocabulary  # of the training rows
    smiles: tuple[str | None, ...]  # of `compounds`
    pairs: Ints  # (n, 2)  codes of cell type and compound of each training row
    statistics: Mapping[str, Floats]  # block -> (codes + 1, d); row 0: a name that training did not show
    structures: Structures
    contexts: Contexts
    annotations: Annotations

    @classmethod
    def fit(
        cls, question: Question, config: FeatureConfig, *, train: Ints, scores: Floats | None, cache: Cache | None
    ) -> Features:
        """Learn from the training rows, and from the structures of all rows.

        train    (n_train,)     rows whose responses may be used
        scores   (n_train, k)   principal scores of their responses; None where no statistic is asked for
        """
        cell_type, compound = question.cell_type[train], question.compound[train]
        cell_types, compounds = Vocabulary.fit(cell_type), Vocabulary.fit(compound)
        pairs = np.stack([cell_types.encode(cell_type), compounds.encode(compound)], axis=1)
        structure = dict(zip(compound, question.smiles[train], strict=True))
        chemistry = [name for name in config.blocks if name in CHEMISTRY]
        everything = [*question.smiles, *question.test_smiles] if chemistry else []
        context = [name for name in config.blocks if name in CONTEXTS]
        asked = [*question.cell_type, *question.test_cell_type]
        return cls(
            genes=question.genes,
            names=config.blocks,
            cell_types=cell_types,
            compounds=compounds,
            smiles=tuple(s if isinstance(s, str) else None for s in (structure[name] for name in compounds.names)),
            pairs=pairs,
            statistics={} if scores is None else _statistics(pairs, scores, config),
            structures=Structures.fit(everything, chemistry, cache=cache),
            contexts=Contexts.fit(question.contexts, context, asked=asked),
            annotations=Annotations.fit(question.annotations, config.blocks),
        )

    def describe(self, ids: Ints, *, cell_type: Strings, compound: Strings, smiles: Strings) -> Examples:
        """Describe rows that were not trained on: names and structures (n,) of any compound, None for no structure."""
        codes = {"cell_type": self.cell_types.encode(cell_type), "compound": self.compounds.encode(compound)}
        blocks = self.structures.blocks(smiles) | self.contexts.blocks(cell_type) | self.annotations.blocks(compound)
        blocks |= {name: Block(table, codes[key_of(name)]) for name, table in self.statistics.items()}
        blocks["cell_type"] = onehot_block(cell_type, self.cell_types)
        blocks["compound"] = onehot_block(compound, self.compounds)
        return Examples(ids, cell_type, compound, self.genes, {name: blocks[name] for name in self.names})

    def save(self, folder: Path) -> None:
        """Write `features.safetensors` and `features.json`; tables that follow from structures alone are left out."""
        stored = [name for name in self.structures.tables if name not in ALONE]
        arrays = {"pairs": self.pairs, **{f"statistic/{name}": table for name, table in self.statistics.items()}}
        arrays |= {f"table/{name}": self.structures.tables[name] for name in stored}
        arrays |= {f"context/{name}": table for name, table in self.contexts.tables.items()}
        arrays |= {f"annotation/{name}": table for name, table in self.annotations.tables.items()}
        arrays |= {
            f"learned/{name}/{key}": array for name in stored for key, array in self.structures.learned[name].items()
        }
        facts = {
            "genes": self.genes,
            "names": self.names,
            "cell_types": self.cell_types.names,
            "compounds": self.compounds.names,
            "smiles": self.smiles,
            "structures": self.structures.known,
            "rows": dict(self.structures.rows),
            "described_types": self.contexts.cell_types.names,
            "annotated": self.annotations.compounds.names,
        }
        save_arrays(folder, "features", arrays, facts)

    @classmethod
    def load(cls, folder: Path) -> Features:
        """Restore what `save` wrote.

        Raises InputError where it is missing or damaged.
        """
        arrays, facts = load_arrays(folder, "features")
        names = tuple(facts["names"])
        unknown = [name for name in names if name not in BLOCKS]
        if unknown:
            raise InputError(f"Features in '{folder}' have blocks of another version: {unknown}. Fit the run again.")
        known = list(facts["structures"])
        tables, learned = {}, {}
        for name in (name for name in names if name in CHEMISTRY):
            tables[name] = padded(CHEMISTRY[name](known)["x"]) if name in ALONE else arrays[f"table/{name}"]
            learned[name] = _under(f"learned/{name}/", arrays)
        return cls(
            genes=tuple(facts["genes"]),
            names=names,
            cell_types=Vocabulary(tuple(facts["cell_types"])),
            compounds=Vocabulary(tuple(facts["compounds"])),
            smiles=tuple(facts["smiles"]),
            pairs=arrays["pairs"],
            statistics=_under("statistic/", arrays),
            structures=Structures(tuple(known), facts["rows"], tables, learned),
            contexts=Contexts(Vocabulary(tuple(facts["described_types"])), _under("context/", arrays)),
            annotations=Annotations(Vocabulary(tuple(facts.get("annotated", ()))), _under("annotation/", arrays)),
        )


def check_told(question: Question, blocks: Iterable[str]) -> None:
    """Raise InputError for blocks that need more of cell types or compounds than the data folder tells."""
    blocks = tuple(blocks)
    asked = {*question.cell_type, *question.test_cell_type}
    check_described(question.contexts, [name for name in blocks if name in CONTEXTS], asked=asked)
    if ANNOTATION in blocks:
        check_annotated(question.annotations)


def key_of(block: str) -> str:
    """Name the column that a statistic is taken by."""
    return "cell_type" if STATISTICS[block][0] == "cell_type_" else "compound"


def log_counts(blocks: Mapping[str, Block]) -> dict[str, Block]:
    """Turn numbers of rows into log(1 + number), and leave other statistics as they are."""
    return {
        stat: Block(np.log1p(block.table), block.index) if stat == "count" else block for stat, block in blocks.items()
    }


def wanted_statistics(config: FeatureConfig) -> dict[str, tuple[str, ...]]:
    """Statistics that the blocks ask for, by prefix."""
    wanted = [STATISTICS[name] for name in config.blocks if name in STATISTICS]
    return {prefix: tuple(stat for p, stat in wanted if p == prefix) for prefix in sorted({p for p, _ in wanted})}


def _statistics(pairs: Ints, scores: Floats, config: FeatureConfig) -> dict[str, Floats]:
    """Statistics of the scores (n, k) of all training rows of a name: {block: (codes + 1, .)}."""
    tables = {}
    for prefix, stats in wanted_statistics(config).items():
        keys = pairs[:, 0] if prefix == "cell_type_" else pairs[:, 1]
        groups = pairs[:, 0] if prefix == "compound_residual_" else None
        asked = np.arange(keys.max() + 1)  # code 0: no training row has it
        blocks = applied_stats(keys, scores, asked, stats=stats, smooth=config.smooth, groups=groups)
        tables |= {prefix + stat: block.dense() for stat, block in log_counts(blocks).items()}
    return tables


def _under(prefix: str, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
