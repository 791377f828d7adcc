"""What the compound page asks of runs: which ones can answer, what they say, and as which tables it is shown."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pertcast.errors import InputError
from pertcast.features.structures import CHEMISTRY
from pertcast.leaderboard import read_boards
from pertcast.predict import Compound, Forecast, Forecaster
from pertcast.runs import REFIT, Run, open_run


def answering_runs(folder: Path) -> list[Run]:
    """List the runs of a folder that can predict any compound: those that read its structure first, then by name.

    Raises InputError where there is none.
    """
    folders = sorted({path.parents[3] for path in folder.glob(f"*/*/{REFIT}/seed*/features")})
    if not folders:
        fix = "`pertcast cv ridge-chemistry --data DIR --out RUNS` makes one."
        raise InputError(f"'{folder}' holds no run that can predict compounds. {fix}")
    return sorted((open_run(one) for one in folders), key=lambda run: not reads_structure(run))


def reads_structure(run: Run) -> bool:
    """Whether compounds that training never saw are told apart."""
    return any(block in CHEMISTRY for block in run.recipe.features.blocks)


def ask(forecaster: Forecaster, cell_type: str, text: str) -> Forecast:
    """Predict one compound, given by the name of a training compound or by its structure.

    Raises InputError for a text that is empty, or neither of the two.
    """
    text = text.strip()
    if not text:
        raise InputError("No compound is named. Type a SMILES, or the name of a training compound.")
    known = text in forecaster.features.compounds.names
    (found,) = forecaster.predict(cell_type, [Compound(name=text) if known else Compound(smiles=text)])
    return found


def standing_of(run: Run, folder: Path) -> str:
    """Say how the run did on held-out rows, beside floor and ceiling; nothing where no table tells."""
    for board in read_boards(folder):
        own = [one for one in board.standings if one.run == run.folder.name]
        if not own:
            continue
        marks = [f"{one.name} ({one.kind}) {one.mrrmse:.3f}" for one in board.standings if one.kind == "ceiling"]
        marks += [
            f"{one.name} (best floor) {one.mrrmse:.3f}" for one in board.standings if one.name == board.best_floor
        ]
        verdict = "" if own[0].v_floor < 0 else " It is worse than that floor."
        return f"MRRMSE of held-out rows: {own[0].mrrmse:.3f}; {', '.join(marks)}.{verdict}"
    return ""


def neighbour_table(forecast: Forecast) -> pd.DataFrame:
    """Nearest training compounds and their Tanimoto similarity."""
    return pd.DataFrame(list(forecast.nearest), columns=["training compound", "similarity"])


def gene_table(forecast: Forecast) -> pd.DataFrame:
    """Every gene with its predicted response, the most raised first."""
    table = pd.DataFrame({"gene": forecast.genes, "signed_log10_p": forecast.values})
    return table.sort_values("signed_log10_p", ascending=False, kind="stable", ignore_index=True)
