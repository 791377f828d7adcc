"""The table of what transfers: cells where they belong, and words that follow from the numbers."""

import json

from pertcast.report import readme
from pertcast.report.transfer import markdown_transfer, plain_transfer, remarks


def line(name, kind, mrrmse, v_floor, half_width=0.02):
    low, high = v_floor - half_width, v_floor + half_width
    return {"name": name, "kind": kind, "mrrmse": mrrmse, "v_floor": v_floor, "v_floor_low": low, "v_floor_high": high}


def split(name, *lines, refused=None):
    return {"name": name, "best_floor": "zeros", "folds": 5, "lines": list(lines), "refused": refused or {}}


ZEROS = line("zeros", "floor", 1.0, 0.0, 0.0)
FACTS = {
    "simulated": False,
    "splits": [
        split("compound", line("a", "model", 0.9, -0.1), line("b", "model", 1.01, 0.01), ZEROS, refused={"c": "Why."}),
        split(
            "celltype",
            line("a", "model", 1.05, 0.05),
            line("b", "model", 1.0, 0.0),
            line("c", "model", 0.7, -0.3),
            ZEROS,
        ),
    ],
}


def test_a_line_for_every_model_and_a_pair_of_cells_for_every_split():
    """Best first by the mean difference, by hand: c -0.3, a -0.025, b 0.005."""
    head, rule, *rows = markdown_transfer(FACTS).split("\n\n")[0].splitlines()
    assert head == "|  | compound | v best floor | celltype | v best floor |"
    assert rule == "| --- | ---: | ---: | ---: | ---: |"
    assert rows == [
        "| c |  | cannot answer | 0.700 | -0.300 (-0.320 to -0.280) |",
        "| a | 0.900 | -0.100 (-0.120 to -0.080) | 1.050 | +0.050 (+0.030 to +0.070) |",
        "| b | 1.010 | +0.010 (-0.010 to +0.030) | 1.000 | +0.000 (-0.020 to +0.020) |",
        "| *zeros* (floor) | 1.000 | +0.000 (+0.000 to +0.000) | 1.000 | +0.000 (+0.000 to +0.000) |",
    ]


def test_verdicts_follow_from_the_intervals():
    """A floor is beaten where the whole interval is below 0, and nowhere where no difference is."""
    _, compound, celltype, nowhere, refusal = remarks(FACTS)
    assert compound == "compound (5 folds), against its best floor 'zeros': better: a; not told apart: b."
    assert celltype == "celltype (5 folds), against its best floor 'zeros': better: c; not told apart: b; worse: a."
    assert nowhere == "Better than the best floor nowhere: b."
    assert refusal == "c cannot answer compound: Why."


def test_one_reason_for_several_splits_is_said_once():
    facts = {"simulated": True, "splits": [split(name, ZEROS, refused={"c": "Why."}) for name in ("x", "y")]}
    *_, nowhere, refusal = remarks(facts)
    assert (nowhere, refusal) == ("Better than the best floor nowhere: none.", "c cannot answer x, y: Why.")
    assert markdown_transfer(facts).splitlines()[3] == "| c |  | cannot answer |  | cannot answer |"  # last
    assert plain_transfer(facts).startswith("MRRMSE of held-out rows, SIMULATED data. Held out whole: x, y\n")


def test_the_readme_takes_its_facts(tmp_path):
    path, facts = tmp_path / "README.md", tmp_path / "facts.json"
    path.write_text("<!-- table:transfer -->\n<!-- /table:transfer -->\n")
    facts.write_text(json.dumps(FACTS))
    readme.main(path, "transfer", facts)
    assert markdown_transfer(FACTS) in path.read_text()
