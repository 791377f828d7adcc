"""`pertcast predict`: any compound in any known cell type, from a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertcast.commands.common import Device, Json, answer, say


def predict(
    run: Annotated[Path, typer.Option(help="Folder of one run, as `pertcast cv` lists them.")],
    cell_type: Annotated[str, typer.Option(help="A cell type of the training rows.")],
    smiles: Annotated[list[str] | None, typer.Option(help="Structure of any compound; may be repeated.")] = None,
    compound: Annotated[list[str] | None, typer.Option(help="Name of a training compound; may be repeated.")] = None,
    file: Annotated[Path | None, typer.Option(help="Text file with one SMILES a line.")] = None,
    out: Annotated[Path | None, typer.Option(help="Parquet or CSV file: a row per compound.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Predict the response to any compound, and say how far it is from training."""
    from pertcast import workflow
    from pertcast.errors import InputError
    from pertcast.predict import Compound, read_smiles_file
    from pertcast.report.forecast import plain_forecast

    asked = [Compound(smiles=one) for one in smiles or ()] + [Compound(name=one) for one in compound or ()]
    asked += read_smiles_file(file) if file else []
    if not asked:
        raise InputError("No compound is named. Give --smiles, --compound or --file.")
    forecasts = workflow.predict(run, cell_type, asked, out=out, device=device)
    told = [forecast.as_dict() for forecast in forecasts]
    facts = told[0] if len(told) == 1 else {"predictions": told}
    answer(
        {"run": str(run), **facts},
        "\n\n".join(plain_forecast(forecast, run.resolve().name) for forecast in forecasts),
        as_json=as_json,
    )
    for forecast in forecasts:
        for remark in forecast.remarks():
            say(remark)
    if out is not None:
        say(f"Predictions: {out}")
