"""A benchmark of models of cells as text, markdown and picture."""

import json

import pytest

from pertcast.metrics.treated import COLUMNS
from pertcast.report import readme
from pertcast.report.cell_benchmark import (
    HIGHEST,
    LOWEST,
    benchmark_figure,
    draw_benchmark,
    markdown_benchmark,
    plain_benchmark,
)

ROLES = {"ours": "model", "no-change": "floor", "half of the truth": "ceiling"}


def table(title, skills, shape=(0.1, 0.2, 0.05)):
    lines = []
    for (name, role), skill, w1 in zip(ROLES.items(), skills, shape, strict=True):
        scores = dict.fromkeys(COLUMNS, 0.5) | {"skill DE": skill, "Wasserstein": w1, "delta Pearson": None}
        lines.append({"name": name, "role": role, "scores": scores})
    return {"title": title, "lines": lines}


def facts(parts=2, worst=-4.0):
    return {
        "mean": table("Mean over some hold-outs", (0.8, 0.0, 0.95)),
        "holdouts": [table(f"drug in {number}", (worst, 0.0, 0.9)) for number in range(parts)],
        "intervals": {"ours": {"skill DE": [0.7, 0.9]}}, "seed_sd": {"ours": {"skill DE": 0.01}},
        "remarks": ["ours is behind a floor in skill"],
    }  # fmt: skip


def test_a_terminal_gets_a_table_how_sure_it_is_and_remarks():
    text = plain_benchmark(facts())
    ours = next(line for line in text.splitlines() if line.startswith("ours "))
    assert ours.split()[1:] == ["0.500", "0.800", "0.500", "0.500", "0.100", "0.500", "0.500", "0.5000"]  # no delta r
    assert "no-change (floor)" in text
    assert "half of the truth (ceiling)" in text
    assert "of ours over held-out cells: skill DE 0.700 to 0.900, sd over seeds 0.010." in text
    assert text.endswith("ours is behind a floor in skill")
    assert max(map(len, text.splitlines())) <= 110


def test_markdown_has_a_cell_for_every_column_and_hold_out(tmp_path):
    """The table goes between the markers of a README, and is put there by the same command as any other."""
    text = markdown_benchmark(facts())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows[:5]}) == 1
    assert "| *no-change* (floor) | 0.000 / 0.500 | 0.000 / 0.500 |" in rows
    assert "| ours | -4.000 / 0.500 | -4.000 / 0.500 |" in rows
    assert "<details>" not in markdown_benchmark(facts(parts=27))
    (tmp_path / "README.md").write_text("a\n<!-- table:x -->\n<!-- /table:x -->\n")
    (tmp_path / "facts.json").write_text(json.dumps(facts()))
    readme.main(tmp_path / "README.md", "x", tmp_path / "facts.json")
    assert text in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("parts", [1, 2, 8, 9, 27])
def test_pictures_show_every_hold_out_and_cut_what_is_far_off(parts):
    figure = benchmark_figure(facts(parts), title="some cells")
    left, right = figure.axes
    labels = [label.get_text() for label in right.get_yticklabels()]
    assert labels == ["ours  1", "no-change  2", "half of the truth  3"]
    assert {text.get_text() for text in left.texts} == {"1", "2", "3"}
    assert len(right.patches) == (3 * parts if parts <= 8 else 0)
    assert len(right.collections) == (0 if parts <= 8 else parts)
    if parts <= 8:
        assert min(bar.get_width() for bar in right.patches) == LOWEST
        assert "-4.0" in {text.get_text().strip() for text in right.texts}
    heights = [line.get_ydata()[0] for line in left.lines if len(line.get_ydata())]
    assert max(heights) == pytest.approx(HIGHEST * 0.1)  # the floor's 0.2 is cut


def test_same_facts_same_picture(tmp_path):
    for name in "ab":
        draw_benchmark(tmp_path / f"{name}.png", facts(), title="some cells")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
