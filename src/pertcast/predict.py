"""Predict any compound in any known cell type from a finished run, and say how far it is from what was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from pertcast import schema
from pertcast.engine.local import one_thread
from pertcast.errors import InputError, several, shorten, unknown
from pertcast.features import chemistry
from pertcast.features.fitted import Features
from pertcast.features.structures import CHEMISTRY
from pertcast.features.target_space import to_response
from pertcast.io.atomic import atomic_path
from pertcast.models.registry import build
from pertcast.runs import REFIT, Run, code_of
from pertcast.types import Floats, Strings
from pertcast.validation.cross_validate import predict_held_out

NEAREST = 3  # training compounds that are named
QUANTILE = 0.05  # of the training compounds' own nearest-neighbour similarities: below it a compound is out of domain
SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True, slots=True)
class Compound:
    """What is asked about: a structure, or a compound of training by its name."""

    smiles: str | None = None
    name: str | None = None

    @property
    def asked(self) -> str:
        return self.name or self.smiles or ""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The predicted response of one cell type to one compound, and what is known of the compound."""

    cell_type: str
    asked: str  # name or SMILES, as it was given
    compound: str | None  # the training compound that it is; None for one that training never saw
    smiles: str | None  # canonical
    genes: tuple[str, ...]
    values: Floats  # (g,)  in the unit of the response
    nearest: tuple[tuple[str, float], ...]  # training compounds and their Tanimoto similarity, most similar first
    threshold: float | None  # similarity below which a compound is out of domain; None where it cannot be told
    measured_in: tuple[str, ...]  # cell types in which training shows the compound
    reads_structure: bool  # whether the recipe has a block of compound structure

    @property
    def similarity(self) -> float | None:
        """Tanimoto similarity to the nearest training compound; None without a structure."""
        return self.nearest[0][1] if self.nearest else None

    @property
    def out_of_domain(self) -> bool | None:
        """Whether the compound is new and less similar to training than training compounds are to each other."""
        if self.compound is not None:
            return False
        return None if self.threshold is None or self.similarity is None else self.similarity < self.threshold

    def remarks(self) -> list[str]:
        """Say what a reader of the values must know."""
        remarks = []
        if self.cell_type in self.measured_in:
            remarks.append(f"{self.compound} was measured in {self.cell_type}: this is a fit of training rows.")
        if self.compound is None and not self.reads_structure:
            remarks.append("The recipe reads no structure: every compound that training never saw is predicted alike.")
        return remarks

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            "cell_type": self.cell_type,
            "asked": self.asked,
            "compound": self.compound,
            "smiles": self.smiles,
            "measured_in": self.measured_in,
            "nearest": [{"compound": name, "similarity": round(value, 6)} for name, value in self.nearest],
            "similarity": None if self.similarity is None else round(self.similarity, 6),
            "threshold": None if self.threshold is None else round(self.threshold, 6),
            "out_of_domain": self.out_of_domain,
            "remarks": self.remarks(),
            "genes": dict(zip(self.genes, map(float, self.values), strict=True)),
        }


