"""Scores as a picture: the table, the error of each compound, and one row predicted against measured."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from pertcast.io.atomic import atomic_path
from pertcast.types import Floats, Question, Strings
from pertcast.validation.scores import ScoreTable
from pertcast.workflow import Scope

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"ceiling": "#3a7d44", "model": "#2f6690", "floor": "#b0b0b0"}
MOST_COMPOUNDS = 40  # labels that can still be read
TITLE_WIDTH = 66  # characters over one of three panels


def draw_report(path: Path, table: ScoreTable, scope: Scope) -> None:
    """Draw the three panels of a report into a PNG file."""
    with atomic_path(path) as draft:
        report_figure(table, scope).savefig(draft, dpi=110, format="png", metadata={"Software": None})


def report_figure(table: ScoreTable, scope: Scope) -> Figure:
    """Draw the table, the error of each compound, and one row predicted against measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1.25, 1))
    draw_table(left, table)
    errors = np.sqrt(((scope.y_true - scope.y_pred) ** 2).mean(1))
    draw_compounds(middle, errors, scope.compound)
    row = int(np.argsort(errors)[len(errors) // 2])
    draw_row(right, scope.y_true[row], scope.y_pred[row], label=f"{scope.cell_type[row]}, {scope.compound[row]}")
    return figure


def draw_table(axes: Axes, table: ScoreTable) -> None:
    """Draw each line's score with its interval, best at the top."""
    lines = table.lines[::-1]  # best at the top
    for i, line in enumerate(lines):
        axes.plot([line.low, line.high], [i, i], color=COLOURS[line.kind], lw=2, zorder=2)
        axes.plot(line.mrrmse, i, "o", color=COLOURS[line.kind], ms=8, zorder=3)
        at = (line.mrrmse, i)
        axes.annotate(f"{line.mrrmse:.3f}", at, (0, 7), textcoords="offset points", ha="center", fontsize=8)
    axes.axvline(table.line(table.best_floor).mrrmse, color=COLOURS["floor"], ls="--", lw=1)
    axes.set_yticks(range(len(lines)), [_short(line.name) for line in lines])
    axes.set_ylim(-0.6, len(lines) - 0.2)
    axes.set_xlabel("MRRMSE (lower is better), 95 % interval over compounds")
    kinds = [kind for kind in COLOURS if any(line.kind == kind for line in lines)]
    axes.legend([axes.plot([], [], "o", color=COLOURS[k])[0] for k in kinds], kinds, frameon=False, loc="best")
    axes.set_title(fill(table.title, TITLE_WIDTH), fontsize=10)


def draw_compounds(axes: Axes, errors: Floats, compound: Strings) -> None:
    """Draw the row errors (n,) of the compounds with the largest mean error."""
    names, code = np.unique(compound.astype(str), return_inverse=True)
    mean = np.bincount(code, errors) / np.bincount(code)
    order = np.argsort(-mean)[:MOST_COMPOUNDS]
    place = {k: i for i, k in enumerate(order)}
    shown = np.isin(code, order)
    axes.plot(errors[shown], [-place[k] for k in code[shown]], "o", color=COLOURS["model"], alpha=0.5, ms=4)
    axes.plot(mean[order], -np.arange(len(order)), "|", color="black", ms=9)
    axes.set_yticks(-np.arange(len(order)), [_short(names[k]) for k in order], fontsize=6)
    axes.set_xlabel("row RMSE of the best model; | mean of the compound")
    axes.set_title(f"Compounds by error: the largest {len(order)} of {len(names)}", fontsize=10)


def draw_row(axes: Axes, true: Floats, predicted: Floats, *, label: str) -> None:
    """Draw one row, measured (g,) against predicted (g,)."""
    axes.plot(predicted, true, ".", color=COLOURS["model"], alpha=0.3, ms=4, rasterized=True)
    reach = float(max(np.abs(true).max(), np.abs(predicted).max(), 1e-6)) * 1.05
    axes.plot([-reach, reach], [-reach, reach], color="black", lw=0.8)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="predicted", ylabel="measured")
    axes.set_title(f"The row of median error: {_short(label)}\none dot per gene", fontsize=10)


def draw_pairs(axes: Axes, question: Question) -> None:
    """Draw which pairs of cell type and compound were measured, and which are asked for."""
    from matplotlib.colors import to_rgb

    types = sorted({*question.cell_type, *question.test_cell_type}, key=lambda t: (t in question.target_types, t))
    compounds = sorted({*question.compound, *question.test_compound})
    row, column = ({name: i for i, name in enumerate(names)} for names in (types, compounds))
    image = np.ones((len(types), len(compounds), 3))
    pairs = (
        (question.cell_type, question.compound, COLOURS["model"]),
        (question.test_cell_type, question.test_compound, "#f2b134"),
    )
    for cell_type, compound, colour in pairs:
        image[[row[t] for t in cell_type], [column[c] for c in compound]] = to_rgb(colour)
    axes.imshow(image, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(types)), types, fontsize=8)
    axes.set_xticks([])
    axes.set_xlabel(f"{len(compounds)} compounds")
    axes.set_title("blue: measured, yellow: asked for, white: neither", fontsize=10)


def draw_strength(axes: Axes, strength: Floats, group: Strings) -> None:
    """Draw the root mean square of each row (n,), by group (n,), strongest groups first."""
    names, code = np.unique(group.astype(str), return_inverse=True)
    order = np.argsort(-np.bincount(code, strength) / np.bincount(code))[:MOST_COMPOUNDS]
    axes.boxplot([strength[code == k] for k in order], widths=0.7, flierprops={"markersize": 2})
    axes.set_xticks(np.arange(len(order)) + 1, [_short(names[k]) for k in order], rotation=90, fontsize=7)
    axes.set_ylabel("root mean square of a row")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")


def draw_agreement(axes: Axes, question: Question, *, seed: int = 0) -> None:
    """Draw how responses to one compound correlate between cell types, against different compounds."""
    rng = np.random.default_rng(seed)
    centred = question.y - question.y.mean(1, keepdims=True)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    first, second = rng.integers(len(unit), size=(2, 20_000))
    other_type = question.cell_type[first] != question.cell_type[second]
    same = question.compound[first] == question.compound[second]
    everything = np.triu(question.compound[:, None] == question.compound, 1).nonzero()
    bins = np.linspace(-1, 1, 41)
    different = (unit[first] * unit[second]).sum(1)[other_type & ~same]
    alike = (unit[everything[0]] * unit[everything[1]]).sum(1)
    axes.hist(different, bins, density=True, color=COLOURS["floor"], label=f"different (mean {different.mean():.2f})")
    axes.hist(alike, bins, density=True, color=COLOURS["model"], alpha=0.7, label=f"same (mean {alike.mean():.2f})")
    axes.set(xlabel="correlation of two rows of different cell types", ylabel="density")
    axes.legend(title="compound", frameon=False)


def _short(name: str) -> str:
    return name if len(name) <= 36 else name[:35] + "…"
