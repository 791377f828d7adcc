"""Structures as drawings."""

import re
from xml.etree import ElementTree

import pytest
from rdkit import Chem

from pertcast.app.molecule import molecule_svg
from pertcast.errors import InputError


@pytest.mark.parametrize("smiles", ["CC(=O)Oc1ccccc1C(=O)O", "C", "[Na+].[Cl-]", "C[C@H](N)C(=O)O"])
def test_every_bond_is_drawn(smiles):
    """A well-formed SVG; RDKit gives each bond of the molecule a class of its own."""
    drawing = molecule_svg(smiles)
    assert ElementTree.fromstring(drawing).tag.endswith("svg")
    bonds = {int(number) for number in re.findall(r"bond-(\d+)", drawing)}
    assert bonds == set(range(Chem.MolFromSmiles(smiles).GetNumBonds()))


@pytest.mark.parametrize("smiles", ["", "C1CC", "hello", "<script>alert(1)</script>"])
def test_what_is_no_structure_is_refused(smiles, capfd):
    with pytest.raises(InputError, match="is no SMILES that can be parsed"):
        molecule_svg(smiles)
    assert capfd.readouterr().err == ""
