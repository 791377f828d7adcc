"""Run units of work one after the other in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from tqdm.std import tqdm

U = TypeVar("U")

LOG_INTERVAL = 15.0  # seconds between progress lines where stderr is no terminal


def run_units(units: Sequence[U], work: Callable[[U], None], *, describe: Callable[[U], str]) -> None:
    """Do the work of every unit in order. A bar on a terminal, one plain line per interval in a log."""
    for unit in progress(units, describe=describe):
        work(unit)


def progress(items: Sequence[U], *, describe: Callable[[U], str]) -> Iterable[U]:
    """Yield the items while showing which one is being worked on."""
    terminal = sys.stderr.isatty()
    bar = tqdm(items, file=sys.stderr, ascii=not terminal, mininterval=0.1 if terminal else LOG_INTERVAL, leave=False)
    if not terminal:  # a log gets whole lines, not a bar that rewrites itself
        bar.bar_format = "{n_fmt}/{total_fmt} done, {elapsed} elapsed, {remaining} left: {desc}\n"
    for item in bar:
        bar.set_description_str(describe(item), refresh=terminal)
        yield item
