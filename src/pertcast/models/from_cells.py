"""Responses from generated cells: a model of cells treats untreated ones, and an experiment is made of the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.sparse import csr_array

from pertcast.cells import registry as cell_models
from pertcast.cells.calibration import Calibration
from pertcast.cells.yardstick import Yardstick
from pertcast.config import Config
from pertcast.de.presets import NEGATIVE_CONTROL
from pertcast.de.pseudobulk import pseudobulk
from pertcast.errors import InputError, NotFittedError, unknown
from pertcast.features.similarity import structure_kernel
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.io.paired_cells import SAMPLE, read_paired_cells
from pertcast.models.registry import register
from pertcast.schema import CELL_TYPE, COMPOUND
from pertcast.types import Block, CellModel, Cells, Examples, Floats, Ints, Strings

NAME = "from-cells"
SEED = 0  # of predictions, which are expected counts
NEIGHBOURS = 8  # compounds that stand for one without cells, at most
SHARPNESS = 4.0  # power of the Tanimoto similarity by which they count


class FromCellsConfig(Config):
    """Which model treats the cells, and how many it sees."""

    model: str = "context-transfer"  # a name of `pertcast cells models`
    settings: dict[str, Any] = Field(default_factory=dict)  # fields of that model's own Config that differ
    control: str = NEGATIVE_CONTROL  # sm_name of untreated cells
    structure: tuple[str, ...] = ()  # fingerprints that find compounds to stand for one without cells; none: no change
    treated_cells: int = Field(20, ge=1)  # of a pair that the model learns from, at most
    untreated_cells: int = Field(300, ge=1)  # of a cell type that the model learns from, at most
    source_cells: int = Field(90, ge=1)  # untreated ones of a cell type that are treated for a prediction
    hidden: float = Field(0.25, gt=0, lt=1)  # share of each cell type's rows that the scale is calibrated on


@register(NAME, config=FromCellsConfig, seeded=True)
class FromCells:
    """Treats a cell type's untreated cells with a model of cells, sums them by donor, and tests them as wells are.

    Of the folder's single cells only untreated ones and those of the training pairs are read. The change of a gene is
    divided by the moderated standard error that the wells of the cell type show, which gives t; recipes therefore learn
    in t. How far t can be trusted is learned on rows whose cells were hidden from a first fit. For a compound that no
    training pair shows the nearest ones by structure stand in, trusted as far as they would serve for compounds that
    are known; without structures it changes nothing.
    """

    leans_on = ("cells", "de")  # folders of code that its numbers follow from, beside those of every model

    def __init__(self, config: FromCellsConfig):
        self.config = config
        self.world: _World | None = None
        self.trust: dict[str, Calibration] = {}  # "seen", and "unseen" where structures are read
        self.structures: _Structures | None = None

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int) -> FromCells:
        """Fit the model of cells twice: without some rows, to calibrate on them, and with all.

        Raises InputError where the rows come without single cells, or the file lacks some of them.
        """
        if train.cells is None:
            fix = "Put cells.h5ad there (`pertcast demo --cells` writes one), or leave the recipe out."
            raise InputError(
                f"Model '{NAME}' needs the single cells behind the table, which the data folder lacks. {fix}"
            )
        pairs = list(zip(train.cell_type, train.compound, strict=True))
        counts, obs = read_paired_cells(train.cells, pairs, genes=train.genes, control=self.config.control)
        if self.config.structure:
            self.structures = _Structures.of(train, self.config.structure)
        rng = np.random.default_rng(seed)
        hidden = _hidden(train, self.config.hidden, rng)
        shown = _without(obs, [pairs[row] for row in hidden])
        first = _World.of(self.config, counts[shown], obs.iloc[shown], train.genes, rng=rng, seed=seed)
        known = hidden[np.isin(train.compound[hidden], list(first.codes))]
        told = train.take(known if len(known) else hidden)
        self.trust = {"seen": Calibration.of(self._t(first, told, "seen"), told, train=train)}
        self.world = _World.of(self.config, counts, obs, train.genes, rng=rng, seed=seed)
        if self.structures is not None:  # a row's own compound never stands for itself, so all rows may tell
            self.trust["unseen"] = Calibration.of(self._t(self.world, train, "unseen"), train, train=train)
        return self

    def predict(self, rows: Examples) -> Floats:
        """Raises InputError for a cell type of which no untreated cell is known."""
        if self.world is None:
            raise NotFittedError(f"Model '{NAME}' was asked to predict before `fit`. Call `fit` or `load` first.")
        found = np.empty((len(rows), len(rows.genes)), np.float32)
        seen = np.isin(rows.compound, list(self.world.codes)) | (self.structures is None)
        for part, name in ((np.flatnonzero(seen), "seen"), (np.flatnonzero(~seen), "unseen")):
            if len(part):
                own = rows.take(part)
                found[part] = self.trust[name].apply(self._t(self.world, own, name), own.cell_type)
        return found

    def save(self, folder: Path) -> None:
        if self.world is None:
            raise NotFittedError(f"Model '{NAME}' was asked to save before `fit`. Call `fit` or `load` first.")
        arrays, facts = self.world.parts()
        self.world.model.save(folder)
        facts["trust"] = {}
        for name, trust in self.trust.items():
            own, facts["trust"][name] = trust.parts()
            arrays |= {f"{name}.{key}": value for key, value in own.items()}
        if self.structures is not None:
            facts["structures"] = self.structures.compounds
            arrays |= {f"structure.{k}": table for k, table in enumerate(self.structures.tables)}
        save_arrays(folder, NAME, arrays, facts)

    def load(self, folder: Path) -> FromCells:
        arrays, facts = load_arrays(folder, NAME)
        self.trust = {
            name: Calibration.restored({k.removeprefix(f"{name}."): v for k, v in arrays.items()}, own)
            for name, own in facts["trust"].items()
        }
        if "structures" in facts:
            names = self.config.structure
            tables = tuple(arrays[f"structure.{k}"] for k in range(len(names)))
            self.structures = _Structures(names, tuple(facts["structures"]), tables)
        model = cell_models.build(self.config.model, self.config.settings).load(folder)
        self.world = _World.restored(model, arrays, facts)
        return self

    def _t(self, world: _World, rows: Examples, name: str) -> Floats:
        """Return the t of the rows' own compounds, or of those that stand for unseen ones: (n, g)."""
        if name == "seen":
            return world.t(rows.cell_type, rows.compound)
        weights = self.structures.weights(rows, tuple(world.codes))  # (n, c)
        known, mixed = np.array(list(world.codes), dtype=object), np.zeros((len(rows), len(rows.genes)))
        for number, cell_type in enumerate(rows.cell_type):
            near = np.flatnonzero(weights[number])
            if len(near):
                mixed[number] = weights[number, near] @ world.t(np.full(len(near), cell_type, object), known[near])
        return mixed


