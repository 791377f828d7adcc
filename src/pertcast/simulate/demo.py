"""Write a simulated competition as files: what a competitor gets, the solution, and what only a simulation can tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from pertcast import schema
from pertcast.errors import InputError, shorten, unknown
from pertcast.io.atomic import atomic_folder, write_json, write_parquet
from pertcast.metrics.rowwise import mrrmse
from pertcast.simulate.competition import DEMO_VERSION, SIZES, Demo, simulate_competition
from pertcast.simulate.demo_cells import CELL_FILES, DemoCells
from pertcast.types import Floats, Ints, Strings

TRUTH = "truth.json"
FILES = (
    "README.md", "de_train.parquet", "id_map.csv", "sample_submission.csv", "solution.parquet", "oracle.parquet",
    "oracle_train.parquet", TRUTH, *CELL_FILES,
)  # fmt: skip  # all that a demo writes: a folder with anything else in it is not ours to replace


def write_demo(out: Path, *, size: str = "small", seed: int = 0, cells: bool = False) -> dict[str, object]:
    """Simulate a competition and write its folder, whole or not at all. Same size and seed, same bytes.

    size      tiny (60 genes x 12 compounds x 4 cell types), small (1,000 x 100 x 6) or full (the real competition's
              614 + 255 rows x 18,211 genes and its sparsity)
    cells     write the single cells, too, whose sums by well the tables were computed from
    returns   what `truth.json` says: floors and ceiling of the MRRMSE, and what was planted
    Raises InputError for an unknown size, or where `out` holds anything but an older demo.
    """
    if size not in SIZES:
        raise InputError(unknown("demo size", size, SIZES))
    out = Path(out)
    _refuse_other_content(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(out, replace=True) as draft:
        demo, drawn = _simulate(draft, size, seed, cells=cells)
        facts = _facts(demo, size) | drawn
        _write_tables(draft, demo)
        write_json(draft / TRUTH, facts)
        (draft / "README.md").write_text(_readme(demo, facts))
    return facts


def _simulate(folder: Path, size: str, seed: int, *, cells: bool) -> tuple[Demo, dict[str, object]]:
    """Simulate a competition; where cells are wanted write them, and say how many they are."""
    config = SIZES[size]
    if not cells:
        return simulate_competition(config, seed=seed), {}
    with DemoCells(folder, config, seed=seed) as files:
        demo = simulate_competition(config, seed=seed, watch=files.add)
        return demo, {"cells": files.finish()}


def _refuse_other_content(out: Path) -> None:
    strange = sorted(path.name for path in out.iterdir() if path.name not in FILES) if out.is_dir() else []
    if strange or (out.is_dir() and any(out.iterdir()) and not (out / TRUTH).is_file()):
        names = shorten(strange or sorted(path.name for path in out.iterdir()))
        raise InputError(f"'{out}' holds files that are no demo ({names}); nothing was written. Name another --out.")
    if out.exists() and not out.is_dir():
        raise InputError(f"'{out}' is a file, expected a folder to write the demo to. Name another one for --out.")


def _write_tables(folder: Path, demo: Demo) -> None:
    pairs, compounds = demo.pairs, demo.compounds
    train = pd.DataFrame(
        {
            schema.CELL_TYPE: _cell_types(demo, pairs.train),
            schema.COMPOUND: [compounds[c].name for c in pairs.train[:, 1]],
            schema.COMPOUND_ID: [compounds[c].lincs_id for c in pairs.train[:, 1]],
            schema.SMILES: [compounds[c].smiles for c in pairs.train[:, 1]],
            schema.CONTROL: np.isin(pairs.train[:, 1], pairs.positive),
        }
    )
    _write_wide(folder / "de_train.parquet", {name: train[name].to_numpy() for name in train}, demo, demo.y_train)
    ids = np.arange(len(pairs.test))
    names = [compounds[c].name for c in pairs.test[:, 1]]
    id_map = pd.DataFrame({schema.ID: ids, schema.CELL_TYPE: _cell_types(demo, pairs.test), schema.COMPOUND: names})
    id_map.to_csv(folder / "id_map.csv", index=False)
    zeros = np.zeros(len(ids), np.float32)
    sample = pl.DataFrame({schema.ID: ids, **dict.fromkeys(demo.genes, zeros)})
    sample.write_csv(folder / "sample_submission.csv")
    keys = {schema.ID: ids, schema.USAGE: _usage(demo)}
    _write_wide(folder / "solution.parquet", keys, demo, demo.y_test)
    _write_wide(folder / "oracle.parquet", {schema.ID: ids}, demo, demo.oracle_test.astype(np.float32))
    rows = np.arange(len(pairs.train))
    _write_wide(folder / "oracle_train.parquet", {schema.ID: rows}, demo, demo.oracle_train.astype(np.float32))


def _write_wide(path: Path, keys: dict[str, np.ndarray], demo: Demo, values: Floats) -> None:
    columns = np.ascontiguousarray(values.T)  # (g, n)  float64 as in the competition, float32 for the oracle
    write_parquet(path, pa.table([*map(pa.array, (*keys.values(), *columns))], names=[*keys, *demo.genes]))


def _cell_types(demo: Demo, rows: Ints) -> Strings:
    return np.array([demo.config.cell_types[t].name for t in rows[:, 0]], dtype=object)


def _usage(demo: Demo) -> Strings:
    public = np.isin(demo.pairs.test[:, 1], demo.pairs.public)
    return np.where(public, schema.PUBLIC, schema.PRIVATE).astype(object)


def _facts(demo: Demo, size: str) -> dict[str, object]:
    usage = _usage(demo)
    parts = {"all": np.full(len(usage), True), "Public": usage == schema.PUBLIC, "Private": usage == schema.PRIVATE}

    def scores(prediction: Floats) -> dict[str, float]:
        return {
            name: round(mrrmse(y_true=demo.y_test[rows], y_pred=prediction[rows]), 6)
            for name, rows in parts.items()
            if rows.any()
        }

    drugs, names = demo.drugs, [compound.name for compound in demo.compounds]
    return {
        "simulated": True,
        "version": DEMO_VERSION,
        "size": size,
        "seed": demo.seed,
        "mrrmse_oracle": scores(demo.oracle_test),
        "mrrmse_zeros": scores(np.zeros_like(demo.y_test)),
        "mrrmse_zeros_train": round(mrrmse(y_true=demo.y_train, y_pred=np.zeros_like(demo.y_train)), 6),
        "mrrmse_oracle_train": round(mrrmse(y_true=demo.y_train, y_pred=demo.oracle_train), 6),
        "compounds": {
            name: {"mechanism": int(drugs.mechanism[i]), "potency": round(float(drugs.potency[i]), 6)}
            for i, name in enumerate(names)
        },
    }


def _readme(demo: Demo, facts: dict[str, object]) -> str:
    train, test, genes = len(demo.pairs.train), len(demo.pairs.test), len(demo.genes)
    return f"""# SIMULATED data: a demo competition, no measurement

