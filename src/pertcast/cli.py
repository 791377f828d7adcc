"""The command line: reads arguments, calls `pertcast.workflow`, prints. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pertcast.validation.scores import ScoreTable
    from pertcast.workflow import Scope, Submitted

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Forecast how cells respond to perturbations.",
)
download_app = typer.Typer(no_args_is_help=True, help="Fetch the real competition files.", rich_markup_mode=None)
app.add_typer(download_app, name="download")

Data = Annotated[Path, typer.Option("--data", help="Folder with de_train.parquet and id_map.csv (or h5ad).")]
Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object on stdout.")]
Layer = Annotated[str | None, typer.Option(help="Target layer of de_train.h5ad; default clipped_sign_log10_pval.")]
Runs = Annotated[Path, typer.Option("--runs", help="Where fitted models are kept; finished ones are not fitted again.")]
CacheFolder = Annotated[Path, typer.Option("--cache", help="Where feature tables are kept.")]
Jobs = Annotated[int, typer.Option(min=0, help="Processes side by side; 0: one per core, at most 8.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]

FOLDS = "How rows are held out: task, compound, scaffold, celltype, stratified, kmeans or random."
RUNS = Path("data/interim/runs")
CACHE = Path("data/interim/features")


def say(text: str) -> None:
    """Print a message for people: stderr, so that stdout stays for results."""
    print(text, file=sys.stderr, flush=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write the simulated competition to.")],
    size: Annotated[str, typer.Option(help="tiny, small or full.")] = "small",
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
) -> None:
    """Simulate a competition with known truth: data, solution and the oracle's own score."""
    from pertcast.simulate.demo import describe, write_demo

    facts = write_demo(out, size=size, seed=seed)
    say(f"SIMULATED competition written to {out}.")
    print(describe(facts))


@download_app.command("kaggle")
def download_kaggle_command(out: Annotated[Path, typer.Option(help="Folder to download to.")]) -> None:
    """Download the competition from Kaggle (needs an account that accepted its rules)."""
    from pertcast.io.download import download_kaggle

    for path in download_kaggle(out):
        print(path)


@download_app.command("openproblems")
def download_openproblems_command(out: Annotated[Path, typer.Option(help="Folder to download to.")]) -> None:
    """Download the benchmark's public copies (h5ad)."""
    from pertcast.io.download import download_openproblems

    for path in download_openproblems(out):
        print(path)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Competition folder.")], layer: Layer = None
) -> None:
    """Name all faults of a competition folder at once."""
    from pertcast import workflow

    faults = workflow.check(folder, layer=layer)
    if faults:
        say("\n".join(faults))
        raise typer.Exit(2)
    print(f"{folder}: no faults.")


@app.command()
def models() -> None:
    """List the registered models, a line each."""
    from pertcast import workflow

    print("\n".join(workflow.model_lines()))


@app.command()
def cv(
    recipe: Annotated[list[str], typer.Argument(help="Recipes, by name or TOML file.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Where runs are kept; finished units are not fitted again.")] = RUNS,
    folds: Annotated[str, typer.Option(help=FOLDS)] = "task",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per seeded model.")] = 1,
    change: Annotated[list[str] | None, typer.Option("--set", help="Such as settings.width=64.")] = None,
    device: Device = "auto",
    jobs: Jobs = 0,
    cache: CacheFolder = CACHE,
    layer: Layer = None,
    as_json: Json = False,
) -> None:
    """Cross-validate recipes beside the floors; resumable."""
    from pertcast import workflow

    result = workflow.cross_validate(
        recipe, data, out=out, folds=folds, seeds=seeds, changes=change or (), device=device, jobs=jobs, cache=cache,
        layer=layer,
    )
    show(result.table, as_json=as_json, runs=[str(run.folder) for run in result.runs])
    draw(out / "cv.png", result.table, result.scope)


@app.command()
def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of one `pertcast cv`.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="CSV file, or folder for dated files.")],
    layer: Layer = None,
    as_json: Json = False,
) -> None:
    """Blend finished runs into a submission; weights from out-of-fold predictions only."""
    from pertcast import workflow

    tell(workflow.ensemble(runs, data, out, layer=layer), as_json=as_json)


@app.command()
def submission(
    data: Data,
    out: Annotated[Path, typer.Option(help="CSV file, or folder for dated files.")],
    preset: Annotated[str, typer.Option(help="fast, default or full.")] = "default",
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
def validate(file: Annotated[Path, typer.Argument(help="Submission CSV.")], data: Data) -> None:
    """Check a submission; every fault is named with its position and the fix."""
    from pertcast import workflow

    checked = workflow.validate(file, data)
    print(f"{file}: valid, {len(checked.ids)} rows x {len(checked.genes)} genes.")


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
    if picture is not None and scope is not None:
        draw(picture, table, scope)


def show(table: ScoreTable, *, as_json: bool, **facts: object) -> None:
    """Print a score table, for people or for machines."""
    from pertcast.report.text import plain

    print(json.dumps({**facts, **table.as_dict()}, sort_keys=True) if as_json else plain(table))


def draw(path: Path, table: ScoreTable, scope: Scope) -> None:
    """Draw the report of a table and say where it is."""
    from pertcast.report.pictures import draw_report

    draw_report(path, table, scope)
    say(f"Picture: {path}")


def tell(done: Submitted, *, as_json: bool) -> None:
    """Print what a submission is worth: remarks, CV table, score where the truth is at hand."""
    from pertcast.report.text import plain

    for remark in done.remarks:
        say(remark)
    if as_json:
        score = None if done.score_table is None else done.score_table.as_dict()
        facts = {"file": str(done.path), "cv": done.cv_table.as_dict(), "score": score, "remarks": done.remarks}
        print(json.dumps(facts, sort_keys=True))
    else:
        print(plain(done.cv_table))
        if done.score_table is not None:
            print("\n" + plain(done.score_table))
        print(f"\nSubmission: {done.path} (validated)")
    draw(done.path.with_suffix(".png"), done.cv_table, done.scope)
