"""The pictures of the app, as plotly figures: numbers in, one figure out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pertcast.leaderboard import Board
from pertcast.predict import Forecast
from pertcast.types import Floats

UP, DOWN, QUIET = "#c0392b", "#2f6690", "#c4c9cf"
KINDS = {"ceiling": "#3a7d44", "model": "#2f6690", "floor": "#9aa0a6"}
CURVES = ("#2f6690", "#c0392b", "#3a7d44", "#d68910", "#7d3c98", "#148f77", "#5d6d7e", "#a04000")
LABELLED = 10  # genes of each end that are named beside the waterfall
FONT = "Source Sans Pro, sans-serif"


def curves_figure(share: Floats, perturbed: Floats, unperturbed: Floats, genes: Sequence[str]) -> go.Figure:
    """Draw genes on the way to the target, solid, and without the change, dashed.

    share                   (s + 1,)  share of the way that the changed genes have gone
    perturbed, unperturbed  (s + 1, k)  log1p values of the genes named
    """
    figure = _dressed(go.Figure(), "step (dashed: the same cell, unchanged)", "log1p expression")
    steps = np.arange(len(share))
    for j, gene in enumerate(genes):
        line = {"color": CURVES[j % len(CURVES)], "width": 3}
        figure.add_scatter(
            x=steps, y=perturbed[:, j], name=gene, line=line, mode="lines+markers", marker={"size": 5},
            customdata=share, hovertemplate="%{y:.3f} at %{customdata:.0%} of the way",
        )  # fmt: skip
        figure.add_scatter(
            x=steps, y=unperturbed[:, j], name=f"{gene}, unchanged cell", line={**line, "width": 1.5, "dash": "dash"},
            mode="lines", hovertemplate="%{y:.3f} without the change", showlegend=False,
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
    """Draw the predicted response of all genes, from the most raised to the most lowered, and the outermost by name."""
    order = np.argsort(-forecast.values, kind="stable")
    values, names = forecast.values[order], np.array(forecast.genes, dtype=object)[order]
    some = min(LABELLED, len(order) // 2)
    ends = [*range(some), *range(len(order) - some, len(order))]
    figure = make_subplots(1, 2, column_widths=[0.55, 0.45], horizontal_spacing=0.14)
    for label, rows, colour in (("raised", values >= 0, UP), ("lowered", values < 0, DOWN)):
        figure.add_scatter(
            x=np.flatnonzero(rows) + 1, y=values[rows], name=label, mode="lines", line={"color": colour, "width": 2},
            fill="tozeroy", text=names[rows], hovertemplate="%{text} %{y:+.3f}<extra></extra>", row=1, col=1,
        )  # fmt: skip
    figure.add_bar(
        x=values[ends], y=names[ends], orientation="h", showlegend=False, hovertemplate="%{y} %{x:+.3f}<extra></extra>",
        marker={"color": [UP if values[i] >= 0 else DOWN for i in ends]}, row=1, col=2,
    )  # fmt: skip
    _dressed(figure, f"all {len(order)} genes, by predicted response", "signed -log10 p")
    figure.update_xaxes(title="signed -log10 p", row=1, col=2)
    figure.update_yaxes(title=f"the {some} most raised and most lowered", autorange="reversed", row=1, col=2)
    figure.update_yaxes(type="category", dtick=1, tickfont={"size": 10}, row=1, col=2)
    return figure


def board_figure(board: Board) -> go.Figure:
    """Draw each score with its interval, best at the top, coloured by what it is; the best floor is a line."""
    figure = _dressed(go.Figure(), "MRRMSE of held-out rows, lower is better (95 % interval over compounds)", "")
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


def _dressed(figure: go.Figure, x: str, y: str) -> go.Figure:
    """Give a figure the look of the others, and titles to its (first) axes."""
    figure.update_layout(
        template="plotly_white", height=460, margin={"l": 10, "r": 10, "t": 20, "b": 10},
        font={"family": FONT, "size": 13}, hoverlabel={"namelength": -1},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0},
    )  # fmt: skip
    figure.update_layout(xaxis_title=x, yaxis_title=y)
    return figure
