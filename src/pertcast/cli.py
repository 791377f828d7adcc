"""The command line: reads arguments, calls `pertcast.workflow`, prints. Heavy imports happen inside the commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pertcast.commands.app import start
from pertcast.commands.baseline import baseline
from pertcast.commands.cells import cells_app
from pertcast.commands.common import (
    CACHE,
    FOLDS,
    CacheFolder,
    Changes,
    Data,
    Device,
    Jobs,
    Json,
    Layer,
    answer,
    listing,
    say,
)
from pertcast.commands.de import de
from pertcast.commands.predict import predict
from pertcast.commands.simulate import simulate_app
from pertcast.commands.story import story
from pertcast.commands.transfer import transfer
from pertcast.commands.tune import tune

if TYPE_CHECKING:
    from pertcast.outcome import Submitted
    from pertcast.scoring import Scope
    from pertcast.validation.scores import ScoreTable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Forecast how cells respond to perturbations.",
)
download_app = typer.Typer(no_args_is_help=True, help="Fetch the real competition files.", rich_markup_mode=None)
app.add_typer(download_app, name="download")
app.add_typer(simulate_app, name="simulate")
app.add_typer(cells_app, name="cells")

Target = Annotated[Path, typer.Option("--out", help="Folder to download to.")]
Runs = Annotated[Path, typer.Option("--runs", help="Where fitted models are kept; finished ones are not fitted again.")]

RUNS = Path("data/interim/runs")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write the simulated competition to.")],
    size: Annotated[str, typer.Option(help="tiny, small or full.")] = "small",
    cells: Annotated[bool, typer.Option("--cells", help="Write the simulated single cells, too.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    as_json: Json = False,
) -> None:
    """Simulate a competition with known truth: data, solution and the oracle's own score."""
    from pertcast.simulate.demo import write_demo

    facts = write_demo(out, size=size, seed=seed, cells=cells)
    kept = {"size", "seed", "version", "mrrmse_zeros", "mrrmse_oracle", "cells"}
    told = {key: value for key, value in facts.items() if key in kept}
    zeros, oracle = (told[f"mrrmse_{name}"]["all"] for name in ("zeros", "oracle"))
    answer(
        {"folder": str(out), **told},
        f"SIMULATED competition, size {size}, seed {seed}: {out}\n"
        f"MRRMSE on its solution: {zeros:.4f} for zeros (a floor), {oracle:.4f} for the oracle (the ceiling).",
        as_json=as_json,
    )


@download_app.command("kaggle")
def download_kaggle_command(out: Target, as_json: Json = False) -> None:
    """Download the competition from Kaggle (needs an account that accepted its rules)."""
    from pertcast.io.download import download_kaggle

    files = [str(path) for path in download_kaggle(out)]
    answer({"files": files}, "\n".join(files), as_json=as_json)


@download_app.command("openproblems")
def download_openproblems_command(out: Target, as_json: Json = False) -> None:
    """Download the benchmark's public copies (h5ad)."""
    from pertcast.io.download import download_openproblems

    files = [str(path) for path in download_openproblems(out)]
    answer({"files": files}, "\n".join(files), as_json=as_json)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Competition folder.")], layer: Layer = None, as_json: Json = False
) -> None:
    """Name all faults of a competition folder at once."""
    from pertcast import workflow

    faults = workflow.check(folder, layer=layer)
    if as_json or not faults:
        answer({"folder": str(folder), "faults": faults}, f"{folder}: no faults.", as_json=as_json)
    if faults:
        say("\n".join(faults))
        raise typer.Exit(2)


@app.command()
def models(as_json: Json = False) -> None:
    """List the registered models, a line each."""
    from pertcast import workflow

    known = workflow.models()
    answer({"models": known}, listing(known), as_json=as_json)


@app.command()
def cv(
    recipe: Annotated[list[str], typer.Argument(help="Recipes, by name or TOML file.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Where runs are kept; finished units are not fitted again.")] = RUNS,
    folds: Annotated[str, typer.Option(help=FOLDS)] = "task",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per seeded model.")] = 1,
    against: Annotated[
        str | None, typer.Option(help="Recipe or floor that the others are compared to, paired.")
    ] = None,
    change: Changes = None,
    device: Device = "auto",
    jobs: Jobs = 0,
    cache: CacheFolder = CACHE,
    layer: Layer = None,
    as_json: Json = False,
) -> None:
    """Cross-validate recipes beside the floors; resumable."""
    from pertcast import workflow
    from pertcast.preflight import check_against

    if against is not None:
        check_against(against, recipe, change or ())
    result = workflow.cross_validate(
        recipe,
        data,
        out=out,
        folds=folds,
        seeds=seeds,
        changes=change or (),
        device=device,
        jobs=jobs,
        cache=cache,
        layer=layer,
    )
    folders = [str(run.folder) for run in result.runs]
    paired = [] if against is None else result.table.paired(against, result.scope.cell_type)
    show(result.table, [one.text() for one in paired], as_json=as_json, runs=folders, paired=list(map(asdict, paired)))
    say("\n  ".join(["Runs, for `pertcast ensemble`:", *folders]))
    draw(out / "cv.png", result.table, result.scope)


