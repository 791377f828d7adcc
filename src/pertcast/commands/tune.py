"""`pertcast tune`: settings of a recipe searched on some folds, and scored on folds that tuning never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertcast.commands.common import CACHE, FOLDS, CacheFolder, Changes, Data, Device, Json, Layer, answer, say

SEARCH = "Field and values: settings.width=16:128:log or settings.loss=mse,huber; default: the model's own fields."
TUNING = Path("data/interim/tuning")


def tune(
    recipe: Annotated[str, typer.Argument(help="Recipe, by name or TOML file.")],
    data: Data,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all; those of earlier calls count.")],
    out: Annotated[Path, typer.Option(help="Where trials are kept and the tuned recipe is written.")] = TUNING,
    folds: Annotated[str, typer.Option(help=FOLDS)] = "task",
    search: Annotated[list[str] | None, typer.Option(help=SEARCH)] = None,
    change: Changes = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same trials.")] = 0,
    device: Device = "auto",
    cache: CacheFolder = CACHE,
    layer: Layer = None,
    as_json: Json = False,
) -> None:
    """Search a recipe's settings; score them on folds never seen; resumable."""
    from pertcast import workflow
    from pertcast.report.tuned import plain_tuned

    tuned, table = workflow.tune(
        recipe, data, trials=trials, out=out, folds=folds, search=search or (), changes=change or (), seed=seed,
        device=device, cache=cache, layer=layer,
    )  # fmt: skip
    answer({**tuned.as_dict(), "table": table.as_dict()}, plain_tuned(tuned, table), as_json=as_json)
    say(f"Recipe, for `pertcast cv`: {tuned.path}")