class Forecaster:
    """The refits of a run, loaded once and averaged; nothing but the run's folder is read."""

    def __init__(self, run: Run):
        """Load a run. Raises InputError where it has no refit, or one in a form that this code does not read."""
        self.run, units = run, _refits(run)
        try:
            self.features = Features.load(units[0] / "features")
            self.models = [build(run.recipe.model, run.recipe.settings).load(unit / "checkpoint") for unit in units]
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            inputs = json.loads((units[0] / "inputs.json").read_text())
            if inputs["code"] == code_of(run.recipe):  # then it is no older form, but a defect of ours
                raise
            fix = "Run `pertcast cv` with the same recipe, data and --out again."
            told = f"was written by pertcast {inputs['pertcast']} with other code, and cannot be read: {error!r}"
            raise InputError(f"Run '{run.folder}' {told}. {fix}") from None

    def predict(self, cell_type: str, compounds: Sequence[Compound]) -> list[Forecast]:
        """Predict the response of one cell type to each compound.

        A structure that a training compound has (the same canonical SMILES, else the same first block of the InChIKey)
        is taken as that compound; any other is described as test compounds are that training never saw.
        Raises InputError for a cell type that training did not show and no block describes, a name that it did not
        show, and SMILES that cannot be parsed.
        """
        known = {*self.features.cell_types.names, *self.features.contexts.cell_types.names}
        if cell_type not in known:
            raise InputError(unknown("cell type", cell_type, known))
        names, structures = self._resolved(compounds)
        new = [f"new: {smiles}" if name is None else name for name, smiles in zip(names, structures, strict=True)]
        column = np.full(len(new), cell_type, dtype=object)
        values = self.values(column, np.array(new, dtype=object), np.array(structures, dtype=object))
        near = self.neighbours(structures)
        return [
            Forecast(
                cell_type=cell_type,
                asked=compound.asked,
                compound=name,
                smiles=None if smiles is None else chemistry.canonical(smiles),
                genes=self.features.genes,
                values=row,
                nearest=nearest,
                threshold=self.threshold,
                measured_in=self._measured_in(name),
                reads_structure=any(block in CHEMISTRY for block in self.features.names),
            )
            for compound, name, smiles, row, nearest in zip(compounds, names, structures, values, near, strict=True)
        ]

    def values(self, cell_type: Strings, compound: Strings, smiles: Strings) -> Floats:
        """Average what the refits say of rows (n,) described by names and structures: (n, g) float32."""
        recipe = self.run.recipe
        with one_thread():
            ids = np.arange(len(compound))
            rows = self.features.describe(ids, cell_type=cell_type, compound=compound, smiles=smiles)
            total = np.zeros((len(rows), len(self.features.genes)))
            for model in self.models:
                total += to_response(predict_held_out(model, rows, fitted_on=None), recipe).astype(np.float32)
        return (total / len(self.models)).astype(np.float32)

    @cached_property
    def threshold(self) -> float | None:
        """Similarity to its nearest other that all but 5 % of the training compounds reach; None for fewer than two.

        Compounds of one fingerprint (salts, stereoisomers) count as one.
        """
        different = np.unique(self._bits, axis=0)
        if len(different) < 2:
            return None
        similarity = chemistry.tanimoto(different, different)
        np.fill_diagonal(similarity, 0.0)
        return float(np.quantile(similarity.max(axis=1), QUANTILE))

    def neighbours(self, smiles: Sequence[str | None]) -> list[tuple[tuple[str, float], ...]]:
        """Name the nearest training compounds of each structure, with their Tanimoto similarity."""
        result = []
        for one in smiles:
            if one is None or not len(self._bits):
                result.append(())
                continue
            similarity = chemistry.tanimoto(chemistry.morgan_bits([one]), self._bits)[0]  # (u,)
            order = np.argsort(-similarity, kind="stable")[:NEAREST]
            result.append(tuple((self._named[i][0], float(similarity[i])) for i in order))
        return result

    @cached_property
    def _named(self) -> list[tuple[str, str]]:
        """Training compounds that have a structure: name and SMILES."""
        pairs = zip(self.features.compounds.names, self.features.smiles, strict=True)
        return [(name, smiles) for name, smiles in pairs if smiles is not None]

    @cached_property
    def _bits(self) -> Floats:
        return chemistry.morgan_bits([smiles for _, smiles in self._named])  # (u, bits)

    @cached_property
    def _by_structure(self) -> tuple[dict[str, int], dict[str, int]]:
        """Where in `_named` a canonical SMILES, and a first block of the InChIKey, stands first."""
        names, smiles = [name for name, _ in self._named], [text for _, text in self._named]
        keys = chemistry.canonical_smiles(names, smiles), chemistry.inchikey_block(smiles)
        by_smiles, by_block = ({key: i for i, key in reversed(list(enumerate(column)))} for column in keys)
        return by_smiles, by_block

    def _resolved(self, compounds: Sequence[Compound]) -> tuple[list[str | None], list[str | None]]:
        """Find the training compound that each is, if it is one, and the structure that stands for it."""
        written = [compound.smiles for compound in compounds if compound.smiles is not None]
        forms = dict(zip(written, chemistry.canonical_smiles(written, written, unparseable="missing"), strict=True))
        problems = [f"'{smiles}' cannot be parsed" for smiles, form in forms.items() if form is None]
        if problems:
            raise InputError(several("SMILES", problems, fix="Check ring closures, brackets and valences."))
        names, structures = [], []
        for compound in compounds:
            name = self._known_name(compound.name) if compound.smiles is None else self._name_of(forms[compound.smiles])
            names.append(name)
            known = None if name is None else self.features.smiles[self.features.compounds.names.index(name)]
            structures.append(compound.smiles if name is None else known)
        return names, structures

    def _name_of(self, smiles: str) -> str | None:
        by_smiles, by_block = self._by_structure
        place = by_smiles.get(smiles, by_block.get(chemistry.inchikey_block([smiles])[0]))
        return None if place is None else self._named[place][0]

    def _known_name(self, name: str | None) -> str:
        known = self.features.compounds.names
        if name in known:
            return name
        close = get_close_matches(str(name), known, n=3)
        hint = f" Did you mean {' or '.join(repr(one) for one in close)}?" if close else ""
        raise InputError(
            f"Unknown training compound '{name}'.{hint} The run was fitted on {len(known)} compounds, "
            f"such as {shorten(known, most=3)}. For any other compound give its structure with --smiles."
        )

    def _measured_in(self, name: str | None) -> tuple[str, ...]:
        code = self.features.compounds.encode([str(name)])[0]
        types = self.features.pairs[self.features.pairs[:, 1] == code, 0] if code else np.arange(0)
        return tuple(self.features.cell_types.names[i - 1] for i in sorted(set(types.tolist())))


