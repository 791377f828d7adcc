"""What a reader of a submission may ask later, and what a reader of its score must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pertcast import __version__
from pertcast.errors import shorten
from pertcast.io.tables import Competition
from pertcast.runs import Run
from pertcast.types import Ints, Question


def facts(
    competition: Competition, question: Question, runs: Sequence[Run], *, blended: Mapping[str, object], cv: object
) -> dict[str, object]:
    """Say what was blended how (`blended`), on which data, with which scores (`cv`)."""
    return {
        "pertcast": __version__,
        "data": competition.digest,
        "simulated": competition.simulated,
        "runs": [run.folder.name for run in runs],
        "recipes": [run.recipe.model_dump(mode="json") for run in runs],
        **blended,
        "cv": cv,
        "remarks": remarks(competition, question),
        "from_cell_type_alone": [int(i) for i in _without_structure(competition, question)],
    }


def remarks(competition: Competition, question: Question) -> list[str]:
    """Say what a reader of the score must know: simulated data, compounds that training never saw."""
    lines = ["The data are simulated: no score here says anything about real cells."] if competition.simulated else []
    if competition.unknown_compounds:
        unseen = np.isin(question.test_compound, competition.unknown_compounds)
        bare = _without_structure(competition, question)
        names = f"{len(competition.unknown_compounds)} compounds that training never saw"
        lines.append(f"{unseen.sum()} of {len(unseen)} rows ask for {names}: {shorten(competition.unknown_compounds)}.")
        if len(bare):
            rows = f"Rows without a SMILES, predicted from the cell type alone: {len(bare)}"
            lines.append(f"{rows}, id {shorten(bare, most=20)}.")
    return lines


def _without_structure(competition: Competition, question: Question) -> Ints:
    """Find the ids of the rows of whose compound nothing is known but the name."""
    unseen = np.isin(question.test_compound, competition.unknown_compounds)
    return question.test_ids[unseen & np.array([not isinstance(s, str) for s in question.test_smiles])]
