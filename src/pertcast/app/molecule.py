"""A structure as a drawing."""

from __future__ import annotations

from pertcast.errors import InputError


def molecule_svg(smiles: str, *, width: int = 340, height: int = 240) -> str:
    """Draw a structure as SVG on a transparent ground, in pixels. Raises InputError if the SMILES cannot be parsed.

    Source: RDKit, https://www.rdkit.org.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem.Draw import rdMolDraw2D

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        raise InputError(f"'{smiles}' is no SMILES that can be parsed. Check ring closures, brackets and valences.")
    drawing = rdMolDraw2D.MolDraw2DSVG(width, height)
    drawing.drawOptions().clearBackground = False
    rdMolDraw2D.PrepareAndDrawMolecule(drawing, molecule)
    drawing.FinishDrawing()
    return drawing.GetDrawingText().partition("?>")[2].strip()  # a page takes no XML declaration
