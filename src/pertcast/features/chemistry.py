"""What the structure of a compound says: fingerprints, descriptors, similarity, clusters, scaffolds.

Static: nothing here can see a response. Every function takes the SMILES of u compounds, made unique and canonical by
`canonical_smiles`, so that each structure is computed once. Counter-ions and solvents are stripped first: a compound
is its largest fragment, whose charges RDKit can always compute.
Source: RDKit, https://www.rdkit.org; Morgan fingerprints: Rogers and Hahn 2010, doi:10.1021/ci100050t.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from pertcast.errors import InputError, several, unknown
from pertcast.types import Floats, Ints, Strings

if TYPE_CHECKING:
    from rdkit.Chem import Mol

CLIP = 5.0  # robust standard deviations
METHODS = ("complete", "butina")
REMEMBERED = 100_000  # canonical forms: some 20 MB
FIX = (
    "Write each structure as valid SMILES (check ring closures, brackets and valences), "
    "or ask for unparseable='missing' to go on without these structures."
)


def canonical(smiles: str) -> str:
    """Return RDKit's canonical SMILES. Raises InputError if it cannot be parsed."""
    from rdkit import Chem

    return Chem.MolToSmiles(_molecules([smiles])[0])


def canonical_smiles(
    names: Sequence[str], smiles: Sequence[str], *, unparseable: Literal["raise", "missing"] = "raise"
) -> Strings:
    """Bring the SMILES of a table into canonical form: (n,) strings, None where a structure is missing.

    names        (n,)  compound of each row, for the message
    smiles       (n,)  as in the table; a compound may occur in many rows
    unparseable        "raise": one InputError that names every compound whose SMILES is empty or cannot be parsed;
                       "missing": None for these
    """
    texts = [text if isinstance(text, str) else "" for text in smiles]  # an empty field is read as NaN or None
    forms = [_canonical_form(text) for text in texts]
    problems = dict.fromkeys(  # a set that keeps the order of the table
        f"compound '{name}' has {_fault(text)}"
        for name, text, form in zip(names, texts, forms, strict=True)
        if form is None
    )
    if problems and unparseable == "raise":
        raise InputError(several("The compound table", list(problems), fix=FIX))
    return np.array(forms, dtype=object)


def morgan_bits(smiles: Sequence[str], *, radius: int = 2, bits: int = 2048) -> Floats:
    """Morgan fingerprint, 1 where a substructure of up to `radius` bonds occurs: (u, bits) float32."""
    return _bits_of(_morgan(radius, bits), smiles)


def count_fingerprint(smiles: Sequence[str], *, radius: int = 2, bits: int = 2048) -> Floats:
    """Morgan fingerprint of counts, as log(1 + count): (u, bits) float32."""
    generator = _morgan(radius, bits)
    rows = [generator.GetCountFingerprintAsNumPy(parent) for parent in _parents(smiles)]
    return np.log1p(np.array(rows, np.float32).reshape(len(rows), bits))


def feature_bits(smiles: Sequence[str], *, radius: int = 2, bits: int = 2048) -> Floats:
    """Morgan fingerprint over roles of atoms (donor, acceptor, aromatic, ...) instead of elements: (u, bits) float32.

    Source: Gobbi and Poppinger 1998, doi:10.1002/(SICI)1097-0290(199824)61:1<47::AID-BIT9>3.0.CO;2-Z.
    """
    from rdkit.Chem import rdFingerprintGenerator as generators

    roles = generators.GetMorganFeatureAtomInvGen()
    return _bits_of(generators.GetMorganGenerator(radius=radius, fpSize=bits, atomInvariantsGenerator=roles), smiles)


def torsion_bits(smiles: Sequence[str], *, bits: int = 2048) -> Floats:
    """Fingerprint of paths of four atoms: (u, bits) float32.

    Source: Nilakantan et al. 1987, doi:10.1021/ci00054a008.
    """
    from rdkit.Chem import rdFingerprintGenerator as generators

    return _bits_of(generators.GetTopologicalTorsionGenerator(fpSize=bits), smiles)


