"""`pertcast app`: the app in a web browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertcast.commands.common import say


def start(
    data: Annotated[Path | None, typer.Option(help="h5ad file of cells; default: bundled SIMULATED cells.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of runs; default: bundled ones on SIMULATED data.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8501,
    address: Annotated[str, typer.Option(help="Address to listen on; default: this machine alone.")] = "127.0.0.1",
) -> None:
    """Play with a virtual cell, type compounds, compare runs, in a web browser."""
    from pertcast.app.places import Places
    from pertcast.app.serve import prepare, serve

    places = Places(data, runs)
    prepare(places, address, port)
    say(f"pertcast: http://{address}:{port} (Ctrl-C ends it)")
    serve(places, address=address, port=port)
