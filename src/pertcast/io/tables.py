"""The folder of a competition, read into one frozen object: names matched, everything checked, all faults at once."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertcast import schema
from pertcast.errors import InputError, shorten
from pertcast.io import parts
from pertcast.io.atomic import digest_file
from pertcast.io.narrow import read_text, typed
from pertcast.io.wide import Wide, column_names, gene_columns, read_wide
from pertcast.schema import CELL_TYPE, COMPOUND, COMPOUND_ID, ID, SMILES, Table
from pertcast.types import Profiles, Question

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Competition:
    """All that a competition folder holds, aligned by name."""

    folder: Path
    genes: tuple[str, ...]  # (g,)  the order of the columns of de_train
    submission_genes: tuple[str, ...]  # (g,)  the same genes in the order of a submission's columns
    train: pd.DataFrame  # (n, 5)  cell_type, sm_name, sm_lincs_id, SMILES, control; index 0..n-1
    y: NDArray[np.float32]  # (n, g)
    test: pd.DataFrame  # (m, 5)  id, cell_type, sm_name, sm_lincs_id, SMILES; the last two None where unknown
    compounds: pd.DataFrame | None  # (k, ...)  sm_lincs_id and whatever else is known
    cell_baseline: pd.DataFrame | None  # index cell_type, one float32 column per gene
    cell_accessibility: pd.DataFrame | None  # index cell_type, one float32 column per peak
    reliability: NDArray[np.float64] | None  # (n,)  of the training rows, between 0 and 1
    cells: Path | None  # h5ad with single cells
    simulated: bool
    digest: str  # sha256 of the content, whatever the form of the files or their dates
    unknown_compounds: tuple[str, ...]  # to be predicted, absent from training


@dataclass(frozen=True, slots=True)
class Template:
    """What a submission must hold."""

    ids: NDArray[np.int64]  # (m,)
    genes: tuple[str, ...]  # (g,)


@dataclass(frozen=True, slots=True)
class Solution:
    """The truth of the pairs to predict."""

    ids: NDArray[np.int64]  # (m,)
    genes: tuple[str, ...]  # (g,)
    usage: NDArray[np.object_]  # (m,)  Public or Private
    y: NDArray[np.float32]  # (m, g)


def read_competition(folder: Path, *, layer: str | None = None) -> Competition:
    """Read and check a competition folder in the Kaggle form (Parquet or CSV) or the OpenProblems form (h5ad).

    layer       which layer of `de_train.h5ad` holds the target; None: clipped signed log10 p
    Raises InputError that lists every fault of every table.
    """
    competition, faults = _read(Path(folder), layer)
    if competition is None:
        raise InputError("\n".join(faults))
    return competition


def question_of(competition: Competition) -> Question:
    """Turn the tables of a competition into arrays."""
    train, test = competition.train, competition.test
    columns = (schema.CELL_TYPE, schema.COMPOUND, schema.SMILES)
    return Question(
        competition.genes,
        *(train[name].to_numpy(object) for name in columns),
        competition.y,
        test[schema.ID].to_numpy(),
        *(test[name].to_numpy(object) for name in columns),
        contexts={
            name: Profiles(table.index.to_numpy(object), table.to_numpy(np.float32))
            for name in schema.CONTEXTS
            if (table := getattr(competition, name)) is not None
        },
        reliability=competition.reliability,
        cells=competition.cells,
        annotations=_annotations(competition),
    )


def _annotations(competition: Competition) -> dict[str, frozenset[str]]:
    """Collect mechanisms and targets of the compounds trained on or asked for, found by LINCS id, else by name."""
    table = competition.compounds
    told = [] if table is None else [name for name in (schema.MOA, schema.TARGET) if name in table.columns]
    if not told:
        return {}
    by_key: dict[str, frozenset[str]] = {}
    for key in (COMPOUND, COMPOUND_ID):
        if key in table.columns:
            terms = (_terms(dict(zip(told, row, strict=True))) for row in table[told].itertuples(index=False))
            by_key |= {str(name): own for name, own in zip(table[key], terms, strict=True) if own}
    asked = pd.concat([competition.train, competition.test])[[COMPOUND, COMPOUND_ID]].drop_duplicates(COMPOUND)
    found = {name: by_key.get(str(own), by_key.get(name)) for name, own in asked.itertuples(index=False)}
    return {name: terms for name, terms in found.items() if terms}


def _terms(row: dict[str, object]) -> frozenset[str]:
    """Set what a row tells apart: {'moa: cdk inhibitor', 'target: cdk1', ...}."""
    return frozenset(
        f"{column}: {term.strip().casefold()}"
        for column, text in row.items()
        if isinstance(text, str)
        for term in text.split("|")
        if term.strip()
    )


def check_competition(folder: Path, *, layer: str | None = None) -> list[str]:
    """Return all faults of a competition folder, one message per table; none when the folder is fine."""
    try:
        return _read(Path(folder), layer)[1]
    except InputError as error:
        return [str(error)]


def read_template(folder: Path) -> Template:
    """Read which rows and genes a submission needs, without reading any measurement.

    Raises InputError when the folder does not say.
    """
    folder = Path(folder)
    parts.check_folder(folder)
    path = parts.find_train(folder)
    if path.suffix == ".h5ad":
        from pertcast.io.cells import gene_names

        genes, problems = gene_names(path), []
    else:
        genes, problems = gene_columns(column_names(path), schema.DE_TRAIN)
    parts.refuse(schema.DE_TRAIN, path, problems)
    test, problems = typed(read_text(folder / schema.ID_MAP.file), schema.ID_MAP)
    parts.refuse(schema.ID_MAP, folder / schema.ID_MAP.file, problems)
    ids = test[ID].to_numpy()
    faults: list[str] = []
    ordered = parts.submission_genes(folder, genes, ids, faults)
    if faults:
        raise InputError("\n".join(faults))
    return Template(ids, ordered)


def read_solution(path: Path, *, genes: tuple[str, ...] | None = None, ids: NDArray | None = None) -> Solution:
    """Read the truth, rows in the order of `ids` and columns in the order of `genes` (None: as in the file).

    Raises InputError when rows or genes are missing or too many, or a value is not finite.
    """
    wide = _read_whole(Path(path), schema.SOLUTION)
    rows, columns = _alignment(wide, schema.SOLUTION, ids=ids, genes=genes)
    return Solution(
        ids=wide.keys[ID].to_numpy()[rows],
        genes=tuple(wide.genes) if genes is None else tuple(genes),
        usage=wide.keys[schema.USAGE].to_numpy()[rows],
        y=wide.values[np.ix_(rows, columns)],
    )


def read_predictions(path: Path, *, ids: NDArray, genes: tuple[str, ...]) -> NDArray[np.float32]:
    """Read a table of `id` and one column per gene, Parquet or CSV: (m, g), rows as `ids`, columns as `genes`.

    Raises InputError when rows or genes are missing or too many, or a value is not finite.
    """
    wide = _read_whole(Path(path), schema.SUBMISSION)
    rows, columns = _alignment(wide, schema.SUBMISSION, ids=ids, genes=genes)
    return wide.values[np.ix_(rows, columns)]


def _read(folder: Path, layer: str | None) -> tuple[Competition | None, list[str]]:
    parts.check_folder(folder)
    faults: list[str] = []
    train = _attempt(faults, parts.read_train, folder, layer, faults)
    baseline = _attempt(faults, parts.read_baseline, folder, faults)
    test = _attempt(faults, parts.read_test, folder, None if train is None else train.keys, baseline, faults)
    reliability = _attempt(faults, parts.read_reliability, folder, None if train is None else train.keys, faults)
    accessibility = _attempt(faults, parts.read_accessibility, folder, faults)
    compounds = _attempt(faults, parts.read_compounds, folder, faults)
    simulated = _attempt(faults, parts.read_simulated, folder)
    genes: tuple[str, ...] = ()
    if train is not None and test is not None and ID in test.columns:
        genes = _attempt(faults, parts.submission_genes, folder, train.genes, test[ID].to_numpy(), faults)
    if faults:
        return None, faults
    test = _with_structures(test, train.keys, compounds)
    trust = None if reliability is None else pd.DataFrame({"reliability": reliability})
    rare = [table for table in (accessibility, trust) if table is not None]  # folders without keep their digests
    cells = folder / schema.CELLS_FILE
    digest = _digest(train, test, compounds, baseline, *rare, cells=cells)
    known = set(train.keys[COMPOUND])
    return Competition(
        folder=folder,
        genes=train.genes,
        submission_genes=genes,
        train=_one_structure_each(train.keys),
        y=train.values,
        test=test,
        compounds=compounds,
        cell_baseline=baseline,
        cell_accessibility=accessibility,
        reliability=reliability,
        simulated=simulated,
        cells=cells if cells.is_file() else None,
        digest=digest,
        unknown_compounds=tuple(name for name in dict.fromkeys(test[COMPOUND]) if name not in known),
    ), []


def _attempt(faults: list[str], read, *arguments):
    """Call a reader; when it cannot read at all, note why and go on with the next table."""
    try:
        return read(*arguments)
    except InputError as error:
        faults.append(str(error))
        return None


def _read_whole(path: Path, table: Table) -> Wide:
    wide = read_wide(path, table)
    parts.refuse(table, path, wide.problems)
    return wide


def _alignment(wide: Wide, table: Table, *, ids: NDArray | None, genes: tuple[str, ...] | None):
    """Find where in the file the wanted rows and genes stand: (m,), (g,)."""
    have_ids = wide.keys[ID].tolist()
    want_ids = have_ids if ids is None else list(ids)
    want_genes = wide.genes if genes is None else genes
    problems = parts.differences("gene column", wide.genes, want_genes, where="what is wanted")
    problems += parts.differences("id", have_ids, want_ids, where="what is wanted")
    parts.refuse(table, wide.path, problems)
    row_of, column_of = ({name: place for place, name in enumerate(names)} for names in (have_ids, wide.genes))
    return np.array([row_of[item] for item in want_ids]), np.array([column_of[gene] for gene in want_genes])


def _one_structure_each(train: pd.DataFrame) -> pd.DataFrame:
    """Give every row of a compound the SMILES of its first row; say so where they differ."""
    first = train.groupby(COMPOUND, sort=False)[SMILES].transform("first")
    differing = train.loc[first != train[SMILES], COMPOUND].unique()
    if len(differing):
        _log.warning("%d compounds have several SMILES; the first is used: %s", len(differing), shorten(differing))
    return train.assign(**{SMILES: first})


def _with_structures(test: pd.DataFrame, train: pd.DataFrame, compounds: pd.DataFrame | None) -> pd.DataFrame:
    """Fill structure and LINCS id of the pairs to predict: their own, else training's, else the compound table's."""
    filled = test[[ID, CELL_TYPE, COMPOUND]].copy()
    sources = [train] if compounds is None or COMPOUND not in compounds.columns else [train, compounds]
    for name in (COMPOUND_ID, SMILES):
        values = test[name] if name in test.columns else pd.Series(None, index=test.index, dtype=object)
        for source in sources:
            if name in source.columns:
                known = source.dropna(subset=[COMPOUND, name]).drop_duplicates(COMPOUND).set_index(COMPOUND)[name]
                values = values.where(values.notna(), test[COMPOUND].map(known))
        filled[name] = values.astype(object).where(values.notna(), None)
    return filled


def _digest(train: Wide, *tables: pd.DataFrame | None, cells: Path) -> str:
    digest = hashlib.sha256()
    for part in (train.keys, *tables):
        digest.update(b"none" if part is None else part.to_json(orient="split", double_precision=15).encode())
    digest.update("\n".join(train.genes).encode())
    digest.update(np.ascontiguousarray(train.values).tobytes())
    if cells.is_file():
        digest.update(digest_file(cells).encode())
    return digest.hexdigest()
