"""`pertcast de`: from single cells to a table of responses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pertcast.commands.common import Json, answer, say

if TYPE_CHECKING:
    from pertcast.cell_tasks.differential import Differential

CELLS = "Raw counts of cells: h5ad, zarr, 10x, text, CSV folder, .npy, or adata_train.parquet, or its folder."
OUT = "Parquet: a row per group and condition, signed -log10 p per gene; or h5ad with all layers."
DESIGN = "Published design that sets what is not given: kaggle (a model per cell type) or openproblems."
COVARIATE = "Column to correct for, as donor; may be repeated. Floats are numbers, all else labels."
FILTER = "Test only genes that edgeR's filterByExpr keeps. Default: as the design; without one, yes."


def de(
    cells: Annotated[Path, typer.Argument(help=CELLS)],
    out: Annotated[Path, typer.Option(help=OUT)],
    group: Annotated[
        str | None, typer.Option(help="Column of obs within which conditions are compared, as cell_type.")
    ] = None,
    condition: Annotated[str | None, typer.Option(help="Column of obs with the conditions.")] = None,
    control: Annotated[str | None, typer.Option(help="Label of the condition that others are compared to.")] = None,
    replicate: Annotated[
        list[str] | None, typer.Option(help="Column that tells samples apart; may be repeated.")
    ] = None,
    design: Annotated[str | None, typer.Option(help=DESIGN)] = None,
    covariate: Annotated[list[str] | None, typer.Option(help=COVARIATE)] = None,
    long: Annotated[
        Path | None, typer.Option(help="Parquet: a row per tested gene: fold change, t, p, adjusted p.")
    ] = None,
    voom: Annotated[
        bool, typer.Option("--voom/--no-voom", help="Precision weights, or a variance that follows the mean.")
    ] = True,
    expressed: Annotated[bool | None, typer.Option("--filter/--no-filter", help=FILTER)] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Weighted contrasts exactly, not as limma's contrasts.fit.")
    ] = False,
    min_cells: Annotated[int, typer.Option(min=1, help="Samples of fewer cells are dropped.")] = 1,
    layer: Annotated[str | None, typer.Option(help="Layer with raw counts; default X.")] = None,
    skip: Annotated[bool, typer.Option("--skip", help="Leave groups out that cannot be tested.")] = False,
    as_json: Json = False,
) -> None:
    """Differential expression of every condition, from cells summed by sample.

    Numbers are those of limma and edgeR. The wide table OUT has the competition's columns: cell_type (the group),
    sm_name (the condition), then signed -log10 p per gene, 0 where a gene has too few counts to be tested. Fold
    changes, t, p and adjusted p of tested genes go to the table that --long names. Beside OUT, <name>.rows.csv tells
    cells, samples and reliability of each row.
    """
    from pertcast.cell_tasks.differential import differential_expression
    from pertcast.de.presets import analysis

    asked = analysis(
        design, group=group, condition=condition, control=control, replicate=replicate or (),
        covariates=covariate or (), expressed_only=expressed,
    )  # fmt: skip
    done = differential_expression(
        cells, asked, out=out, long=long, weights=voom, exact=exact, min_cells=min_cells, layer=layer, skip=skip
    )
    for remark in done.remarks():
        say(remark)
    answer(done.facts(), _text(done), as_json=as_json)


def _text(done: Differential) -> str:
    lines = [
        f"{one.group}: {one.samples} samples, {one.conditions} conditions, {one.genes_tested} genes tested, "
        f"{one.df:.4g} df"
        for one in done.table.groups
    ]
    found = (done.table.adjusted_p < 0.05).sum()
    return "\n".join([*lines, f"{len(done.table)} rows, {found} genes at 5 % false discoveries: {done.out}"])