def read_smiles_file(path: Path) -> list[Compound]:
    """Read one compound a line: a SMILES and, after a space or tab, anything else; empty and `#` lines are skipped.

    Raises InputError where the file cannot be read or holds no compound.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"File '{path}' cannot be read: {error}. Give a text file with one SMILES a line.") from None
    found = [Compound(smiles=words[0]) for words in lines if words and not words[0].startswith("#")]
    if not found:
        raise InputError(f"File '{path}' holds no compound. Write one SMILES a line.")
    return found


def check_suffix(path: Path) -> None:
    """Refuse a file to write to whose form is not known."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"Predictions are written as {' or '.join(SUFFIXES)}, got '{path}'. Change its ending.")


def write_forecasts(path: Path, forecasts: Sequence[Forecast]) -> None:
    """Write a row per compound: who it is, how far from training, and a column per gene."""
    check_suffix(path)
    first = {
        schema.CELL_TYPE: [f.cell_type for f in forecasts],
        schema.COMPOUND: [f.compound or f.asked for f in forecasts],
        schema.SMILES: [f.smiles for f in forecasts],
        "similarity": [f.similarity for f in forecasts],
        "out_of_domain": [f.out_of_domain for f in forecasts],
    }
    values = pd.DataFrame(np.stack([f.values for f in forecasts]), columns=list(forecasts[0].genes))
    table = pd.concat([pd.DataFrame(first), values], axis=1)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False) if path.suffix == ".csv" else table.to_parquet(temporary, index=False)


def _refits(run: Run) -> list[Path]:
    """Find the refits to average: those made by the same code as the first, which every command makes."""
    units = run.units(REFIT)
    fix = "Run `pertcast cv` with the same recipe, data and --out again; what is finished is kept."
    if not units:
        raise InputError(f"Run '{run.folder}' has no finished refit on all training rows. {fix}")
    if not (units[0] / "features").is_dir():
        raise InputError(f"Run '{run.folder}' was made before features were kept with it. {fix}")
    code = [json.loads((unit / "inputs.json").read_text())["code"] for unit in units]
    return [unit for unit, own in zip(units, code, strict=True) if own == code[0]]