def pair_bits(smiles: Sequence[str], *, bits: int = 2048) -> Floats:
    """Fingerprint of pairs of atoms and the bonds between: (u, bits) float32.

    Source: Carhart et al. 1985, doi:10.1021/ci00046a002.
    """
    from rdkit.Chem import rdFingerprintGenerator as generators

    return _bits_of(generators.GetAtomPairGenerator(fpSize=bits), smiles)


@dataclass(frozen=True, slots=True, eq=False)
class DescriptorScale:
    """Centre and spread of each descriptor, so that one more compound is scaled as the others were."""

    center: Floats  # (d,)  median of the finite values; 0 if there are none
    spread: Floats  # (d,)  interquartile range / 1.349, else standard deviation; 0 for a constant descriptor

    @classmethod
    def fit(cls, raw: Floats) -> DescriptorScale:
        columns = [column[np.isfinite(column)] for column in raw.T]
        center = np.array([np.median(column) if len(column) else 0.0 for column in columns])
        return cls(center, np.array([_robust_spread(column) for column in columns]))

    def apply(self, raw: Floats) -> Floats:
        """Scale, with the median in place of values that are not finite: (u, d) -> (u, d) float32 in [-5, 5]."""
        deviation = np.where(np.isfinite(raw), raw, self.center) - self.center
        scaled = np.divide(deviation, self.spread, out=np.zeros_like(deviation), where=self.spread > 0)
        return np.clip(scaled, -CLIP, CLIP).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class DescriptorTable:
    """RDKit's descriptors, scaled, and what had to be replaced on the way."""

    values: Floats  # (u, d)  float32, robust standard deviations from the median, in [-5, 5]
    names: tuple[str, ...]  # (d,)    always all descriptors of RDKit, in its order
    replaced: Mapping[str, int]  # descriptor -> number of compounds whose value was not finite; {} if none
    scale: DescriptorScale


def descriptors(smiles: Sequence[str], *, scale: DescriptorScale | None = None) -> DescriptorTable:
    """Compute and scale all descriptors of RDKit. The width depends on RDKit's version alone.

    scale   as fitted on other compounds; None: fitted on these
    """
    names, raw = raw_descriptors(smiles)
    scale = scale or DescriptorScale.fit(raw)
    faults = (~np.isfinite(raw)).sum(axis=0)  # (d,)
    replaced = {name: int(count) for name, count in zip(names, faults, strict=True) if count}
    return DescriptorTable(scale.apply(raw), names, replaced, scale)


def raw_descriptors(smiles: Sequence[str]) -> tuple[tuple[str, ...], Floats]:
    """Return the names (d,) and values (u, d) float64 of RDKit's descriptors; NaN or inf where one is undefined."""
    from rdkit import rdBase
    from rdkit.Chem import Descriptors

    names = tuple(name for name, _ in Descriptors.descList)
    raw = np.empty((len(smiles), len(names)))
    with rdBase.BlockLogs():
        for row, parent in enumerate(_parents(smiles)):
            raw[row] = list(Descriptors.CalcMolDescriptors(parent, missingVal=np.nan).values())
    return names, raw


def tanimoto(bits_a: Floats, bits_b: Floats) -> Floats:
    """Tanimoto similarity of binary fingerprints: (a, bits) and (b, bits) -> (a, b) float32 in [0, 1].

    Common bits over bits that either has; 0 where neither has any.
    """
    common = bits_a.astype(np.float32) @ bits_b.astype(np.float32).T  # exact: whole numbers below 2 ** 24
    either = bits_a.sum(axis=1)[:, None] + bits_b.sum(axis=1)[None, :] - common
    return np.divide(common, either, out=np.zeros_like(common), where=either > 0)


def cluster_ids(bits: Floats, *, method: Literal["complete", "butina"] = "complete", threshold: float = 0.8) -> Ints:
    """Group compounds by structure: (u, bits) -> (u,) cluster numbers, 0 for the cluster of the first compound.

    threshold   largest Tanimoto distance (1 - similarity): within a cluster for "complete" (agglomerative, complete
                linkage); to the cluster's centre for "butina" (doi:10.1021/ci9803381)
    """
    if method not in METHODS:
        raise InputError(unknown("clustering method", method, METHODS))
    if len(bits) < 2:
        return np.zeros(len(bits), int)
    distance = 1.0 - tanimoto(bits, bits).astype(np.float64)
    pairs = distance[np.triu_indices(len(bits), k=1)]  # condensed, as scipy orders it
    labels = _butina(distance, threshold) if method == "butina" else _complete_linkage(pairs, threshold)
    _, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes]


