"""`pertcast story`: five stories on simulated cells whose truth is known, with figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertcast.commands.common import Json, answer, say


def story(
    name: Annotated[str, typer.Argument(help="recover, mechanism, perturb, drug or knows.")],
    out: Annotated[Path, typer.Option(help="Folder for tables (JSON) and figures (PNG).")],
    cells: Annotated[int | None, typer.Option(help="Number of simulated cells; default: as published.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the models; same seed, same numbers.")] = 0,
    as_json: Json = False,
) -> None:
    """Tell what models make of simulated cells whose truth is known."""
    import torch

    from pertcast.report.story import draw_story, plain_story
    from pertcast.stories import shelf

    torch.set_num_threads(1)  # networks this small gain nothing from a second thread, and lose on a busy machine
    told = shelf.tell(name, seed=seed, cells=cells)
    path = shelf.keep(told, out)
    picture = path.with_suffix(".png")
    draw_story(picture, told)
    facts = {**told.as_dict(), "file": str(path), "picture": str(picture)}
    answer(facts, plain_story(told), as_json=as_json)
    say(f"Tables: {path}\nPicture: {picture}")
