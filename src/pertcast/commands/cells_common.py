"""Options that several commands of `pertcast cells` share."""

from __future__ import annotations

from typing import Annotated

import typer

FORMS = "h5ad, zarr, 10x, text, CSV folder, .npy"

ConditionKey = Annotated[str, typer.Option(help="Column of obs with what was done to a cell.")]
Control = Annotated[str, typer.Option(help="Label of untreated cells in that column.")]
ContextKey = Annotated[str | None, typer.Option(help="Column with cell type, line or population.")]
BatchKey = Annotated[str | None, typer.Option(help="Column with what was measured together.")]
LayerToRead = Annotated[str | None, typer.Option(help="Layer to read; default X.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")]
Threads = Annotated[
    int, typer.Option(min=0, help="0: one for small data, else one a core. The last digit may depend on it.")
]