def scaffolds(smiles: Sequence[str]) -> Strings:
    """Bemis-Murcko scaffold of each compound, without stereochemistry: (u,) strings.

    A compound without rings has none; its own SMILES takes the place, so that it is a group of its own.
    Source: Bemis and Murcko 1996, doi:10.1021/jm9602928.
    """
    from rdkit import Chem
    from rdkit.Chem.Scaffolds import MurckoScaffold

    return np.array(
        [MurckoScaffold.MurckoScaffoldSmiles(mol=mol) or Chem.MolToSmiles(mol) for mol in _parents(smiles)],
        dtype=object,
    )


def inchikey_block(smiles: Sequence[str]) -> Strings:
    """First block of the InChIKey of each compound: (u,) strings, equal for stereoisomers, salts and charge states.

    Where InChI cannot express a structure, its SMILES without stereochemistry takes the place.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        blocks = [
            Chem.MolToInchiKey(mol).split("-")[0] or Chem.MolToSmiles(mol, isomericSmiles=False)
            for mol in _parents(smiles)
        ]
    return np.array(blocks, dtype=object)


@lru_cache(maxsize=REMEMBERED)
def _canonical_form(smiles: str) -> str | None:
    """Canonical SMILES, None where there is no structure; remembered: every unit of work asks for the same ones."""
    from rdkit import Chem

    molecule = _parse(smiles)
    return None if molecule is None else Chem.MolToSmiles(molecule)


def _parse(smiles: str) -> Mol | None:
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        return Chem.MolFromSmiles(smiles) if smiles.strip() else None


def _molecules(smiles: Sequence[str]) -> list[Mol]:
    molecules = [_parse(text) for text in smiles]
    problems = [_fault(text) for text, mol in zip(smiles, molecules, strict=True) if mol is None]
    if problems:
        raise InputError(several("The list of structures", problems, fix=FIX))
    return molecules


def _fault(smiles: str) -> str:
    return f"a SMILES that cannot be parsed: '{smiles}'" if smiles.strip() else "no SMILES"


def _parents(smiles: Sequence[str]) -> list[Mol]:
    """Parse, and keep the largest fragment of each: most heavy atoms, then heaviest, then first by SMILES."""
    from rdkit import Chem
    from rdkit.Chem.Descriptors import MolWt

    parents = []
    for molecule in _molecules(smiles):
        fragments = Chem.GetMolFrags(molecule, asMols=True)
        if len(fragments) == 1:
            parents.append(molecule)
        else:
            by_size = [(-part.GetNumHeavyAtoms(), -MolWt(part), Chem.MolToSmiles(part)) for part in fragments]
            parents.append(fragments[by_size.index(min(by_size))])
    return parents


def _morgan(radius: int, bits: int):
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=bits)


def _bits_of(generator, smiles: Sequence[str]) -> Floats:
    rows = [generator.GetFingerprintAsNumPy(parent) for parent in _parents(smiles)]
    return np.array(rows, np.float32).reshape(len(rows), generator.GetOptions().fpSize)


def _robust_spread(column: Floats) -> float:
    """Spread of the finite values of one descriptor; counts are mostly 0, where only the deviation tells them apart."""
    if not len(column):
        return 0.0
    low, high = np.quantile(column, [0.25, 0.75])
    return float((high - low) / 1.349 if high > low else column.std())


def _complete_linkage(pairs: Floats, threshold: float) -> Ints:
    from scipy.cluster.hierarchy import fcluster, linkage

    return fcluster(linkage(pairs, method="complete"), t=threshold, criterion="distance")


def _butina(distance: Floats, threshold: float) -> Ints:
    from rdkit.ML.Cluster import Butina

    n = len(distance)
    pairs = distance[np.tril_indices(n, k=-1)].tolist()  # row by row below the diagonal, as Butina reads it
    labels = np.empty(n, int)
    for label, members in enumerate(Butina.ClusterData(pairs, n, threshold, isDistData=True)):
        labels[list(members)] = label
    return labels
