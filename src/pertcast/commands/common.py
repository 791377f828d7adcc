"""What all commands share: options, and how a result and a message are printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Option("--data", help="Folder with de_train.parquet and id_map.csv (or h5ad).")]
Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object on stdout.")]
Layer = Annotated[str | None, typer.Option(help="Target layer of de_train.h5ad; default clipped_sign_log10_pval.")]
CacheFolder = Annotated[Path, typer.Option("--cache", help="Where feature tables are kept.")]
Jobs = Annotated[int, typer.Option(min=0, help="Processes side by side; 0: one per core, at most 8.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Such as settings.width=64.")]

FOLDS = "How rows are held out: task, compound, scaffold, celltype, stratified, kmeans or random."
CACHE = Path("data/interim/features")


def say(text: str) -> None:
    """Print a message for people: stderr, so that stdout stays for results."""
    print(text, file=sys.stderr, flush=True)


def listing(models: list[dict[str, str]]) -> str:
    """Describe each registered model in a line."""
    return "\n".join(f"{one['name']:16s} {one['kind']:6s} {one['summary']}" for one in models)


def answer(facts: dict[str, object], text: str, *, as_json: bool) -> None:
    """Print a result, for people or for machines."""
    print(json.dumps(facts, sort_keys=True, allow_nan=False) if as_json else text)
