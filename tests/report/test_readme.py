"""Tables of the README: the right numbers in the right place, and nothing else touched."""

import json

import pytest

from pertcast.errors import InputError
from pertcast.report import readme


def line(name, kind, mrrmse, v_floor, parts=None):
    return {
        "parts": parts or {},
        "name": name, "kind": kind, "mrrmse": mrrmse, "low": mrrmse - 0.1, "high": mrrmse + 0.1,
        "v_floor": v_floor, "v_floor_low": v_floor - 0.02, "v_floor_high": v_floor + 0.02,
    }  # fmt: skip


CV = {
    "lines": [line("blend", "model", 0.8, -0.2), line("ridge", "model", 0.9, -0.1), line("zeros", "floor", 1, 0)],
    "verdicts": [],
}
SCORE = {"lines": [line("blend", "model", 1.5, -0.5), line("zeros", "floor", 2, 0)], "verdicts": []}


def test_lines_of_both_tables_stand_side_by_side():
    *head, blend, ridge, zeros = readme.markdown({"cv": CV, "score": SCORE}).splitlines()
    assert len(head) == 2
    assert blend == "| blend | 0.800 | 0.700 - 0.900 | 1.500 | 1.400 - 1.600 | -0.500 (-0.520 to -0.480) |"
    assert ridge == "| ridge | 0.900 | 0.800 - 1.000 |  |  |  |"  # a member: only the blend was submitted
    assert zeros == "| *zeros* (floor) | 1.000 | 0.900 - 1.100 | 2.000 | 1.900 - 2.100 | +0.000 (-0.020 to +0.020) |"


def test_without_a_solution_the_cells_are_empty():
    assert readme.markdown({"cv": CV, "score": None}).splitlines()[2] == "| blend | 0.800 | 0.700 - 0.900 |  |  |  |"


def test_a_model_below_its_floor_is_said_to_be_so():
    """A score never stands without its floor."""
    facts = {"cv": CV | {"verdicts": ["ridge is worse."]}, "score": SCORE | {"verdicts": ["blend is worse."]}}
    assert readme.markdown(facts).endswith(" |\n\nHeld-out rows: ridge is worse.\n\nRows to predict: blend is worse.")


def test_the_order_of_models_is_compared_by_rank():
    """PEERS 1: a cross-validation is worth what its order is worth. By hand: ranks 1 2 3 4 against 2 1 3 4 give 0.8."""
    names, held_out, final = "abcd", (0.1, 0.2, 0.3, 0.4), (2.0, 1.0, 3.0, 4.0)
    lines = [[line(n, "model", x, 0) for n, x in zip(names, xs, strict=True)] for xs in (held_out, final)]
    (said,) = readme.agreement(*lines)
    assert "these 4" in said
    assert said.endswith("Spearman 0.80.")
    assert readme.agreement(lines[0], lines[1][:2]) == []


def test_scores_by_fold_are_folded_away():
    cv = {"lines": [line("ridge", "model", 0.9, 0, {"B cells": 0.8, "known-0": 1.0})], "verdicts": []}
    score = {"lines": [line("ridge", "model", 1.1, 0, {"Public": 1.2})], "verdicts": []}
    text = readme.markdown({"cv": cv, "score": score})
    assert "|  | B cells | known-0 | to predict: Public |\n| --- | ---: | ---: | ---: |" in text
    assert "| ridge | 0.800 | 1.000 | 1.200 |\n\n</details>" in text


def test_only_what_stands_between_the_markers_changes(tmp_path):
    path, facts = tmp_path / "README.md", tmp_path / "facts.json"
    path.write_text("a\n<!-- table:x -->\nold\n<!-- /table:x -->\nb\n<!-- table:y -->\nkept\n<!-- /table:y -->\n")
    facts.write_text(json.dumps({"cv": CV, "score": SCORE}))
    readme.main(path, "x", facts)
    once = path.read_text()
    table = readme.markdown({"cv": CV, "score": SCORE})
    rest = "b\n<!-- table:y -->\nkept\n<!-- /table:y -->\n"
    assert once == f"a\n<!-- table:x -->\n{table}\n<!-- /table:x -->\n{rest}"
    readme.main(path, "x", facts)
    assert path.read_text() == once


@pytest.mark.parametrize("text", ["", "<!-- table:x -->", "<!-- /table:x -->", "<!-- /table:x --><!-- table:x -->"])
def test_a_text_without_the_place_is_refused(text):
    with pytest.raises(InputError, match="no place for table 'x'"):
        readme.fill(text, "x", "")
