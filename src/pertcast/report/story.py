"""A story as text, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, product
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from pertcast.io.atomic import atomic_path
from pertcast.report.text import WIDTH, aligned
from pertcast.stories.story import Panel, Story, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3  # panels beside each other
TITLE_WIDTH = 80  # characters over one of them
TRUTH = "truth"
STYLES = ("#2f6690", "#f2b134", "#a23b72", "#5fad56", "#7a7a7a", "#b0b0b0")
MARKERS = ("o", "^", "s", "D")  # of points; the next one once all colours are taken


def plain_story(story: Story) -> str:
    """Lay a story out for a terminal."""
    remarks = [fill(text, WIDTH, subsequent_indent="  ") for text in story.remarks]
    return "\n\n".join([f"{story.title}\n{story.data}", *map(plain_table, story.tables), *remarks])


def plain_table(table: Table) -> str:
    """Lay one of its tables out."""
    rows = [
        [_name(line.name, line.role), *(_number(line.scores.get(column)) for column in table.columns)]
        for line in table.lines
    ]
    heads = ["", *(column.replace("_", " ") for column in table.columns)]
    return "\n".join([table.title, *aligned([heads, *rows]), fill(table.note, WIDTH)])


def draw_story(path: Path, story: Story) -> None:
    """Draw its panels into a PNG file."""
    draw_panels(path, story.panels, title=f"{story.title}\n{story.data}")


def draw_panels(path: Path, panels: Sequence[Panel], *, title: str) -> None:
    """Draw panels side by side into a PNG file."""
    with atomic_path(path) as draft:
        panels_figure(panels, title).savefig(draft, dpi=110, format="png", metadata={"Software": None})


def story_figure(story: Story) -> Figure:
    """Draw its panels side by side."""
    return panels_figure(story.panels, f"{story.title}\n{story.data}")


def panels_figure(panels: Sequence[Panel], title: str) -> Figure:
    """Draw panels in rows of three."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels))
    rows = ceil(len(panels) / columns)
    figure = Figure(figsize=(max(5.2 * columns, 7), 4.2 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        draw_panel(axes, panel)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    figure.suptitle(fill(title, TITLE_WIDTH * columns), fontsize=10)
    return figure


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw one panel as its kind asks; the truth is black."""
    looks = cycle(product(MARKERS, STYLES))
    for series in panel.series:
        truth = series.name == TRUTH
        marker, colour = ("o", "black") if truth else next(looks)
        look = {"color": colour, "label": series.name}
        if panel.kind in ("points", "identity"):
            axes.plot(series.x, series.y, marker, ms=4, alpha=0.7, **look)
        elif panel.kind == "steps":
            axes.step(series.x, series.y, where="mid", lw=2 if truth else 1.4, ls="--" if truth else "-", **look)
        else:
            axes.plot(series.x, series.y, lw=2, ls="--" if truth else "-", zorder=3 if truth else 2, **look)
    if panel.kind == "identity":
        every = [end for s in panel.series for values in (s.x, s.y) for end in (values.min(), values.max())]
        ends = [min(every), max(every)]
        axes.plot(ends, ends, color="black", lw=0.8, zorder=1)
    axes.set(xlabel=panel.x, ylabel=panel.y)
    axes.set_title(panel.title, fontsize=10)
    if len(panel.series) > 1:
        axes.legend(frameon=False, fontsize=8)


def _name(name: str, role: str) -> str:
    return name if role == "model" else f"{name} ({role})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"
