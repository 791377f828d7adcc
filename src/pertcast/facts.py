"""What is handed in: the file, what its reader may ask later, and what a reader of its score must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from pertcast import __version__
from pertcast import submission as csv
from pertcast.errors import shorten
from pertcast.io.tables import Competition
from pertcast.preflight import is_folder
from pertcast.runs import Run
from pertcast.schema import DE_TRAIN
from pertcast.types import Floats, Ints, Question


def write_checked(
    competition: Competition, values: Floats, out: Path, *, name: str, style: str, cv_score: float, told: dict
) -> Path:
    """Write predictions (m, g) in the form asked for, and read them back to be sure that they are accepted.

    The benchmark's responses have a range, which its metrics do not enforce: predictions are clipped to the largest
    size of a training response.
    """
    ids, genes = competition.test["id"].to_numpy(), competition.submission_genes
    column = {gene: i for i, gene in enumerate(competition.genes)}
    values = values[:, [column[gene] for gene in genes]]
    if style == "openproblems":
        path = out / "prediction.h5ad" if is_folder(out) else out
        _write_openproblems(path, competition, values, method_id=f"pertcast_{name}")
        return path
    if is_folder(out):
        today = date.today()
        path = csv.publish(
            out, ids=ids, genes=genes, values=values, name=name, cv_score=cv_score, facts=told, today=today
        )
    else:
        path = csv.write_with_facts(out, ids=ids, genes=genes, values=values, facts=told)
    csv.validate_submission(path, ids=ids, genes=genes)
    return path


def _write_openproblems(path: Path, competition: Competition, values: Floats, *, method_id: str) -> None:
    from pertcast.io import cells

    train = competition.folder / DE_TRAIN.files[-1]
    name = cells.dataset_id(train) if train.exists() else None
    limit = np.abs(competition.y).max()
    ids, genes = competition.test["id"].to_numpy(), competition.submission_genes
    cells.write_openproblems_prediction(
        path,
        ids=ids,
        genes=genes,
        values=np.clip(values, -limit, limit),
        dataset_id=name or competition.folder.resolve().name,
        method_id=method_id,
    )
    cells.read_openproblems_prediction(path, ids=ids, genes=genes)


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
