"""`pertcast cells benchmark`: models of cells on treated cells that they never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertcast.commands.common import Jobs, Json, answer, say

MODELS = "Names, NAME:PRESET, `default`, `floors` or `all`, separated by commas; else `default,floors`."


def benchmark(
    data: Annotated[Path, typer.Argument(help="File or folder with untreated and treated cells.")],
    holdout_key: Annotated[str, typer.Option(help="Column with the contexts to hold out, such as cell_type.")],
    out: Annotated[Path, typer.Option(help="Folder; finished units in it are not done again.")],
    condition_key: Annotated[str, typer.Option(help="Column of obs with what was done to a cell.")] = "condition",
    control: Annotated[str, typer.Option(help="Label of untreated cells in that column.")] = "control",
    models: Annotated[str, typer.Option(help=MODELS)] = "",
    holdout: Annotated[list[str] | None, typer.Option(help="Only this context; may be repeated.")] = None,
    condition: Annotated[list[str] | None, typer.Option(help="Only this condition; may be repeated.")] = None,
    folds: Annotated[str, typer.Option(help="context: one after another; pair: (condition, context) in rotation.")] = (
        "context"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Fits and draws of each model, averaged.")] = 1,
    total_key: Annotated[
        str | None, typer.Option(help="Column with a cell's counts over all genes, for the log values of the scores.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer to read; default X.")] = None,
    jobs: Jobs = 0,
    as_json: Json = False,
) -> None:
    """Hold treated cells out, fit every model on all else, score it beside references and a ceiling."""
    from pertcast.cell_tasks.benchmark import Asked, benchmark_cells
    from pertcast.cell_tasks.runs import Columns
    from pertcast.report.cell_benchmark import draw_benchmark, plain_benchmark

    names = tuple(name.strip() for name in models.split(",") if name.strip())
    asked = Asked(names, tuple(holdout or ()), tuple(condition or ()), folds, seeds, total_key)
    found = benchmark_cells(data, Columns(condition_key, control, holdout_key, None, layer), asked, out=out, jobs=jobs)
    facts = found.as_dict()
    draw_benchmark(out / "benchmark.png", facts, title=f"{data}: {facts['mean']['title'].lower()}")
    answer(facts, plain_benchmark(facts), as_json=as_json)
    if as_json:
        for remark in facts["remarks"]:
            say(remark)
    took = sorted(found.seconds.items(), key=lambda pair: -pair[1])
    say("Seconds of a fit with its scores: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in took))
    say(f"All scores: {out / 'benchmark.csv'}; picture: {out / 'benchmark.png'}")
