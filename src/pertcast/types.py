"""The nouns that every layer speaks: rows ready for a model, ways to hold rows out, predictions, models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pertcast.errors import InputError, LeakError, unknown

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Strings = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Block:
    """A feature block kept as a small table and, for every row, the table row it uses."""

    table: Floats  # (k, d)  float32
    index: Ints  # (n,)    rows of `table`

    def dense(self) -> Floats:
        """Look every row up: (n, d)."""
        return self.table[self.index]

    def take(self, rows: Ints) -> Block:
        return Block(self.table, self.index[rows])


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows ready for a model: who they are, their features, and what was measured where that may be known."""

    ids: Ints  # (n,)  row number of the training table, or id of id_map
    cell_type: Strings  # (n,)
    compound: Strings  # (n,)  sm_name
    genes: tuple[str, ...]  # (g,)  the order of the columns of `y` and of every prediction
    blocks: Mapping[str, Block] = field(default_factory=dict)
    y: Floats | None = None  # (n, g) float32, response per gene; None for rows to be predicted
    weight: Floats | None = None  # (n,)  how much each training row counts, 1 on average; None: all alike
    cells: Path | None = None  # h5ad with the single cells behind training rows; who reads it takes no other cells

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Ints) -> Examples:
        """Return the given rows, in the given order."""
        return replace(
            self,
            ids=self.ids[rows],
            cell_type=self.cell_type[rows],
            compound=self.compound[rows],
            blocks={name: block.take(rows) for name, block in self.blocks.items()},
            y=None if self.y is None else self.y[rows],
            weight=None if self.weight is None else self.weight[rows],
        )

    def without_y(self) -> Examples:
        return replace(self, y=None)

    def block(self, name: str) -> Block:
        if name not in self.blocks:
            have = ", ".join(sorted(self.blocks)) or "none"
            raise InputError(f"Feature block '{name}' is needed by the model but not in the recipe. It has: {have}.")
        return self.blocks[name]

    def dense(self, names: tuple[str, ...]) -> Floats:
        """Concatenate the named blocks: (n, sum of widths) float32."""
        if not names:
            return np.zeros((len(self), 0), np.float32)
        return np.concatenate([self.block(name).dense() for name in names], axis=1)


@dataclass(frozen=True, slots=True)
class Profiles:
    """What was measured in the untreated cells of each cell type."""

    cell_types: Strings  # (k,)  unique
    values: Floats  # (k, b) float32, in a unit in which differences are comparable, such as log expression


@dataclass(frozen=True, slots=True)
class Question:
    """A competition as arrays: what was measured, and what is asked."""

    genes: tuple[str, ...]  # (g,)
    cell_type: Strings  # (n,)  of the training rows
    compound: Strings  # (n,)
    smiles: Strings  # (n,)  None where unknown
    y: Floats  # (n, g) float32
    test_ids: Ints  # (m,)
    test_cell_type: Strings  # (m,)
    test_compound: Strings  # (m,)
    test_smiles: Strings  # (m,)  None where unknown
    contexts: Mapping[str, Profiles] = field(default_factory=dict)  # feature block -> untreated cells it describes
    reliability: Floats | None = None  # (n,)  between 0 and 1, of each training row; None where nothing is known
    cells: Path | None = None  # h5ad with single cells, those behind the training rows among them
    annotations: Mapping[str, frozenset[str]] = field(default_factory=dict)  # compound -> its mechanisms and targets

    def __len__(self) -> int:
        return len(self.cell_type)

    @property
    def target_types(self) -> list[str]:
        """Cell types that are asked for."""
        return sorted(set(self.test_cell_type))


