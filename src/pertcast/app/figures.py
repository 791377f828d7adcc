"""The pictures of the app, as plotly figures: numbers in, one figure out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from pertcast.leaderboard import Board
from pertcast.predict import Forecast
from pertcast.types import Floats

UP, DOWN, QUIET = "#c0392b", "#2f6690", "#c4c9cf"
KINDS = {"ceiling": "#3a7d44", "model": "#2f6690", "floor": "#9aa0a6"}
CURVES = ("#2f6690", "#c0392b", "#3a7d44", "#d68910", "#7d3c98", "#148f77", "#5d6d7e", "#a04000")
LABELLED = 10  # genes of each direction whose names stand in the waterfall
FONT = "Source Sans Pro, sans-serif"


def curves_figure(share: Floats, perturbed: Floats, unperturbed: Floats, genes: Sequence[str]) -> go.Figure:
    """Draw genes on the way to the target, solid, and without the change, dashed.

    share                   (s + 1,)  share of the way that the changed genes have gone
    perturbed, unperturbed  (s + 1, k)  log1p values of the genes named
    """
    figure = _figure("step", "log1p expression")
    steps = np.arange(len(share))
    for j, gene in enumerate(genes):
        line = {"color": CURVES[j % len(CURVES)], "width": 3}
        figure.add_scatter(
            x=steps, y=perturbed[:, j], name=gene, line=line, mode="lines+markers", marker={"size": 5},
            customdata=share, hovertemplate="%{y:.3f} at %{customdata:.0%} of the way",
        )  # fmt: skip
        figure.add_scatter(
            x=steps, y=unperturbed[:, j], name=f"{gene}, unchanged cell", line={**line, "width": 1.5, "dash": "dash"},
            mode="lines", hovertemplate="%{y:.3f} without the change",
        )  # fmt: skip
    return figure


def picked_figure(figure: go.Figure, place: Floats) -> go.Figure:
    """Mark one cell on an atlas, at its place (2,)."""
    figure.add_scatter(
        x=place[:1], y=place[1:], name="picked cell", mode="markers", hoverinfo="skip",
        marker={"size": 14, "color": "#c0392b", "line": {"color": "white", "width": 2}},
    )  # fmt: skip
    return figure


def waterfall_figure(forecast: Forecast) -> go.Figure:
    """Draw the predicted response of every gene, from the most lowered to the most raised; the outermost are named."""
    order = np.argsort(forecast.values, kind="stable")
    values, names = forecast.values[order], [forecast.genes[i] for i in order]
    ends = {*range(min(LABELLED, len(order))), *range(max(0, len(order) - LABELLED), len(order))}
    figure = _figure("genes, by predicted response", "signed -log10 p")
    for label, rows, colour in (("lowered", values < 0, DOWN), ("raised", values >= 0, UP)):
        figure.add_scatter(
            x=np.flatnonzero(rows), y=values[rows], name=label, mode="lines", line={"color": colour, "width": 2},
            fill="tozeroy", text=np.array(names, dtype=object)[rows], hovertemplate="%{text} %{y:+.3f}",
        )  # fmt: skip
    for place, i in enumerate(sorted(ends)):
        up = values[i] >= 0
        shift = (LABELLED - place % LABELLED) if up else -(place % LABELLED + 1)
        figure.add_annotation(
            x=i, y=values[i], text=names[i], showarrow=True, arrowwidth=1, arrowcolor=QUIET, arrowhead=0,
            ax=-150 + 0 * shift if up else 150, ay=-12 * shift, font={"size": 11, "color": UP if up else DOWN},
        )  # fmt: skip
    return figure


def board_figure(board: Board) -> go.Figure:
    """Draw each score with its interval, best at the top, coloured by what it is; the best floor is a line."""
    figure = _figure("MRRMSE of held-out rows, lower is better (95 % interval over compounds)", "")
    names = labels(board)
    for kind, colour in KINDS.items():
        some = [(name, one) for name, one in zip(names, board.standings, strict=True) if one.kind == kind]
        figure.add_scatter(
            x=[one.mrrmse for _, one in some], y=[name for name, _ in some], name=kind, mode="markers",
            marker={"color": colour, "size": 11}, hovertemplate="%{y}: %{x:.4f}<extra></extra>",
            error_x={
                "array": [one.high - one.mrrmse for _, one in some], "symmetric": False, "thickness": 2, "width": 0,
                "arrayminus": [one.mrrmse - one.low for _, one in some],
            },
        )  # fmt: skip
    floor = next((one.mrrmse for one in board.standings if one.name == board.best_floor), None)
    if floor is not None:
        figure.add_vline(x=floor, line={"color": KINDS["floor"], "dash": "dash", "width": 1})
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], showgrid=False)
    figure.update_layout(height=140 + 32 * len(names))
    return figure


def labels(board: Board) -> list[str]:
    """Name every line of a board; runs of one name are told apart by the digest in their folder's."""
    names = [one.name for one in board.standings]
    return [
        f"{one.name} ({one.run.rpartition('-')[2]})" if names.count(one.name) > 1 and one.run else one.name
        for one in board.standings
    ]


def _figure(x: str, y: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        template="plotly_white", height=460, margin={"l": 10, "r": 10, "t": 20, "b": 10},
        font={"family": FONT, "size": 13}, hoverlabel={"namelength": -1},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0},
    )  # fmt: skip
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    return figure
