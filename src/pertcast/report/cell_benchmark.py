"""A benchmark of models of cells as text, as markdown, and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from pertcast.io.atomic import atomic_path
from pertcast.report.text import WIDTH, aligned, piped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Facts = dict  # what `Benchmark.as_dict` gave and benchmark.json holds

SHOWN = {  # column: its head
    "skill": "skill", "skill DE": "skill DE", "R2 DE": "R2 DE", "delta Pearson": "delta r",
    "energy distance": "E-dist", "Wasserstein": "W1", "Wasserstein DE": "W1 DE", "variance ratio": "VR",
    "zero error": "zeros",
}  # fmt: skip
LEGEND = (
    "Held-out treated cells against predicted ones, log1p of counts per 10,000. Skill: share of the squared change of "
    "gene means that is right (1 best, 0 no change); DE: over the genes that differ most; R2 of gene means; delta r: "
    "Pearson of their changes; E-dist: energy distance in principal axes; W1: Wasserstein distance per gene; VR: ratio "
    "of variances (1 best); zeros: error in their share. What is below a floor is not worth fitting."
)
SURE = ("skill", "skill DE", "R2 DE")  # whose intervals are printed for the best model
MOST_BARS = 8  # hold-outs that get bars of their own; more are drawn as dots
COLOURS = {"model": "#2f6690", "floor": "#8f8f8f", "ceiling": "black"}
HIGHEST = 1.5  # times the median Wasserstein distance in a picture; what is worse is drawn there
LOWEST = -0.5  # of a skill in a picture; what is worse is drawn there, and bars have it written


def plain_benchmark(facts: Facts) -> str:
    """Lay the mean over hold-outs out for a terminal: models, references, ceiling; how sure it is; remarks."""
    mean = facts["mean"]
    rows = [["", *SHOWN.values()], *([_name(line), *_cells(line)] for line in mean["lines"])]
    told = [*_sure(facts), LEGEND, *facts["remarks"]]
    return "\n".join([mean["title"], *aligned(rows), "", *(fill(text, WIDTH, subsequent_indent="  ") for text in told)])


def markdown_benchmark(facts: Facts) -> str:
    """Lay the same table out in markdown, with the skill of every hold-out folded away."""
    lines = facts["mean"]["lines"]
    rows = [["", *SHOWN.values()], *([_name(line, "*"), *_cells(line)] for line in lines)]
    told = [LEGEND, *_sure(facts), *facts["remarks"]]
    titles = [table["title"] for table in facts["holdouts"]]
    parts = [["skill DE / energy distance", *titles]]
    for number, line in enumerate(lines):
        scores = [table["lines"][number]["scores"] for table in facts["holdouts"]]
        parts.append([_name(line, "*"), *(f"{_text(s['skill DE'])} / {_text(s['energy distance'])}" for s in scores)])
    folded = ["\n<details><summary>By hold-out</summary>\n", piped(parts), "\n</details>"]
    return "\n".join([piped(rows), *(f"\n{text}" for text in told), *(folded if len(titles) <= MOST_BARS else ())])


def draw_benchmark(path: Path, facts: Facts, *, title: str) -> None:
    """Draw a PNG: mean against shape, and every hold-out."""
    with atomic_path(path) as draft:
        benchmark_figure(facts, title=title).savefig(draft, dpi=110, format="png", metadata={"Software": None})


def benchmark_figure(facts: Facts, *, title: str) -> Figure:
    """Draw mean against shape on the left; on the right the skill of every model in every hold-out."""
    from matplotlib.figure import Figure

    lines = [line for line in facts["mean"]["lines"] if line["scores"]["skill DE"] is not None]
    figure = Figure(figsize=(13, max(4.8, 0.42 * len(lines) + 1.6)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_mean_and_shape(left, lines)
    _draw_hold_outs(right, facts, [line["name"] for line in lines])
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_mean_and_shape(axes: Axes, lines: Sequence[dict]) -> None:
    """Draw a number for each, as the names beside it are numbered; who has both stands where the ceiling is."""
    shapes = [line["scores"]["Wasserstein"] for line in lines]
    highest = HIGHEST * sorted(shapes)[len(shapes) // 2]
    for number, line in reversed(list(enumerate(lines, 1))):
        x, y = max(line["scores"]["skill DE"], LOWEST), min(shapes[number - 1], highest)
        axes.plot(x, y, "o", ms=14, color=COLOURS[line["role"]], alpha=0.85)
        axes.annotate(str(number), (x, y), fontsize=8, ha="center", va="center", color="white")
    axes.margins(0.08)
    axes.set(xlabel="skill on the genes that differ most (mean)", ylabel="Wasserstein distance per gene (shape)")
    axes.set_title("Mean and shape: best is at the lower right", fontsize=10)
    axes.grid(alpha=0.25)
    for role, colour in COLOURS.items():
        axes.plot([], [], "o", color=colour, label=role)
    axes.legend(frameon=False, fontsize=8)


def _draw_hold_outs(axes: Axes, facts: Facts, names: Sequence[str]) -> None:
    """Skill of every model, hold-out by hold-out: bars where they are few, else dots."""
    import numpy as np
    from matplotlib import colormaps

    parts = facts["holdouts"]
    scores = [{line["name"]: line["scores"]["skill DE"] for line in part["lines"]} for part in parts]
    few = len(parts) <= MOST_BARS
    height = 0.8 / len(parts)
    at = np.arange(len(names))
    for number, part in enumerate(parts):
        values = np.array([np.nan if scores[number][name] is None else scores[number][name] for name in names])
        shown = np.maximum(values, LOWEST)
        if few:
            place = at - 0.4 + height * (number + 0.5)
            colour = colormaps["tab10"](number)
            axes.barh(place, shown, height=0.92 * height, color=colour, label=part["title"])
            for value, y in zip(values, place, strict=True):
                if value < LOWEST:
                    axes.text(LOWEST, y, f" {value:.1f}", va="center", fontsize=6, color="white")
        else:
            colours = [COLOURS[line["role"]] for line in part["lines"] if line["name"] in names]
            axes.scatter(shown, at + 0.24 * np.sin(9.0 * number), s=16, alpha=0.5, c=colours)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(at, [f"{name}  {number}" for number, name in enumerate(names, 1)], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(left=None if np.nanmin(axes.get_xlim()) > LOWEST else LOWEST)
    axes.set_xlabel(f"skill on the genes that differ most; 0 no change, 1 perfect (cut at {LOWEST})")
    axes.set_title("Hold-out by hold-out" if few else f"{len(parts)} hold-outs, a dot each", fontsize=10)
    if few:
        handles = axes.get_legend_handles_labels()
        axes.figure.legend(*handles, frameon=False, fontsize=8, loc="outside lower right", ncols=4)


def _sure(facts: Facts) -> list[str]:
    """Say how sure the scores of the best model are: over held-out cells, and over seeds."""
    best = facts["mean"]["lines"][0]["name"]
    known, spread = facts["intervals"].get(best, {}), facts["seed_sd"].get(best, {})
    if not known:
        return []
    told = []
    for column in (name for name in SURE if name in known):
        low, high = known[column]
        seeds = f", sd over seeds {spread[column]:.3f}" if column in spread else ""
        told.append(f"{column} {low:.3f} to {high:.3f}{seeds}")
    return [f"95 % intervals of {best} over held-out cells: {'; '.join(told)}."]


def _cells(line: dict) -> list[str]:
    return [_text(line["scores"][column], 4 if column == "zero error" else 3) for column in SHOWN]


def _text(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value + 0.0:.{digits}f}".replace("-0.000", "0.000")


def _name(line: dict, mark: str = "") -> str:
    return line["name"] if line["role"] == "model" else f"{mark}{line['name']}{mark} ({line['role']})"