Size {facts["size"]}, seed {demo.seed}, demo version {DEMO_VERSION}: {train} training rows and {test} rows to predict,
{genes} genes, {len(demo.compounds)} compounds, {len(demo.config.cell_types)} cell types.

Compounds are built from scaffolds and substituents; the structure decides mechanism and potency. Wells of donors and
plates give negative-binomial counts, which a moderated t against DMSO turns into signed -log10 p.

| file | what |
|---|---|
| `de_train.parquet` `id_map.csv` `sample_submission.csv` | as in the competition |
| `solution.parquet` | what was "measured" for the rows to predict; for reporting |
| `oracle.parquet` `oracle_train.parquet` | predictions of one who knows what was planted: the ceiling |
| `truth.json` | what was planted, and the oracle's score |
{_cells_table() if "cells" in facts else ""}
MRRMSE on the rows to predict: zeros {facts["mrrmse_zeros"]["all"]:.3f}, oracle {facts["mrrmse_oracle"]["all"]:.3f}.
"""


def _cells_table() -> str:
    return """| `cells.h5ad` | simulated single cells of the training rows and the controls |
| `adata_train.parquet` `adata_obs_meta.csv` | the same cells in the competition's form |
| `solution_cells.h5ad` | simulated single cells of the rows to predict; for reporting |
| `oracle_effects.parquet` | planted log fold changes of expression, for every pair: the truth of the cells |

The cells of a well sum up exactly to the counts that the tables were computed from: `pertcast de --design demo` on both
h5ad files together gives `de_train.parquet` and `solution.parquet` again. Rows of cell types in which nothing is asked
need `cells.h5ad` alone; in the others hidden wells tell of the variance, too. Given the counts of its well, a gene's
counts are multinomial over the cells: shares of the well are gamma-distributed, three programs vary from cell to cell.
"""


def describe(facts: dict[str, object]) -> str:
    """Say in a line what a demo's floor and ceiling are."""
    keys = ("size", "seed", "version", "mrrmse_zeros", "mrrmse_oracle")
    return json.dumps({key: facts[key] for key in keys})
