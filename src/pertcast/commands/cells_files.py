"""`pertcast cells convert` and `correct`: files of cells from files of cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertcast.commands.cells_common import FORMS, ConditionKey, ContextKey, Control, LayerToRead
from pertcast.commands.common import Json, answer, say
from pertcast.errors import InputError, unknown


def convert(
    source: Annotated[Path, typer.Argument(help="Cells: h5ad, zarr, 10x folder or .h5, text, CSV folder, .npy.")],
    out: Annotated[Path, typer.Option(help="h5ad file to write.")],
    obs: Annotated[
        Path | None, typer.Option(help="CSV or TSV of the cells, ids first; default: obs.csv or <name>.obs.csv beside.")
    ] = None,
    genes_in: Annotated[
        str | None, typer.Option(help="Of text: rows or columns; default: found out by the ids of OBS.")
    ] = None,
    gene_names: Annotated[str, typer.Option(help="Of 10x data: symbol or id.")] = "symbol",
    suffix: Annotated[
        list[str] | None,
        typer.Option(help='Ending of cell ids and its condition, as 3="UC inflamed"; ="Healthy" for all others.'),
    ] = None,
    genes: Annotated[Path | None, typer.Option(help="File with a gene per line; all others are dropped.")] = None,
    drop_constant: Annotated[
        bool, typer.Option("--drop-constant", help="Drop genes with one value in all cells.")
    ] = False,
    listed_only: Annotated[
        bool, typer.Option("--listed-only", help="Leave out cells that OBS lacks, instead of refusing them.")
    ] = False,
    layer: Annotated[str | None, typer.Option(help="Layer to take; default X.")] = None,
    as_json: Json = False,
) -> None:
    """Write cells of any form as h5ad, with labels of cells that the other commands ask for.

    Those commands read every form themselves; a conversion is needed only where something has to be said of it.
    """
    from pertcast.io.cell_forms import Reading
    from pertcast.io.convert import convert_cells

    for option, got, known in (
        ("--genes-in", genes_in, ("rows", "columns")),
        ("--gene-names", gene_names, ("symbol", "id")),
    ):
        if got is not None and got not in known:
            raise InputError(unknown(f"value of {option}", got, known))
    how = Reading(layer=layer, obs=obs, genes_in=genes_in, gene_names=gene_names, listed_only=listed_only)
    facts = convert_cells(
        source, out, how=how, suffixes=_suffixes(suffix), genes=genes, drop_constant=drop_constant
    )  # fmt: skip
    for remark in facts["remarks"]:
        say(remark)
    for name, labels in facts["labels"].items():
        say(f"{name}: {', '.join(labels)}")
    answer(facts, f"{facts['cells']} cells x {facts['genes']} genes as {facts['unit']}: {out}", as_json=as_json)


def _suffixes(pairs: list[str] | None) -> dict[str, str]:
    found = {}
    for pair in pairs or ():
        ending, sign, label = pair.partition("=")
        if not sign or not label:
            raise InputError(f"Cannot read '{pair}'. Expected ending=condition, such as 3=inflamed.")
        found[ending] = label
    return found


def correct(
    data: Annotated[Path, typer.Argument(help=f"Cells of several batches: {FORMS}.")],
    condition_key: ConditionKey,
    control: Control,
    batch_key: Annotated[str, typer.Option(help="Column with what was measured together.")],
    out: Annotated[Path, typer.Option(help="h5ad file to write.")],
    context_key: ContextKey = None,
    reference: Annotated[
        str | None, typer.Option(help="Batch that stays as it is; default: their common mean.")
    ] = None,
    empirical_bayes: Annotated[
        bool, typer.Option("--empirical-bayes", help="Draw genes of a batch together: for batches of few cells.")
    ] = False,
    layer: LayerToRead = None,
    as_json: Json = False,
) -> None:
    """Take batch effects off log values, gene by gene (ComBat); what condition and context do stays.

    Counts become log1p of counts per 10,000. For counts, `pertcast cells fit zinb-vae --set correct_batches=true`.
    """
    from pertcast.cell_tasks import steps
    from pertcast.cell_tasks.runs import Columns

    columns = Columns(condition_key, control, context_key, batch_key, layer)
    facts = steps.correct_cells(data, columns, out=out, reference=reference, empirical_bayes=empirical_bayes)
    for remark in facts["remarks"]:
        say(remark)
    text = f"{facts['cells']} cells x {facts['genes']} genes, {len(facts['batches'])} batches corrected: {out}"
    answer(facts, text, as_json=as_json)