@dataclass(frozen=True, slots=True)
class _Structures:
    """Fingerprints of the training compounds."""

    names: tuple[str, ...]  # feature blocks
    compounds: tuple[str, ...]  # (c,)
    tables: tuple[Floats, ...]  # (c, d) each

    @classmethod
    def of(cls, train: Examples, names: tuple[str, ...]) -> _Structures:
        compounds, first = np.unique(train.compound.astype(str), return_index=True)
        return cls(names, tuple(compounds), tuple(train.block(name).take(first).dense() for name in names))

    def weights(self, rows: Examples, known: tuple[str, ...]) -> Floats:
        """How much each of the known compounds stands for the compound of a row, which is none of them: (n, c).

        Nearest ones by structure count; together as much as the nearest one is alike.
        """
        place = {name: number for number, name in enumerate(self.compounds)}
        columns = np.array([place[name] for name in known], int)
        stored = [Block(table, columns) for table in self.tables]
        alike = structure_kernel([rows.block(name) for name in self.names], stored)  # (n, c)
        alike[rows.compound[:, None] == np.array(known, dtype=object)[None]] = 0
        least = -np.sort(-alike, axis=1)[:, :NEIGHBOURS][:, -1:]
        weight = np.where(alike >= least, alike, 0) ** SHARPNESS
        return alike.max(axis=1, keepdims=True) * weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True, slots=True)
