"""`pertcast baseline`: what untreated cells of each type look like, from the competition's multiome."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertcast.commands.common import Json, answer


def baseline(
    data: Annotated[Path, typer.Argument(help="Folder with multiome_train.parquet and its two tables.")],
    out: Annotated[Path, typer.Option(help="Folder for cell_baseline.csv and cell_accessibility.parquet.")],
    as_json: Json = False,
) -> None:
    """Pool untreated cells by type: expression and accessibility, which recipes take as context of a cell type.

    Values are log(1 + counts in 10,000). In a competition's folder the files are found by the feature blocks
    cell_baseline and cell_accessibility.
    """
    from pertcast.io.atomic import make_folder
    from pertcast.io.multiome import pool_multiome, write_pooled

    make_folder(out)
    pooled = pool_multiome(data)
    files = [str(path) for path in write_pooled(out, pooled)]
    cells = dict(zip(pooled.cell_types, map(int, pooled.cells), strict=True))
    facts = {"files": files, "cells": cells, "genes": len(pooled.genes), "peaks": len(pooled.peaks)}
    lines = [f"{name}: {count} cells" for name, count in cells.items()]
    text = "\n".join([*lines, f"{len(pooled.genes)} genes, {len(pooled.peaks)} peaks: {', '.join(files)}"])
    answer(facts, text, as_json=as_json)