@dataclass(frozen=True, slots=True)
class Fold:
    """One way to hold rows out. Row numbers refer to the training table.

    Rows in neither part are dropped: where the question asks about compounds that few or no training rows show, the
    folds must ask the same.
    """

    name: str  # "rotate-0", "known-1", ...
    train: Ints  # (n_train,)
    valid: Ints  # (n_valid,)  disjoint from train
    holds_out: str  # what the valid rows share: "compound", "cell_type", ...
    groups: Strings | None = None  # (n,)  label of every row; no label may stand on both sides

    def __post_init__(self) -> None:
        both = np.intersect1d(self.train, self.valid)
        if len(both):
            raise LeakError(f"Fold '{self.name}' trains and validates on {len(both)} same rows, first {both[0]}.")
        if not len(self.train) or not len(self.valid):
            sizes = f"{len(self.train)} rows to train on and {len(self.valid)} to hold out"
            raise InputError(f"Fold '{self.name}' has {sizes}; both must be at least 1. Use fewer folds or more data.")
        if self.groups is not None:
            shared = set(self.groups[self.train]) & set(self.groups[self.valid])
            if shared:
                first = sorted(shared)[0]
                raise LeakError(f"Fold '{self.name}' holds out {self.holds_out}, yet both sides have {first}.")


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model says of some rows, by name."""

    ids: Ints  # (n,)
    genes: tuple[str, ...]  # (g,)
    values: Floats  # (n, g)  in the unit of `y`


@runtime_checkable
class Model(Protocol):
    """A learner of (cell type, compound) -> response. Hyper-parameters go to the constructor, data to `fit`."""

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int) -> Model: ...

    def predict(self, rows: Examples) -> Floats: ...  # (n, g) in the unit of `y`

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> Model: ...


@dataclass(frozen=True, slots=True)
class Cells:
    """Single cells: what was measured in each, what was done to it, and where it comes from."""

    ids: Strings  # (n,)  unique
    genes: tuple[str, ...]  # (g,)
    x: csr_array  # (n, g)  float32
    unit: Literal["counts", "log1p"]  # of x
    condition: Strings  # (n,)  what was done: a compound, a gene, the label of untreated cells
    context: Strings  # (n,)  in what it was done: cell type, line, population
    batch: Strings  # (n,)  measured together: plate, donor, run
    control: str  # the condition of untreated cells

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Ints | NDArray[np.bool_]) -> Cells:
        """Return the given cells, in the given order."""
        names = ("ids", "x", "condition", "context", "batch")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def select(self, genes: tuple[str, ...]) -> Cells:
        """Return the named genes, in the given order.

        Raises InputError for genes that the cells lack.
        """
        if genes == self.genes:
            return self
        place = {gene: j for j, gene in enumerate(self.genes)}
        missing = [gene for gene in genes if gene not in place]
        if missing:
            raise InputError(f"Cells lack {len(missing)} of {len(genes)} genes. {unknown('gene', missing[0], place)}")
        return replace(self, genes=genes, x=self.x[:, [place[gene] for gene in genes]].tocsr())

    def join(self, other: Cells) -> Cells:
        """Put other cells of the same genes below these."""
        from scipy.sparse import csr_array, vstack

        if (self.genes, self.unit, self.control) != (other.genes, other.unit, other.control):
            raise InputError("Cells to be joined differ in genes, unit or control. Select the same genes first.")
        labels = ("ids", "condition", "context", "batch")
        both = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in labels}
        return replace(self, x=csr_array(vstack([self.x, other.x])), **both)

    @property
    def untreated(self) -> NDArray[np.bool_]:
        """Which cells carry the control condition: (n,)."""
        return self.condition == self.control

    @property
    def conditions(self) -> list[str]:
        """What was done to any of them, the control aside."""
        return sorted(set(self.condition) - {self.control})


@runtime_checkable
class CellModel(Protocol):
    """A learner of how cells change. Hyper-parameters go to the constructor, data to `fit`."""

    def fit(self, cells: Cells, *, seed: int) -> CellModel: ...

    def predict(self, control_cells: Cells, condition: str, *, seed: int, sample: bool = False) -> Cells: ...

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> CellModel: ...
