"""A predicted response as plain text: how far the compound is from training, and the genes that move most."""

from __future__ import annotations

from itertools import zip_longest
from textwrap import fill

import numpy as np

from pertcast.predict import QUANTILE, Forecast

MOST = 20  # genes of each direction
WIDTH = 100  # characters of a line on a terminal


def plain_forecast(forecast: Forecast, run: str) -> str:
    """Lay one prediction out for a terminal, in the unit of the response."""
    who = forecast.asked if forecast.compound in (None, forecast.asked) else f"{forecast.asked} ({forecast.compound})"
    lines = [f"Predicted response of {forecast.cell_type} to {who}, by {run}", standing(forecast), *domain(forecast)]
    return "\n".join([*(fill(line, WIDTH, break_on_hyphens=False) for line in lines), "", *_genes(forecast)])


def standing(forecast: Forecast) -> str:
    """Say in which cell types training saw the compound."""
    if forecast.compound is None:
        return "Training never saw this compound."
    return f"Training saw this compound in {', '.join(forecast.measured_in)}."


def domain(forecast: Forecast) -> list[str]:
    """Say how similar the nearest training compounds are, and whether that is near enough."""
    if not forecast.nearest:
        return ["No structure is known: how near it is to training cannot be told."]
    near = ", ".join(f"{name} {similarity:.2f}" for name, similarity in forecast.nearest)
    lines = [f"Nearest training compounds, by Tanimoto similarity: {near}."]
    if forecast.compound is not None:
        return lines
    if forecast.threshold is None:
        return [*lines, "Training has too few structures to tell whether that is in domain."]
    verdict = "OUT OF DOMAIN" if forecast.out_of_domain else "In domain"
    rule = f"{1 - QUANTILE:.0%} of the training compounds have a neighbour among themselves of"
    return [*lines, f"{verdict}: {rule} at least {forecast.threshold:.2f}."]


def _genes(forecast: Forecast) -> list[str]:
    """List the genes that go up most beside those that go down most."""
    order = np.argsort(-forecast.values, kind="stable")
    up = [i for i in order[:MOST] if forecast.values[i] > 0]
    down = [i for i in order[::-1][:MOST] if forecast.values[i] < 0]
    cells = [tuple(_cell(forecast, i) for i in pair) for pair in zip_longest(up, down)]
    width = max([len("down"), *(len(forecast.genes[i]) for i in (*up, *down))])
    head = f"{'up':{width}s}  {'value':>8s}    {'down':{width}s}  {'value':>8s}"
    rows = [f"{a:{width}s}  {x:>8s}    {b:{width}s}  {y:>8s}".rstrip() for (a, x), (b, y) in cells]
    return [head, "-" * len(head), *rows]


def _cell(forecast: Forecast, i: int | None) -> tuple[str, str]:
    return ("", "") if i is None else (forecast.genes[i], f"{forecast.values[i]:+.3f}")
