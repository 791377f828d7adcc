"""Keep the score tables of a README: replace what stands between two markers by what a command said with `--json`.

`python -m pertcast.report.readme README.md NAME FACTS.json` fills the place of the markers `<!-- table:NAME -->` and
`<!-- /table:NAME -->`; the facts are those of `pertcast submission`, `pertcast transfer` or
`pertcast cells benchmark`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scipy.stats import spearmanr

from pertcast.errors import InputError
from pertcast.report.cell_benchmark import markdown_benchmark
from pertcast.report.text import piped
from pertcast.report.transfer import markdown_transfer

HEAD = ("", "held-out training rows", "95 % interval", "rows to predict", "95 % interval", "against the best floor")


def fill(text: str, name: str, table: str) -> str:
    """Put a table between the markers of its name; raises InputError where there are none."""
    start, end = f"<!-- table:{name} -->", f"<!-- /table:{name} -->"
    before, opened, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise InputError(f"The text has no place for table '{name}'. Write '{start}' and '{end}' where it belongs.")
    return f"{before}{start}\n{table}\n{end}{after}"


def markdown(facts: dict) -> str:
    """Lay out the lines of `cv` and `score` beside each other, and say which models are below their floor.

    facts   what `pertcast submission --json` prints; `score` is None where no solution lies beside the data
    """
    cv, solution = facts["cv"], facts["score"] or {"lines": [], "verdicts": []}
    score = {line["name"]: line for line in solution["lines"]}
    rows = [list(HEAD)]
    for line in cv["lines"]:
        name = line["name"] if line["kind"] == "model" else f"*{line['name']}* ({line['kind']})"
        final = score.get(line["name"])
        rows.append([name, *_score_cells(line), *_score_cells(final), _difference(final)])
    below = agreement(cv["lines"], solution["lines"])
    below += [f"Held-out rows: {text}" for text in cv["verdicts"]]
    below += [f"Rows to predict: {text}" for text in solution["verdicts"]]
    return "\n".join([piped(rows), *(f"\n{text}" for text in below), *_by_part(cv["lines"], solution["lines"])])


def agreement(held_out: list[dict], solution: list[dict]) -> list[str]:
    """Say whether cross-validation ranks the models and floors as the rows to predict do; nothing below three."""
    final = {line["name"]: line["mrrmse"] for line in solution if line["kind"] != "ceiling"}
    pairs = [(line["mrrmse"], final[line["name"]]) for line in held_out if line["name"] in final]
    if len(pairs) < 3:
        return []
    rho = spearmanr(*zip(*pairs, strict=True)).statistic
    orders = "on held-out rows against their order on the rows to predict"
    return [f"Order of these {len(pairs)} {orders}: Spearman {rho:.2f}."]


def _by_part(held_out: list[dict], solution: list[dict]) -> list[str]:
    """Lay out the scores by cell type and fold, and by public and private rows, where they were taken, folded away."""
    final = {line["name"]: line["parts"] for line in solution}
    parts = list(held_out[0]["parts"])
    shares = list(solution[0]["parts"]) if solution else []
    if not parts:
        return []
    rows = [["", *parts, *(f"to predict: {share}" for share in shares)]]
    for line in held_out:
        more = final.get(line["name"])
        cells = [f"{line['parts'][part]:.3f}" for part in parts]
        rows.append([line["name"], *cells, *(f"{more[share]:.3f}" if more else "" for share in shares)])
    return ["\n<details><summary>By cell type and fold</summary>\n", piped(rows), "\n</details>"]


def _score_cells(line: dict | None) -> list[str]:
    return ["", ""] if line is None else [f"{line['mrrmse']:.3f}", f"{line['low']:.3f} - {line['high']:.3f}"]


def _difference(line: dict | None) -> str:
    if line is None:
        return ""
    return f"{line['v_floor']:+.3f} ({line['v_floor_low']:+.3f} to {line['v_floor_high']:+.3f})"


def main(readme: Path, name: str, facts: Path) -> None:
    """Fill one table of a README from the JSON of a submission, of what transfers, or of a benchmark of cells."""
    told = json.loads(facts.read_text())
    forms = {"holdouts": markdown_benchmark, "splits": markdown_transfer}
    table = next((form for key, form in forms.items() if key in told), markdown)(told)
    readme.write_text(fill(readme.read_text(), name, table))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
