"""A score table as text: every number where it belongs, within a terminal's width whatever the names."""

import numpy as np
import pytest

from pertcast.report.text import WIDTH, plain
from pertcast.validation.scores import Scored, make_table

ROWS = np.arange(12)


def table(parts=("B cells",), names=("good", "bad"), note=""):
    rows = [
        Scored("zeros", "floor", np.full(12, 2.0), np.zeros(12)),
        Scored(names[0], "model", np.full(12, 1.25), np.full(12, 0.5), note),
        Scored(names[1], "model", np.full(12, 2.5)),
        Scored("oracle", "ceiling", np.full(12, 1.0)),
    ]
    masks = {name: ROWS % len(parts) == k for k, name in enumerate(parts)}
    return make_table("MRRMSE of 12 rows", rows, compound=(ROWS // 2).astype(object), parts=masks)


def test_every_line_by_hand():
    """S004-14: floor, model, ceiling, the difference to the best floor, and the verdict."""
    lines = plain(table(note="half of each")).splitlines()
    assert lines[0] == "MRRMSE of 12 rows"
    rows = {line.split("  ")[0]: line.split() for line in lines[3:7]}
    assert rows["good"] == "good 1.2500 1.250 - 1.250 0.500 -0.7500 -0.750 to -0.750".split()
    assert rows["bad"] == "bad 2.5000 2.500 - 2.500 +0.5000 +0.500 to +0.500".split()
    assert rows["zeros (floor)"][2:4] == ["2.0000", "2.000"]
    assert rows["oracle (ceiling)"][2:4] == ["1.0000", "1.000"]
    text = "\n".join(lines)
    assert "MRRMSE by part    B cells\n" in text
    assert "good: half of each" in text
    assert "'v best floor' is the difference to the floor 'zeros'" in text
    assert "bad is worse than the floor 'zeros' by 0.5000 (interval +0.5000 to +0.5000)." in text
    assert "good is worse" not in text


def test_columns_are_aligned():
    """Numbers end where their heading ends."""
    lines = plain(table(parts=("B cells", "Myeloid cells"))).splitlines()
    for head in (lines[1], lines[8]):
        assert set(lines[lines.index(head) + 1]) == {"-"}
    first = [line for line in lines[3:7]]
    assert len({len(line) for line in [lines[1], *first]}) == 1
    assert len({line.index(".") for line in first}) == 1


@pytest.mark.parametrize("count", [1, 7, 8, 40])
def test_it_fits_a_terminal(count):
    """Many folds, long cell types, long notes: no line is longer than a hundred characters, no part is lost."""
    parts = tuple(f"T regulatory cells {k}" for k in range(min(count, 12)))
    shown = plain(table(parts=parts, note="0.25 transformer, " * 20))
    assert max(map(len, shown.splitlines())) <= WIDTH
    heads = [line for line in shown.splitlines() if line.startswith("MRRMSE by part")]
    assert "".join(heads).count("T regulatory") == len(parts)
    for name in parts:
        assert sum(name in head.replace(f"{name}0", "").replace(f"{name}1", "") for head in heads) == 1


def test_one_part_wider_than_the_terminal_stands_alone():
    shown = plain(table(parts=("x" * 120, "y")))
    assert sum("MRRMSE by part" in line for line in shown.splitlines()) == 2


def test_without_parts():
    shown = make_table("t", [Scored("zeros", "floor", np.ones(12))], compound=ROWS.astype(object), parts={})
    assert "by part" not in plain(shown)
