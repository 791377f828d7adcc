"""The single tables of a competition folder, each read with all its faults."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertcast import schema
from pertcast.errors import InputError, several, shorten, unknown
from pertcast.io.narrow import counted, csv_header, read_text, row_name, text_frame, typed
from pertcast.io.wide import Wide, gene_columns, not_finite, read_wide
from pertcast.schema import CELL_TYPE, ID, SMILES, Table

_FIX = "Rows are counted from 0, without the header. What every column must hold stands in data/README.md."


def title(table: Table, path: Path) -> str:
    return f"Table '{table.name}' ({path})"


def note(faults: list[str], table: Table, path: Path, problems: list[str]) -> None:
    if problems:
        faults.append(several(title(table, path), problems, fix=_FIX))


def refuse(table: Table, path: Path, problems: list[str]) -> None:
    if problems:
        raise InputError(several(title(table, path), problems, fix=_FIX))


def find(folder: Path, table: Table) -> Path | None:
    return next((folder / name for name in table.files if (folder / name).exists()), None)


def check_folder(folder: Path) -> None:
    """Raise InputError unless `folder` is a folder that may be read and holds something."""
    fix = "Give the folder that holds the competition's files"
    if folder.is_file():
        raise InputError(f"'{folder}' is a file, not a folder. {fix}.")
    try:
        empty = not any(not item.name.startswith(".") for item in folder.iterdir())
    except OSError as error:
        raise InputError(f"Folder '{folder}' cannot be read: {error.strerror}. {fix}.") from error
    if empty:
        wanted = f"{schema.DE_TRAIN.file} and {schema.ID_MAP.file}"
        raise InputError(f"Folder '{folder}' is empty, expected {wanted}. {fix}, or make some with `pertcast demo`.")


def find_train(folder: Path) -> Path:
    """Return the path of the training table in whichever form it is there."""
    path = find(folder, schema.DE_TRAIN)
    if path is None:
        got = shorten(item.name for item in sorted(folder.iterdir()))
        wanted = " or ".join(schema.DE_TRAIN.files)
        raise InputError(f"Folder '{folder}' has no training table: expected {wanted}, got {got}. Put the file there.")
    return path


def read_train(folder: Path, layer: str | None, faults: list[str]) -> Wide:
    path = find_train(folder)
    if layer is not None:
        path = folder / schema.DE_TRAIN.files[-1]
        if not path.exists():
            missing = f"has no {path.name}, which the layer '{layer}' was asked of"
            raise InputError(f"Folder '{folder}' {missing}. Name no layer, or put the file there.")
    if path.suffix == ".h5ad":
        wide = _read_h5ad(path, layer or schema.DEFAULT_LAYER)
    else:
        wide = read_wide(path, schema.DE_TRAIN)
    problems = wide.problems + _unparseable(wide.keys, schema.DE_TRAIN.key)
    note(faults, schema.DE_TRAIN, path, problems)
    return wide


def _read_h5ad(path: Path, layer: str) -> Wide:
    from pertcast.io.cells import read_openproblems

    obs, values, genes = read_openproblems(path, layer)
    columns = [column.name for column in schema.DE_TRAIN.columns if column.name in obs.columns]
    frame, problems = typed(text_frame(obs[columns]), schema.DE_TRAIN)
    _, gene_problems = gene_columns([*columns, *genes], schema.DE_TRAIN)
    problems += gene_problems + not_finite(values, genes, frame, schema.DE_TRAIN.key)
    return Wide(path, frame, genes, values, problems)


def read_test(
    folder: Path, train: pd.DataFrame | None, baseline: pd.DataFrame | None, faults: list[str]
) -> pd.DataFrame:
    """Read the pairs to predict; their cell types must be those of training, or described by their untreated cells."""
    path = folder / schema.ID_MAP.file
    test, problems = typed(read_text(path), schema.ID_MAP)
    if train is not None and CELL_TYPE in train.columns and CELL_TYPE in test.columns:
        described = set() if baseline is None else set(baseline.index)
        problems += _unseen_cell_types(test, sorted(described.union(train[CELL_TYPE].dropna())))
    problems += _unparseable(test, schema.ID_MAP.key)
    note(faults, schema.ID_MAP, path, problems)
    return test


def _unseen_cell_types(test: pd.DataFrame, known: list[str]) -> list[str]:
    unseen = test[CELL_TYPE].notna() & ~test[CELL_TYPE].isin(known)
    problems = []
    for cell_type, rows in test[unseen].groupby(CELL_TYPE, sort=True).groups.items():
        first = row_name(test, int(rows[0]), schema.ID_MAP.key)
        what = f"neither de_train nor cell_baseline has the cell type of {counted(len(rows), 'row')}, first {first}"
        problems.append(f"{what}: {unknown('cell type', cell_type, known)}")
    return problems


def read_compounds(folder: Path, faults: list[str]) -> pd.DataFrame | None:
    path = find(folder, schema.COMPOUNDS)
    if path is None:
        return None
    frame, problems = typed(read_text(path), schema.COMPOUNDS)
    note(faults, schema.COMPOUNDS, path, problems + _unparseable(frame, schema.COMPOUNDS.key))
    return frame


def read_baseline(folder: Path, faults: list[str]) -> pd.DataFrame | None:
    path = find(folder, schema.CELL_BASELINE)
    if path is None:
        return None
    wide = read_wide(path, schema.CELL_BASELINE)
    note(faults, schema.CELL_BASELINE, path, wide.problems)
    if wide.problems:
        return None
    return pd.DataFrame(wide.values, index=pd.Index(wide.keys[CELL_TYPE], name=CELL_TYPE), columns=list(wide.genes))


def read_accessibility(folder: Path, faults: list[str]) -> pd.DataFrame | None:
    """Read accessibility as a row per cell type, one float32 column per peak."""
    path = find(folder, schema.CELL_ACCESSIBILITY)
    if path is None:
        return None
    table = replace(schema.CELL_ACCESSIBILITY, genes=True)  # its number columns are cell types
    wide = read_wide(path, table)
    note(faults, table, path, wide.problems)
    return None if wide.problems else pd.DataFrame(wide.values.T, index=pd.Index(wide.genes, name=CELL_TYPE))


def read_reliability(folder: Path, train: pd.DataFrame | None, faults: list[str]) -> NDArray[np.float64] | None:
    """Read how far each row of the training table (n, ..) can be trusted: (n,), from 0 to 1; None without a file."""
    path = find(folder, schema.DE_ROWS)
    if path is None or train is None:
        return None
    frame, problems = typed(read_text(path), schema.DE_ROWS)
    key = list(schema.DE_ROWS.key)
    values = np.zeros(len(train))
    if not problems and set(key) <= set(train.columns):
        if not frame["reliability"].between(0, 1).all():
            problems.append("column 'reliability' must be between 0 and 1")
        found = train[key].merge(frame, how="left", on=key)["reliability"]
        if found.isna().any():
            first = row_name(train, int(found.isna().argmax()), schema.DE_ROWS.key)
            problems.append(f"{counted(found.isna().sum(), 'row')} of de_train are missing: {first}")
        elif not found.any():
            problems.append("every row has the reliability 0")
        values = found.to_numpy(float)
    note(faults, schema.DE_ROWS, path, problems)
    return None if problems else values


def read_simulated(folder: Path) -> bool:
    path = folder / "truth.json"
    if not path.exists():
        return False
    try:
        return json.loads(path.read_text(encoding="utf-8"))["simulated"] is True
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"'{path}' does not say if the data are simulated: {error}. Make the data again.") from error


def submission_genes(folder: Path, genes: tuple[str, ...], ids: NDArray, faults: list[str]) -> tuple[str, ...]:
    """Return the genes in the order of sample_submission.csv, or of de_train where there is none."""
    path = find(folder, schema.SAMPLE_SUBMISSION)
    if path is None:
        return genes
    header = csv_header(path)
    ordered, problems = gene_columns(header, schema.SAMPLE_SUBMISSION)
    problems += differences("gene column", ordered, genes, where="de_train")
    if ID not in header:
        problems.append(f"column '{ID}' is missing; its first column is '{header[0]}'")
    else:
        frame, faults_of_ids = typed(read_text(path, columns=[ID]), schema.SAMPLE_SUBMISSION)
        problems += faults_of_ids or differences("id", frame[ID], ids, where="id_map")
    note(faults, schema.SAMPLE_SUBMISSION, path, problems)
    return ordered


def differences(kind: str, got, wanted, *, where: str) -> list[str]:
    got, wanted = dict.fromkeys(got), dict.fromkeys(wanted)
    missing = [item for item in wanted if item not in got]
    extra = [item for item in got if item not in wanted]
    problems = [f"{counted(len(missing), kind)} of {where} missing: {shorten(missing)}"] if missing else []
    return problems + ([f"{counted(len(extra), kind)} not in {where}: {shorten(extra)}"] if extra else [])


def _unparseable(frame: pd.DataFrame, key: tuple[str, ...]) -> list[str]:
    """Say which structures RDKit cannot read."""
    if SMILES not in frame.columns:
        return []
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        unique = frame[SMILES].dropna().unique()
        wrong = [smiles for smiles in unique if Chem.MolFromSmiles(smiles) is None]
    if not wrong:
        return []
    rows = np.flatnonzero(frame[SMILES].isin(wrong))
    first = f"'{frame[SMILES].iloc[rows[0]]}' at {row_name(frame, int(rows[0]), key)}"
    return [f"{counted(len(wrong), 'SMILES string')} in {counted(len(rows), 'row')} cannot be parsed: first {first}"]
