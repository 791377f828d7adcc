"""The single cells behind a demo competition: drawn given the counts of their wells, so that sums are those exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from pertcast import cell_schema, schema
from pertcast.de.presets import NEGATIVE_CONTROL
from pertcast.io.cell_stream import CellStream
from pertcast.simulate.chemistry import Compound
from pertcast.simulate.competition import DEMO_VERSION, DemoConfig, Measured, Pairs, gene_names
from pertcast.simulate.plates import DMSO, Wells
from pertcast.types import Floats, Ints

CELLS, ASKED, EFFECTS = schema.CELLS_FILE, "solution_cells.h5ad", "oracle_effects.parquet"
CELL_FILES = (CELLS, ASKED, EFFECTS, cell_schema.COUNTS_LONG.file, cell_schema.COUNTS_OBS.file)
STREAM = 1000  # random numbers of cells are others than those of the wells, which stay what they are without cells
COUNTS_A_GENE = 1.0  # mean counts of a cell, per gene: a well of median depth has 15 cells of a type, or 30
SIZE_SHAPE = 6.0  # of the gamma distribution of a cell's share of its well
PROGRAMS = 3  # that vary from cell to cell
PROGRAM_SD = 0.25  # of the log rate of a gene, per program that touches it
PROGRAM_DENSITY = 0.1
DMSO_ID, DMSO_SMILES = "LSM-36361", "CS(C)=O"  # as in the competition
PLATE_ROWS = "ABCDEFGH"
ODD = 0x9E3779B97F4A7C15  # spreads cell numbers over ids of 64 bits, none twice

Compounds = tuple[Compound, ...]
Told = tuple[Compounds, Ints]  # compounds, and which of them are positive controls


class DemoCells:
    """Files of single cells, filled cell type by cell type while a demo is simulated. Used as a context.

    Training wells and controls go to `cells.h5ad` and to the competition's long table, wells of pairs to predict to
    `solution_cells.h5ad`, planted effects to `oracle_effects.parquet`.
    """

    def __init__(self, folder: Path, config: DemoConfig, *, seed: int):
        self.folder, self.config, self.seed = folder, config, seed
        self.genes = gene_names(config.genes)
        rng = np.random.default_rng([DEMO_VERSION, seed, STREAM])
        touched = rng.random((PROGRAMS, config.genes)) < PROGRAM_DENSITY
        self.loadings = PROGRAM_SD * touched * rng.normal(size=touched.shape)  # (p, g)
        self.tables: dict[str, list[pd.DataFrame]] = {CELLS: [], ASKED: []}
        self.effects: list[pa.Table] = []
        self.written = 0  # cells

    def __enter__(self) -> DemoCells:
        self.streams = {name: CellStream(self.folder / name).__enter__() for name in self.tables}
        fields = [(cell_schema.OBS_ID, pa.string()), (schema.GENE, pa.string()), (cell_schema.COUNT, pa.int32())]
        self.long_schema = pa.schema([*fields, ("normalized_count", pa.float32())])
        path = self.folder / cell_schema.COUNTS_LONG.file
        self.long = pq.ParquetWriter(path, self.long_schema, compression="zstd", store_schema=False)
        return self

    def __exit__(self, *raised: object) -> None:
        self.long.close()
        for stream in self.streams.values():
            stream.__exit__(*raised)

    def add(self, pairs: Pairs, compounds: Compounds, measured: Measured) -> None:
        """Draw the cells of one cell type, plate by plate, and write them."""
        rng = np.random.default_rng([DEMO_VERSION, self.seed, STREAM + 1 + measured.cell_type])
        asked = pairs.test[pairs.test[:, 0] == measured.cell_type, 1]
        held = np.isin(measured.wells.compound, asked)
        for plate in np.unique(measured.wells.plate):
            for name, part in ((CELLS, ~held), (ASKED, held)):
                rows = np.flatnonzero((measured.wells.plate == plate) & part)
                if len(rows):
                    self._add_wells(name, measured, rows, (compounds, pairs.positive), rng=rng)
        self.effects.append(self._effects(measured, pairs, compounds))

    def finish(self) -> dict[str, object]:
        """Write what is known of all cells: numbers of training cells and of those to predict."""
        note = json.dumps({"simulated": True, "version": DEMO_VERSION, "seed": self.seed}, sort_keys=True)
        for name, stream in self.streams.items():
            obs = pd.concat(self.tables[name], ignore_index=True)
            if name == CELLS:
                obs.to_csv(self.folder / cell_schema.COUNTS_OBS.file, index=False)
            labels = obs.set_index(cell_schema.OBS_ID).apply(_categories)
            labels.index.name = None
            stream.finish(labels, self.genes, {"pertcast": note})
        pq.write_table(pa.concat_tables(self.effects), self.folder / EFFECTS, compression="zstd")
        return {"train": sum(map(len, self.tables[CELLS])), "asked": sum(map(len, self.tables[ASKED]))}

    def _add_wells(self, name: str, measured: Measured, rows: Ints, told: Told, *, rng: np.random.Generator) -> None:
        drawn = list(cells_of_wells(measured.counts[rows], self.loadings, rng=rng))
        x = sparse.csr_array(sparse.vstack(drawn))  # (cells, g)
        wells = measured.wells.take(np.repeat(rows, [part.shape[0] for part in drawn]))
        ids = [f"{(self.written + k) * ODD % 2**64:016x}" for k in range(x.shape[0])]
        self.written += x.shape[0]
        cell_type = self.config.cell_types[measured.cell_type].name
        self.tables[name].append(_described(ids, wells, cell_type, *told))
        self.streams[name].add(x)
        if name == CELLS:
            self._add_long(ids, x)

    def _add_long(self, ids: list[str], x: sparse.csr_array) -> None:
        total = np.maximum(np.asarray(x.sum(axis=1)).ravel(), 1)
        of_cell = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
        columns = [
            pa.DictionaryArray.from_arrays(pa.array(of_cell.astype(np.int32)), pa.array(ids)).cast(pa.string()),
            pa.DictionaryArray.from_arrays(pa.array(x.indices), pa.array(self.genes)).cast(pa.string()),
            pa.array(x.data),
            pa.array(np.log1p(1e4 * x.data / total[of_cell]).astype(np.float32)),
        ]
        self.long.write_table(pa.table(columns, schema=self.long_schema))

    def _effects(self, measured: Measured, pairs: Pairs, compounds: Compounds) -> pa.Table:
        shown = pairs.measured[measured.cell_type]
        names = [self.config.cell_types[measured.cell_type].name] * len(shown)
        keys = {schema.CELL_TYPE: names, schema.COMPOUND: [compounds[c].name for c in shown]}
        columns = measured.effects[shown].T.astype(np.float32)
        return pa.table(keys | dict(zip(self.genes, columns, strict=True)))


def cells_of_wells(counts: Ints, loadings: Floats, *, rng: np.random.Generator) -> Iterator[sparse.csr_array]:
    """Share the counts of each well out to its cells: (n, g) -> n times (cells, g) int32, which sum up to its row.

    loadings  (p, g)  of programs that vary from cell to cell, in the log rate

    A well has a cell for so many counts, and one at least. Given a well's counts, each gene's are multinomial over
    the cells: a cell's share is gamma-distributed, and its programs raise some genes together.
    """
    genes = counts.shape[1]
    for row in counts:
        cells = max(1, round(row.sum() / (COUNTS_A_GENE * genes)))
        size = rng.gamma(SIZE_SHAPE, size=cells)
        rate = size * np.exp(loadings.T @ rng.normal(size=(len(loadings), cells)))  # (g, cells)
        shared = rng.multinomial(row, rate / rate.sum(axis=1, keepdims=True))  # (g, cells)
        yield sparse.csr_array(shared.T, dtype=np.int32)


def _described(ids: list[str], wells: Wells, cell_type: str, compounds: Compounds, positive: Ints) -> pd.DataFrame:
    """Return what the competition tells of cells, a row per cell."""
    treated = wells.compound != DMSO

    def told(part: str, control: str) -> np.ndarray:
        return np.array([getattr(compounds[c], part) if c != DMSO else control for c in wells.compound], dtype=object)

    row = np.array(list(PLATE_ROWS))[wells.place % len(PLATE_ROWS)]
    col = (wells.place // len(PLATE_ROWS) + 1).astype(str)
    library = wells.plate * len(PLATE_ROWS) + wells.place % len(PLATE_ROWS)  # the wells of a row are one library
    return pd.DataFrame(
        {
            cell_schema.OBS_ID: ids,
            "library_id": _numbered("library", library),
            "plate_name": _numbered("plate", wells.plate),
            "well": np.char.add(row, col),
            "row": row,
            "col": col,
            "cell_id": "PBMC",
            "donor_id": _numbered("donor", wells.donor),
            schema.CELL_TYPE: cell_type,
            schema.COMPOUND_ID: told("lincs_id", DMSO_ID),
            schema.COMPOUND: told("name", NEGATIVE_CONTROL),
            schema.SMILES: told("smiles", DMSO_SMILES),
            "dose_uM": 1.0,
            "timepoint_hr": 24,
            schema.CONTROL: ~treated | np.isin(wells.compound, positive),
        }
    )


def _numbered(what: str, number: Ints) -> np.ndarray:
    return np.char.add(f"{what}_", number.astype(str))


def _categories(column: pd.Series) -> pd.Series:
    return column.astype("category") if column.dtype == object else column
