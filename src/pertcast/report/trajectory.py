"""A trajectory as tables, and as a path from red to green over an atlas of cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pertcast.cells.atlas import Atlas
from pertcast.cells.trajectory import Trajectory
from pertcast.io.atomic import atomic_path
from pertcast.types import Floats

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = ("#4477aa", "#ee6677", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#228833", "#e69f00", "#56b4e9", "#999933")
RED, GREEN = np.array([0.78, 0.12, 0.12]), np.array([0.08, 0.55, 0.24])
MOST_PATHS = 50  # cells whose paths are drawn one by one


def states_table(trajectory: Trajectory) -> pd.DataFrame:
    """Every state of every cell: cell, step, share of the way, path (perturbed or not), then a column per gene."""
    steps, n = len(trajectory.steps), len(trajectory.ids)
    parts = []
    for path in ("perturbed", "unperturbed"):
        labels = {
            "cell": np.tile(trajectory.ids, steps), "step": np.repeat(np.arange(steps), n),
            "share": np.repeat(trajectory.steps, n), "path": path,
        }  # fmt: skip
        values = getattr(trajectory, path).reshape(steps * n, -1)
        parts.append(pd.concat([pd.DataFrame(labels), pd.DataFrame(values, columns=list(trajectory.genes))], axis=1))
    return pd.concat(parts, ignore_index=True)


def places_table(atlas: Atlas, trajectory: Trajectory) -> pd.DataFrame:
    """Where every perturbed state lies on the atlas: cell, step, share, x, y."""
    steps, n = len(trajectory.steps), len(trajectory.ids)
    places = atlas.place(trajectory.perturbed, trajectory.genes).reshape(-1, 2)
    return pd.DataFrame(
        {
            "cell": np.tile(trajectory.ids, steps), "step": np.repeat(np.arange(steps), n),
            "share": np.repeat(trajectory.steps, n), "x": places[:, 0], "y": places[:, 1],
        }
    )  # fmt: skip


def write_trajectory(folder: Path, trajectory: Trajectory, atlas: Atlas) -> None:
    """Write trajectory.csv, places.csv, genes.csv, top_genes.csv, atlas.png and atlas.html into a folder.

    genes.csv has every gene over all cells, top_genes.csv the 20 that rose most and the 20 that fell most.
    """
    changes = ", ".join(f"{one.gene} {one.mode} {one.target:g}" for one in trajectory.changes)
    n = len(trajectory.ids)
    title = f"{trajectory.ids[0] if n == 1 else f'{n} cells'}: {changes}"
    tables = {
        "trajectory": states_table(trajectory), "places": places_table(atlas, trajectory),
        "genes": trajectory.summary(), "top_genes": trajectory.top(),
    }  # fmt: skip
    figure = atlas_figure(atlas, trajectory, title=title)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_table(folder / f"{name}.csv", table)
    draw_atlas(folder / "atlas.png", atlas, trajectory, title=title)
    write_atlas(folder / "atlas.html", figure)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, seven digits a number."""
    with atomic_path(path) as draft:
        table.to_csv(draft, index=False, float_format="%.7g")


def draw_atlas(path: Path, atlas: Atlas, trajectory: Trajectory, *, title: str) -> None:
    """Draw the cells of the atlas by context, and the states of each cell from red to green, into a PNG (S001-11)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 6.5), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(sorted(set(atlas.context))):
        rows = atlas.context == name
        axes.plot(*atlas.places[rows].T, "o", ms=3, alpha=0.35, mew=0, color=COLOURS[number % len(COLOURS)], label=name)
    for places in _paths(atlas, trajectory):
        axes.plot(*places.T, color="#555555", lw=0.8, zorder=3)
        axes.scatter(*places.T, c=_colours(len(places)), s=28, zorder=4, edgecolors="white", linewidths=0.4)
    axes.plot([], [], "o", color=RED, label="observed")
    axes.plot([], [], "o", color=GREEN, label="last state")
    axes.set(xlabel=atlas.axes[0], ylabel=atlas.axes[1])
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    with atomic_path(path) as draft:
        figure.savefig(draft, dpi=110, format="png", metadata={"Software": None})


def atlas_figure(atlas: Atlas, trajectory: Trajectory | None = None, *, title: str = "") -> go.Figure:
    """Draw the same as a plotly figure, cells and steps named where the mouse points; without a path where None."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, name in enumerate(sorted(set(atlas.context))):
        rows = atlas.context == name
        figure.add_scatter(
            x=atlas.places[rows, 0], y=atlas.places[rows, 1], name=name, mode="markers", text=atlas.ids[rows],
            marker={"size": 5, "opacity": 0.45, "color": COLOURS[number % len(COLOURS)]}, hovertemplate="%{text}",
        )  # fmt: skip
    for number, places in enumerate([] if trajectory is None else _paths(atlas, trajectory)):
        colours = [f"rgb({r:.0%},{g:.0%},{b:.0%})" for r, g, b in _colours(len(places))]
        figure.add_scatter(
            x=places[:, 0], y=places[:, 1], name="trajectory", mode="lines+markers", showlegend=number == 0,
            line={"color": "#555555", "width": 1.5}, marker={"size": 9, "color": colours},
            text=[f"step {step}, {share:.0%} of the way" for step, share in enumerate(trajectory.steps)],
            hovertemplate="%{text}",
        )  # fmt: skip
    figure.update_layout(template="plotly_white", title=title, margin={"l": 10, "r": 10, "t": 40, "b": 10})
    figure.update_xaxes(title=atlas.axes[0])
    figure.update_yaxes(title=atlas.axes[1])
    return figure


def write_atlas(path: Path, figure: go.Figure) -> None:
    """Write a plotly figure as one HTML page that needs nothing else: same figure, same bytes."""
    with atomic_path(path) as draft:
        figure.write_html(draft, include_plotlyjs=True, div_id="atlas")


def _paths(atlas: Atlas, trajectory: Trajectory) -> Floats:
    """Places of the states of each cell; of many cells those of their mean: (n, s + 1, 2)."""
    if len(trajectory.ids) > MOST_PATHS:
        trajectory = trajectory.mean()
    return atlas.place(trajectory.perturbed, trajectory.genes).swapaxes(0, 1)


def _colours(count: int) -> Floats:
    """From red to green: (count, 3)."""
    return RED + np.linspace(0, 1, count)[:, None] * (GREEN - RED)
