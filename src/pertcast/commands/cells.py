"""`pertcast cells`: models of single cells, from file to file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertcast.commands.cells_benchmark import benchmark
from pertcast.commands.cells_common import Seed
from pertcast.commands.cells_files import convert, correct
from pertcast.commands.cells_fit import adapt, fit, pairs
from pertcast.commands.cells_virtual import knows, masked, trajectory
from pertcast.commands.common import Json, answer, listing, say
from pertcast.errors import InputError

cells_app = typer.Typer(no_args_is_help=True, help="Models of single cells, from file to file.", rich_markup_mode=None)

for command in (convert, correct, fit, adapt, pairs, masked, trajectory, knows):
    cells_app.command(command.__name__)(command)


@cells_app.command("models")
def models(as_json: Json = False) -> None:
    """List the registered models of cells, a line each."""
    from pertcast.cell_tasks import verbs

    found = verbs.cell_models()
    answer({"models": found, "default": verbs.DEFAULT}, listing(found), as_json=as_json)


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
    from pertcast.cell_tasks import verbs

    facts = verbs.predict_cells(
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
    from pertcast.cell_tasks import verbs

    done = verbs.evaluate_cells(
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
