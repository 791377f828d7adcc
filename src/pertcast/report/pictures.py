"""Scores as a picture: the table, the error of each compound, and one row predicted against measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pertcast.io.atomic import atomic_path
from pertcast.types import Floats, Strings
from pertcast.validation.scores import ScoreTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"ceiling": "#3a7d44", "model": "#2f6690", "floor": "#b0b0b0"}
MOST_COMPOUNDS = 40  # labels that can still be read


def draw_report(
    path: Path, table: ScoreTable, *, compound: Strings, cell_type: Strings, y_true: Floats, y_pred: Floats
) -> None:
    """Draw the three panels of a report into a PNG file.

    compound, cell_type  (n,)     of the rows scored
    y_true, y_pred       (n, g)   measured, and predicted by the best model of the table
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1.25, 1))
    _draw_table(left, table)
    errors = np.sqrt(((y_true - y_pred) ** 2).mean(1))
    _draw_compounds(middle, errors, compound)
    row = int(np.argsort(errors)[len(errors) // 2])
    _draw_row(right, y_true[row], y_pred[row], label=f"{cell_type[row]}, {compound[row]}")
    with atomic_path(path) as draft:
        figure.savefig(draft, dpi=110, format="png", metadata={"Software": None})


def _draw_table(axes: Axes, table: ScoreTable) -> None:
    lines = table.lines[::-1]  # best at the top
    for i, line in enumerate(lines):
        axes.plot([line.low, line.high], [i, i], color=COLOURS[line.kind], lw=2, zorder=2)
        axes.plot(line.mrrmse, i, "o", color=COLOURS[line.kind], ms=8, zorder=3)
        at = (line.mrrmse, i)
        axes.annotate(f"{line.mrrmse:.3f}", at, (0, 7), textcoords="offset points", ha="center", fontsize=8)
    axes.axvline(table.line(table.best_floor).mrrmse, color=COLOURS["floor"], ls="--", lw=1)
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.set_ylim(-0.6, len(lines) - 0.2)
    axes.set_xlabel("MRRMSE (lower is better), 95 % interval over compounds")
    kinds = [kind for kind in COLOURS if any(line.kind == kind for line in lines)]
    axes.legend([axes.plot([], [], "o", color=COLOURS[k])[0] for k in kinds], kinds, frameon=False, loc="best")
    axes.set_title(table.title, fontsize=10, wrap=True)


def _draw_compounds(axes: Axes, errors: Floats, compound: Strings) -> None:
    names, code = np.unique(compound.astype(str), return_inverse=True)
    mean = np.bincount(code, errors) / np.bincount(code)
    order = np.argsort(-mean)[:MOST_COMPOUNDS]
    place = {k: i for i, k in enumerate(order)}
    shown = np.isin(code, order)
    axes.plot(errors[shown], [-place[k] for k in code[shown]], "o", color=COLOURS["model"], alpha=0.5, ms=4)
    axes.plot(mean[order], -np.arange(len(order)), "|", color="black", ms=9)
    axes.set_yticks(-np.arange(len(order)), [_short(names[k]) for k in order], fontsize=6)
    axes.set_xlabel("row RMSE of the best model; | mean of the compound")
    axes.set_title(f"The {len(order)} compounds of {len(names)} with the largest error", fontsize=10)


def _draw_row(axes: Axes, true: Floats, predicted: Floats, *, label: str) -> None:
    axes.plot(predicted, true, ".", color=COLOURS["model"], alpha=0.3, ms=4, rasterized=True)
    reach = float(max(np.abs(true).max(), np.abs(predicted).max(), 1e-6)) * 1.05
    axes.plot([-reach, reach], [-reach, reach], color="black", lw=0.8)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="predicted", ylabel="measured")
    axes.set_title(f"The row of median error: {_short(label)}\none dot per gene", fontsize=10)


def _short(name: str) -> str:
    return name if len(name) <= 36 else name[:35] + "…"
