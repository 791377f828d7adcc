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
from pertcast.cells.yardstick import Yardstick
from pertcast.config import Config
from pertcast.de.presets import NEGATIVE_CONTROL
from pertcast.de.pseudobulk import pseudobulk
from pertcast.errors import InputError, NotFittedError, unknown
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.io.paired_cells import SAMPLE, read_paired_cells
from pertcast.models.registry import register
from pertcast.schema import CELL_TYPE, COMPOUND
from pertcast.types import CellModel, Cells, Examples, Floats, Ints, Strings

NAME = "from-cells"
SEED = 0  # of predictions, which are expected counts
SPREADS = (0.0, 0.25, 1.0, 2.0, 4.0, 8.0, 16.0)  # mean squares of t by which weak rows are held back
ROUNDS = 5  # in which each row counts by the inverse of its error: the score is a mean of roots
FEW_ROWS = 4.0  # rows at which half of a cell type's mean error is put right


class FromCellsConfig(Config):
    """Which model treats the cells, and how many it sees."""

    model: str = "context-transfer"  # a name of `pertcast cells models`
    settings: dict[str, Any] = Field(default_factory=dict)  # fields of that model's own Config that differ
    control: str = NEGATIVE_CONTROL  # sm_name of untreated cells
    treated_cells: int = Field(20, ge=1)  # of a pair that the model learns from, at most
    untreated_cells: int = Field(300, ge=1)  # of a cell type that the model learns from, at most
    source_cells: int = Field(90, ge=1)  # untreated ones of a cell type that are treated for a prediction
    hidden: float = Field(0.25, gt=0, lt=1)  # share of each cell type's rows that the scale is calibrated on


@register(NAME, config=FromCellsConfig, seeded=True)
class FromCells:
    """Treats a cell type's untreated cells with a model of cells, sums them by donor, and tests them as wells are.

    Of the folder's single cells only untreated ones and those of the training pairs are read. The change of a gene is
    divided by the moderated standard error that the wells of the cell type show, which gives t; recipes therefore learn
    in t. How far t can be trusted is learned on rows whose cells were hidden from a first fit. A compound that no
    training pair shows changes nothing.
    """

    leans_on = ("cells", "de")  # folders of code that its numbers follow from, beside those of every model

    def __init__(self, config: FromCellsConfig):
        self.config = config
        self.world: _World | None = None
        self.arrays: dict[str, Floats] = {}
        self.types: tuple[str, ...] = ()

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
        rng = np.random.default_rng(seed)
        hidden = _hidden(train.cell_type, self.config.hidden, rng)
        shown = _without(obs, [pairs[row] for row in hidden])
        first = _World.of(self.config, counts[shown], obs.iloc[shown], train.genes, rng=rng, seed=seed)
        t = first.t(train.cell_type[hidden], train.compound[hidden])
        self.types = tuple(sorted(set(train.cell_type)))
        self.arrays = _calibrated(t, train.y[hidden].astype(np.float64), train.cell_type[hidden], self.types)
        self.world = _World.of(self.config, counts, obs, train.genes, rng=rng, seed=seed)
        return self

    def predict(self, rows: Examples) -> Floats:
        """Raises InputError for a cell type of which no untreated cell is known."""
        if self.world is None:
            raise NotFittedError(f"Model '{NAME}' was asked to predict before `fit`. Call `fit` or `load` first.")
        held_back = _held_back(self.world.t(rows.cell_type, rows.compound), self.arrays["spread"][0])
        place = {name: number for number, name in enumerate(self.types)}
        offset = self.arrays["offset"][[place.get(name, len(place)) for name in rows.cell_type]]
        return (self.arrays["scale"][0] * held_back + offset).astype(np.float32)

    def save(self, folder: Path) -> None:
        if self.world is None:
            raise NotFittedError(f"Model '{NAME}' was asked to save before `fit`. Call `fit` or `load` first.")
        arrays, facts = self.world.parts()
        self.world.model.save(folder)
        save_arrays(folder, NAME, {**self.arrays, **arrays}, {"types": self.types, **facts})

    def load(self, folder: Path) -> FromCells:
        arrays, facts = load_arrays(folder, NAME)
        self.types = tuple(facts["types"])
        self.arrays = {name: arrays[name] for name in ("scale", "spread", "offset")}
        model = cell_models.build(self.config.model, self.config.settings).load(folder)
        self.world = _World.restored(model, arrays, facts)
        return self


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


def _hidden(cell_type: Strings, share: float, rng: np.random.Generator) -> Ints:
    """Rows that the first fit does not see: a share of each cell type's, where it has more than one."""
    hidden = []
    for name in sorted(set(cell_type)):
        rows = rng.permutation(np.flatnonzero(cell_type == name))
        hidden.append(rows[: min(len(rows) - 1, max(1, round(share * len(rows))))])
    return np.sort(np.concatenate(hidden))


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


def _held_back(t: Floats, spread: float) -> Floats:
    """Shrink rows by how weak they are: (n, g)."""
    size = np.square(t).mean(axis=1, keepdims=True)
    return t * (size / np.maximum(size + spread, 1e-12))


def _calibrated(t: Floats, y: Floats, cell_type: Strings, types: tuple[str, ...]) -> dict[str, Floats]:
    """Choose the scale, how weak rows are held back, and what is added in each cell type, on rows that were hidden.

    returns  scale (1,), spread (1,), offset (types + 1, g); the last for a cell type beyond the known ones
    """
    tried = []
    for spread in SPREADS:
        x, weight, scale = _held_back(t, spread), np.ones(len(t)), 0.0
        for _ in range(ROUNDS):
            square = float(weight @ np.square(x).sum(axis=1))
            scale = max(0.0, float(weight @ (x * y).sum(axis=1)) / square) if square > 0 else 0.0
            error = np.sqrt(np.square(y - scale * x).mean(axis=1))
            weight = 1 / np.maximum(error, 1e-3 * max(error.mean(), 1e-12))
        tried.append((float(error.mean()), spread, scale))
    _, spread, scale = min(tried)
    rest = y - scale * _held_back(t, spread)
    offset = [rest[cell_type == name].sum(axis=0) / ((cell_type == name).sum() + FEW_ROWS) for name in types]
    overall = rest.sum(axis=0) / (len(rest) + FEW_ROWS)
    return {"scale": np.array([scale]), "spread": np.array([spread]), "offset": np.array([*offset, overall])}
