"""Made-up compounds with real structures: one scaffold, two substituents, joined and canonicalised by RDKit."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from rdkit import Chem

from pertcast.errors import InputError
from pertcast.types import Strings

# {a} and {b} are the two places for a substituent. Ring closures 1 to 3 belong to scaffolds, 8 to substituents.
SCAFFOLDS = (
    "c1({a})nc2cc({b})ccc2[nH]1",  # benzimidazole
    "c1({a})cc2cc({b})ccc2[nH]1",  # indole
    "c1({a})ccc2cc({b})ccc2n1",  # quinoline
    "c1({a})ncnc2cc({b})ccc12",  # quinazoline
    "c1({a})ncnc2[nH]nc({b})c12",  # pyrazolopyrimidine
    "c1({a})nc({b})c2[nH]cnc2n1",  # purine
    "O=C(Nc1ccc({a})cc1)c1ccc({b})cc1",  # benzanilide
    "O=S(=O)(Nc1ccc({a})cc1)c1ccc({b})cc1",  # aryl sulfonamide
    "O=c1oc2cc({a})ccc2cc1({b})",  # coumarin
    "c1({a})nc(-c2ccc({b})cc2)cs1",  # aryl thiazole
    "ONC(=O)CCCCC(=O)Nc1cc({a})cc({b})c1",  # hydroxamic acid
    "O=C(/C=C/c1ccc({a})cc1)c1ccc({b})cc1",  # chalcone
    "O=C(N1CCN(c2ccc({a})cc2)CC1)c1ccc({b})cc1",  # aryl piperazine
    "CC12CCC(=O)C=C1CCC1C2C({a})CC2(C)C({b})CCC12",  # steroid
)
SUBSTITUENTS = (
    "[H]", "C", "F", "Cl", "OC", "N(C)C", "C(F)(F)F", "C#N",
    "O", "N", "CC", "C(C)C", "N8CCOCC8", "C(N)=O", "S(C)(=O)=O", "OCCOC",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Compound:
    """One made-up compound and the parts that decide what it does."""

    name: str  # sm_name, "DEMO-001"
    lincs_id: str  # sm_lincs_id, "DM-0001"
    smiles: str  # canonical
    scaffold: int  # index in SCAFFOLDS
    left: int  # index in SUBSTITUENTS, at {a}
    right: int  # at {b}


def build_compounds(n: int, *, rng: np.random.Generator) -> tuple[Compound, ...]:
    """Draw n distinct compounds, evenly over scaffolds, in an order that says nothing about the structure.

    Few compounds share few scaffolds and substituents, so that every part recurs and can be learnt from.
    Raises InputError when n exceeds what the parts can build.
    """
    scaffolds = rng.permutation(len(SCAFFOLDS))[: max(2, n // 3)]
    substituents = rng.permutation(len(SUBSTITUENTS))[: max(4, n // 4)]
    queues = [_distinct(scaffold, substituents, rng=rng) for scaffold in scaffolds]
    parts = [parts for one_of_each in zip(*queues, strict=True) for parts in one_of_each]
    parts = list({smiles: (smiles, *rest) for smiles, *rest in parts}.values())
    if n > len(parts):
        raise InputError(f"Demo compounds: {n} were asked for, {len(parts)} can be built. Ask for fewer.")
    parts = [parts[i] for i in rng.permutation(n)]
    width = max(3, len(str(n)))
    return tuple(Compound(f"DEMO-{i:0{width}d}", f"DM-{i:04d}", *part) for i, part in enumerate(parts, start=1))


def _distinct(scaffold: int, substituents: Sequence[int], *, rng: np.random.Generator) -> list[tuple]:
    """Return all (smiles, scaffold, left, right) of one scaffold, shuffled."""
    pairs = list(product(substituents, substituents))
    shuffled = (pairs[i] for i in rng.permutation(len(pairs)))
    return [(join(scaffold, left, right), int(scaffold), int(left), int(right)) for left, right in shuffled]


def join(scaffold: int, left: int, right: int) -> str:
    """Return the canonical SMILES of a scaffold with its two substituents."""
    smiles = SCAFFOLDS[scaffold].format(a=SUBSTITUENTS[left], b=SUBSTITUENTS[right])
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise ValueError(f"Scaffold {scaffold} with substituents {left} and {right} is no molecule: {smiles}")
    return Chem.MolToSmiles(molecule)


def column(compounds: Sequence[Compound], field: str) -> Strings:
    """Return one field of every compound as an array."""
    return np.array([getattr(compound, field) for compound in compounds], dtype=object)