class _World:
    """A fitted model of cells, the untreated cells it treats, and the yardstick of the wells."""

    model: CellModel
    codes: dict[str, str]  # compound -> condition of the model, which may read signs in names
    source: Cells  # untreated; batch: donor
    yardstick: Yardstick

    @classmethod
    def of(
        cls, config: FromCellsConfig, counts: csr_array, obs: pd.DataFrame, genes: tuple[str, ...], *,
        rng: np.random.Generator, seed: int,
    ) -> _World:  # fmt: skip
        keys = [CELL_TYPE, COMPOUND, *SAMPLE]
        yardstick = Yardstick.of(pseudobulk(counts, obs, keys, genes=genes), control=config.control)
        compounds = sorted(set(obs[COMPOUND]) - {config.control})
        codes = {name: f"compound {number}" for number, name in enumerate(compounds)}
        treated = (obs[COMPOUND] != config.control).to_numpy()
        groups = pd.factorize(obs[CELL_TYPE] + "\n" + obs[COMPOUND])[0]
        most = np.where(treated, config.treated_cells, config.untreated_cells)
        cells = _cells(counts, obs, genes, {**codes, config.control: config.control}, control=config.control)
        model = cell_models.build(config.model, config.settings)
        model.fit(cells.take(_at_most(groups, most, rng)), seed=seed)
        own = np.flatnonzero(~treated)
        few = own[_at_most(groups[own], np.full(len(own), config.source_cells), rng)]
        return cls(model, codes, cells.take(few), yardstick)

    def t(self, cell_types: Strings, compounds: Strings) -> Floats:
        """Return the t of every row as an experiment on the treated cells would have it: (n, g)."""
        known: dict[tuple[str, str], Floats] = {}
        for pair in zip(cell_types, compounds, strict=True):
            if pair not in known:
                known[pair] = self._pair(*pair)
        return np.array([known[pair] for pair in zip(cell_types, compounds, strict=True)])

    def _pair(self, cell_type: str, compound: str) -> Floats:
        here = self.source.context == cell_type
        if not here.any():
            fix = "Every cell type that is asked for needs some."
            raise InputError(f"{unknown('cell type with untreated cells', cell_type, set(self.source.context))} {fix}")
        if compound not in self.yardstick.unscaled:
            return np.zeros(len(self.source.genes))
        cells = self.source.take(here)
        after = self.model.predict(cells, self.codes[compound], seed=SEED, sample=False).select(cells.genes)
        shares = [_shares(part.x, cells.batch) for part in (cells, after)]
        return self.yardstick.t(cell_type, compound, *shares)

    def parts(self) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """Arrays and facts, for saving; the model is saved beside them."""
        source, yard = self.source, self.yardstick
        arrays = {"data": source.x.data, "indices": source.x.indices, "indptr": source.x.indptr,
                  "sd": yard.sd, "molecules": yard.molecules}  # fmt: skip
        facts = {
            "genes": source.genes, "control": source.control, "codes": self.codes, "ids": list(source.ids),
            "context": list(source.context), "batch": list(source.batch), "cell_types": yard.cell_types,
            "unscaled": dict(yard.unscaled), "depth": dict(yard.depth),
        }  # fmt: skip
        return arrays, facts

    @classmethod
    def restored(cls, model: CellModel, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> _World:
        genes, n = tuple(facts["genes"]), len(facts["ids"])
        x = csr_array(tuple(arrays[name] for name in ("data", "indices", "indptr")), shape=(n, len(genes)))
        ids, context, batch = (np.array(facts[name], dtype=object) for name in ("ids", "context", "batch"))
        control = facts["control"]
        source = Cells(ids, genes, x, "counts", np.full(n, control, dtype=object), context, batch, control)
        yardstick = Yardstick(
            tuple(facts["cell_types"]), arrays["sd"], arrays["molecules"], facts["unscaled"], facts["depth"]
        )
        return cls(model, facts["codes"], source, yardstick)


def _hidden(train: Examples, share: float, rng: np.random.Generator) -> Ints:
    """Rows that the first fit does not see: a share of each cell type's, where it has more than one.

    One is drawn out of so many that follow one another in strength, so that strong rows, of which there are few, take
    part as weak ones do.
    """
    size, hidden = np.square(train.y).sum(axis=1), []
    for name in sorted(set(train.cell_type)):
        rows = np.flatnonzero(train.cell_type == name)
        rows = rows[np.argsort(-size[rows], kind="stable")]
        parts = min(len(rows) - 1, max(1, round(share * len(rows))))
        hidden += [rng.choice(part) for part in np.array_split(rows, parts)] if parts else []
    return np.sort(np.array(hidden, int))


def _without(obs: pd.DataFrame, pairs: list[tuple[str, str]]) -> Ints:
    """Cells that are of none of the pairs."""
    return np.flatnonzero(~pd.MultiIndex.from_frame(obs[[CELL_TYPE, COMPOUND]]).isin(pairs))


def _cells(counts: csr_array, obs: pd.DataFrame, genes: tuple[str, ...], codes: dict[str, str], *,
           control: str) -> Cells:  # fmt: skip
    """Cells as models read them: context is the cell type, batch the donor."""
    ids = np.arange(len(obs)).astype(str).astype(object)
    condition = np.array([codes[name] for name in obs[COMPOUND]], dtype=object)
    context, batch = (obs[name].to_numpy(object) for name in (CELL_TYPE, SAMPLE[-1]))
    return Cells(ids, genes, counts, "counts", condition, context, batch, control)


def _at_most(groups: Ints, most: Ints, rng: np.random.Generator) -> Ints:
    """Draw some rows of each group, at most as many as `most` (n,) says, in their order."""
    order = rng.permutation(len(groups))
    rank = pd.Series(groups[order]).groupby(groups[order]).cumcount().to_numpy()
    return np.sort(order[rank < most[order]])


def _shares(counts: csr_array, donors: Strings) -> Floats:
    """Share of each gene in the molecules of each donor: (d, g)."""
    sums = np.array([np.asarray(counts[donors == name].sum(axis=0)).ravel() for name in sorted(set(donors))], float)
    return sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-12)
