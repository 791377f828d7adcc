"""`pertcast transfer`: one table of what every model is worth on labels that training never showed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertcast.commands.common import CACHE, CacheFolder, Changes, Data, Device, Jobs, Json, Layer, answer, say

RUNS = Path("data/interim/runs")


def transfer(
    data: Data,
    recipe: Annotated[
        list[str] | None, typer.Argument(help="Recipes, by name or TOML file; default: one of every family.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where runs are kept; finished units are not fitted again.")] = RUNS,
    folds: Annotated[
        list[str] | None, typer.Option(help="compound, scaffold or celltype, once for each; default: all three.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per seeded model.")] = 1,
    change: Changes = None,
    device: Device = "auto",
    jobs: Jobs = 0,
    cache: CacheFolder = CACHE,
    layer: Layer = None,
    as_json: Json = False,
) -> None:
    """Hold out whole compounds, scaffolds and cell types; say which models beat no floor; resumable."""
    from pertcast.report.transfer import plain_transfer
    from pertcast.transfer import SPLITS
    from pertcast.transfer import transfer as measure

    done = measure(
        recipe or (), data, out=out, cache=cache, splits=folds or SPLITS, seeds=seeds, changes=change or (),
        device=device, jobs=jobs, layer=layer,
    )  # fmt: skip
    facts = done.as_dict()
    answer(facts, plain_transfer(facts), as_json=as_json)
    say(f"Runs: {out}")
