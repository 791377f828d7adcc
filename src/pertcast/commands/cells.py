"""`pertcast cells`: models of single cells, from file to file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertcast.commands.cells_benchmark import benchmark
from pertcast.commands.cells_files import convert
from pertcast.commands.common import Json, answer, say
from pertcast.errors import InputError

cells_app = typer.Typer(no_args_is_help=True, help="Models of single cells: h5ad in, h5ad out.", rich_markup_mode=None)

cells_app.command("convert")(convert)

FORMS = "h5ad, zarr, 10x, text, CSV folder, .npy"
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")]


@cells_app.command("models")
def models(as_json: Json = False) -> None:
    """List the registered models of cells, a line each."""
    from pertcast import cell_verbs

    found = cell_verbs.cell_models()
    lines = [f"{one['name']:16s} {one['kind']:6s} {one['summary']}" for one in found]
    answer({"models": found, "default": cell_verbs.DEFAULT}, "\n".join(lines), as_json=as_json)


@cells_app.command("fit")
def fit(
    model: Annotated[str, typer.Argument(help="A name of `pertcast cells models`, or `default`.")],
    data: Annotated[Path, typer.Argument(help=f"Untreated and treated cells: {FORMS}.")],
    condition_key: Annotated[str, typer.Option(help="Column of obs with what was done to a cell.")],
    control: Annotated[str, typer.Option(help="Label of untreated cells in that column.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    context_key: Annotated[str | None, typer.Option(help="Column with cell type, line or population.")] = None,
    batch_key: Annotated[str | None, typer.Option(help="Column with what was measured together.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer to read; default X.")] = None,
    preset: Annotated[str | None, typer.Option(help="Settings by name, as system-002, or a TOML file.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="Such as training.epochs=30.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit a model to cells; a finished run of the same content is not fitted again."""
    from pertcast import cell_verbs
    from pertcast.cell_runs import Columns

    columns = Columns(condition_key, control, context_key, batch_key, layer)
    done = cell_verbs.fit_cells(model, data, columns, out=out, preset=preset, changes=change or (), seed=seed)
    facts = done.facts
    if facts["fitted"]:
        say(f"{facts['cells']} cells ({facts['untreated']} untreated), {facts['genes']} genes as {facts['unit']}, "
            f"{facts['conditions']} conditions, {facts['contexts']} contexts")  # fmt: skip
    else:
        say("The run is finished already; nothing was fitted.")
    answer(facts, f"Run of {facts['model']}, {facts['digest']}: {out}", as_json=as_json)


@cells_app.command("predict")
def predict(
    run: Annotated[Path, typer.Argument(help="Folder that `pertcast cells fit` wrote.")],
    data: Annotated[Path, typer.Argument(help="Untreated cells, in any form, columns as in training.")],
    condition: Annotated[str, typer.Option(help="What is done to the cells.")],
    out: Annotated[Path, typer.Option(help="h5ad file to write.")],
    context: Annotated[str | None, typer.Option(help="Only untreated cells of this context.")] = None,
    sample: Annotated[
        bool | None, typer.Option("--sample/--mean", help="Draw counts, or expected counts; default: draw counts.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Predict untreated cells under a condition; treated cells of DATA are never looked at."""
    from pertcast import cell_verbs

    facts = cell_verbs.predict_cells(
        run, data, condition=condition, context=context, out=out, seed=seed, sample=sample
    )  # fmt: skip
    for remark in facts["remarks"]:
        say(remark)
    kind = "drawn" if facts["sample"] else "expected"
    text = f"{facts['cells']} cells x {facts['genes']} genes under '{condition}', {kind}: {out}"
    answer(facts, text, as_json=as_json)


@cells_app.command("evaluate")
def evaluate(
    predicted: Annotated[Path, typer.Argument(help="h5ad file of predicted cells.")],
    truth: Annotated[Path, typer.Argument(help="File of measured treated cells.")],
    control: Annotated[Path, typer.Option(help="File of untreated cells, for the references.")],
    truth_where: Annotated[list[str] | None, typer.Option(help="Only these cells of TRUTH: column=label.")] = None,
    control_where: Annotated[list[str] | None, typer.Option(help="Only these control cells: column=label.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Score predicted cells beside no change, the mean shift, and one half of the truth against the other."""
    from pertcast import cell_verbs

    done = cell_verbs.evaluate_cells(
        predicted, truth, control=control, truth_where=_where(truth_where), control_where=_where(control_where),
        seed=seed,
    )  # fmt: skip
    for remark in done.remarks:
        say(remark)
    answer(done.facts(), "\n".join(done.lines()), as_json=as_json)


def _where(pairs: list[str] | None) -> dict[str, str]:
    found = {}
    for pair in pairs or ():
        key, sign, label = pair.partition("=")
        if not sign or not key:
            raise InputError(f"Cannot read '{pair}'. Expected column=label, such as drug=dmso.")
        found[key] = label
    return found


cells_app.command("benchmark")(benchmark)
