"""`pertcast cells masked` and `cells trajectory`: how well hidden genes are told; what follows from changed genes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertcast.commands.cells_common import (
    FORMS,
    BatchKey,
    ConditionKey,
    ContextKey,
    Control,
    LayerToRead,
    Seed,
)
from pertcast.commands.common import Json, answer, say
from pertcast.errors import InputError


def masked(
    data: Annotated[Path, typer.Argument(help=f"Cells of any condition: {FORMS}.")],
    condition_key: ConditionKey,
    control: Control,
    out: Annotated[Path, typer.Option(help="Folder for masked.json and the fitted model.")],
    batch_key: BatchKey = None,
    split: Annotated[str, typer.Option(help="auto, batch or cell; auto: whole batches where there are 3.")] = "auto",
    layer: LayerToRead = None,
    preset: Annotated[str | None, typer.Option(help="Settings by name, as system-001, or a TOML file.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="Such as training.epochs=30.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Hide genes of held-out cells and tell them from the others: 60 % of the cells train, 20 % stop, 20 % report."""
    from pertcast.cell_tasks.masked import masked_benchmark
    from pertcast.cell_tasks.runs import Columns
    from pertcast.cell_tasks.training import fit_bar
    from pertcast.report.story import plain_table

    columns = Columns(condition_key, control, None, batch_key, layer)
    with fit_bar("masked-autoencoder") as progress:
        found = masked_benchmark(
            data, columns, out=out, by=split, preset=preset, changes=change or (), seed=seed, progress=progress
        )  # fmt: skip
    say(f"Trained for {len(found.model.history)} epochs in {found.seconds:.0f} s: {out}")
    answer(found.facts(), "\n\n".join(map(plain_table, found.tables())), as_json=as_json)


def trajectory(
    run: Annotated[Path, typer.Argument(help="Folder that `pertcast cells fit masked-autoencoder` wrote.")],
    data: Annotated[Path, typer.Argument(help=f"Cells, columns as in training: {FORMS}.")],
    gene: Annotated[list[str], typer.Option(help="Gene to change; repeat it with a target each.")],
    target: Annotated[list[float], typer.Option(help="Where it goes, log1p units; 0 knocks it out.")],
    out: Annotated[Path, typer.Option(help="Folder for trajectory.csv, top_genes.csv, atlas.png, atlas.html.")],
    mode: Annotated[
        list[str] | None, typer.Option(help="set, add or fold: one for all, or one for each gene; default set.")
    ] = None,
    cell: Annotated[str | None, typer.Option(help="Id of the cell to start from.")] = None,
    context: Annotated[str | None, typer.Option(help="Start from all untreated cells of this context.")] = None,
    steps: Annotated[int, typer.Option(help="States after the first.")] = 20,
    fraction: Annotated[float | None, typer.Option(help="Share of the way a step takes; default 2 / steps.")] = None,
    impute: Annotated[
        bool, typer.Option("--impute", help="Start with genes at 0 where the model expects them.")
    ] = False,
    atlas: Annotated[str, typer.Option(help="pca, or umap where umap-learn is installed.")] = "pca",
    as_json: Json = False,
) -> None:
    """Move genes of a cell step by step and see what follows, less what the same cell does untouched."""
    from pertcast.cell_tasks.trajectory import cell_trajectory
    from pertcast.cells.trajectory import Change
    from pertcast.report.trajectory import write_trajectory

    modes = mode or ["set"]
    modes = modes * len(gene) if len(modes) == 1 else modes
    if not len(gene) == len(target) == len(modes):
        counts = f"{len(gene)} genes, {len(target)} targets and {len(modes)} modes"
        raise InputError(f"Give every --gene its --target, and one --mode for all or one each; got {counts}.")
    changes = [Change(*one) for one in zip(gene, target, modes, strict=True)]
    rolled = cell_trajectory(
        run, data, changes, cell=cell, context=context, steps=steps, fraction=fraction, imputed=impute, atlas=atlas
    )  # fmt: skip
    write_trajectory(out, rolled.trajectory, rolled.atlas)
    told = rolled.trajectory.top()
    answer(rolled.facts(), told.to_string(index=False, float_format="{:.4f}".format), as_json=as_json)
    say(f"Tables and atlas: {out}")


def knows(
    data: Annotated[Path, typer.Argument(help=f"Untreated and treated cells: {FORMS}.")],
    condition_key: ConditionKey,
    control: Control,
    condition: Annotated[str, typer.Option(help="What was done to the treated cells.")],
    gene: Annotated[list[str], typer.Option(help="Gene to raise in untreated cells; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder for knows.json.")],
    context_key: ContextKey = None,
    batch_key: BatchKey = None,
    layer: LayerToRead = None,
    treated: Annotated[bool, typer.Option(help="Train on treated cells as well; else it never sees one.")] = False,
    change: Annotated[list[str] | None, typer.Option("--set", help="Such as training.epochs=30.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Ask whether what follows from raised genes is what a condition really did, beside chance and co-expression."""
    from dataclasses import asdict

    from pertcast.cell_tasks.knows import virtual_cell_knows
    from pertcast.cell_tasks.runs import Columns
    from pertcast.cell_tasks.training import fit_bar
    from pertcast.report.story import plain_table

    columns = Columns(condition_key, control, context_key, batch_key, layer)
    with fit_bar("masked-autoencoder") as progress:
        found = virtual_cell_knows(
            data, columns, condition=condition, genes=gene, out=out, treated=treated, changes=change or (), seed=seed,
            progress=progress,
        )  # fmt: skip
    answer(asdict(found), plain_table(found.table()), as_json=as_json)
    say(f"Scores: {out}")