@app.command()
def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of one `pertcast cv`.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="CSV file, or folder for dated files.")],
    correct: Annotated[bool, typer.Option(help="Add what the blend leaves over, gene by gene.")] = True,
    layer: Layer = None,
    as_json: Json = False,
) -> None:
    """Blend finished runs into a submission; weights from out-of-fold predictions only."""
    from pertcast import workflow

    tell(workflow.ensemble(runs, data, out, correct=correct, layer=layer), as_json=as_json)


@app.command()
def submission(
    data: Data,
    out: Annotated[Path, typer.Option(help="CSV file, or folder for dated files.")],
    preset: Annotated[str, typer.Option(help="fast, default, cells or full.")] = "default",
    style: Annotated[str, typer.Option("--format", help="kaggle or openproblems.")] = "kaggle",
    runs: Runs = RUNS,
    cache: CacheFolder = CACHE,
    device: Device = "auto",
    jobs: Jobs = 0,
    layer: Layer = None,
    as_json: Json = False,
) -> None:
    """Do the main job: cross-validate, blend, write, validate, score."""
    from pertcast import workflow

    tell(
        workflow.make_submission(
            data, out, preset=preset, style=style, runs=runs, device=device, jobs=jobs, cache=cache, layer=layer
        ),
        as_json=as_json,
    )


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="Submission CSV, or prediction h5ad.")], data: Data, as_json: Json = False
) -> None:
    """Check a submission; every fault is named with its position and the fix."""
    from pertcast import workflow

    checked = workflow.validate(file, data)
    rows, genes = len(checked.ids), len(checked.genes)
    facts = {"file": str(file), "valid": True, "rows": rows, "genes": genes}
    answer(facts, f"{file}: valid, {rows} rows x {genes} genes.", as_json=as_json)


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="Submission CSV.")],
    solution: Annotated[Path, typer.Option(help="solution.parquet: id, Usage, genes.")],
    data: Annotated[Path | None, typer.Option(help="Competition folder for floors; default: the solution's.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the report into this PNG.")] = None,
    as_json: Json = False,
) -> None:
    """Score a submission beside floors and ceiling."""
    from pertcast import workflow

    table, scope = workflow.score(file, solution, data=data)
    show(table, as_json=as_json)
    if scope is None:
        say(f"The folder of '{solution}' is no competition: no floors but zeros, no picture. Name one with --data.")
    elif picture is not None:
        draw(picture, table, scope)


app.command("app")(start)
app.command()(baseline)
app.command()(de)
app.command()(predict)
app.command()(story)
app.command()(transfer)
app.command()(tune)


def show(table: ScoreTable, lines: Sequence[str] = (), *, as_json: bool, **facts: object) -> None:
    """Print a score table, for people with lines below it, or for machines."""
    from pertcast.report.text import plain

    answer({**facts, **table.as_dict()}, "\n".join([plain(table), *lines]), as_json=as_json)


def draw(path: Path, table: ScoreTable, scope: Scope) -> None:
    """Draw the report of a table and say where it is."""
    from pertcast.report.pictures import draw_report

    draw_report(path, table, scope)
    say(f"Picture: {path}")


def tell(done: Submitted, *, as_json: bool) -> None:
    """Print what a submission is worth: remarks, CV table, score where the truth is at hand."""
    from pertcast.report.text import plain

    for remark in (*done.remarks, done.blended.report()):
        say(remark)
    for where, one in zip(("held-out rows", "rows to predict"), done.paired, strict=False):
        say(f"On the {where}: {one.text()}.")
    tables = [done.cv_table] if done.score_table is None else [done.cv_table, done.score_table]
    score = None if done.score_table is None else done.score_table.as_dict()
    facts = {"file": str(done.path), "cv": done.cv_table.as_dict(), "score": score, "remarks": done.remarks}
    facts["paired"] = list(map(asdict, done.paired))
    texts = [*(plain(table) for table in tables), f"Submission: {done.path} (validated)"]
    answer(facts, "\n\n".join(texts), as_json=as_json)
    draw(done.path.with_suffix(".png"), done.cv_table, done.scope)
