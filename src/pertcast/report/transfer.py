"""What transfers, as text and as markdown: a line for every model, a pair of columns for every kind of fold."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill

from pertcast.report.text import WIDTH, aligned, piped
from pertcast.validation.scores import KINDS

Facts = dict  # what `Transfer.as_dict` gave

LEGEND = (
    "Lower is better. v best floor: the difference to the best floor of that column, with its 95 % interval when the "
    "held-out compounds, scaffolds or cell types are drawn again."
)


def plain_transfer(facts: Facts) -> str:
    """Lay the table out for a terminal, with what it says of floors and refusals below."""
    told = (fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for text in remarks(facts))
    return "\n".join([_title(facts), *aligned(_rows(facts, "")), "", *told])


def markdown_transfer(facts: Facts) -> str:
    """Lay the same table out in markdown."""
    return "\n".join([piped(_rows(facts, "*")), *(f"\n{text}" for text in remarks(facts))])


def remarks(facts: Facts) -> Iterator[str]:
    """Say how to read the table, which models beat the best floor where, which nowhere, and which cannot answer."""
    yield LEGEND
    for split in facts["splits"]:
        models = [line for line in split["lines"] if line["kind"] == "model"]
        better = [line["name"] for line in models if line["v_floor_high"] < 0]
        worse = [line["name"] for line in models if line["v_floor_low"] > 0]
        level = [line["name"] for line in models if line["name"] not in (*better, *worse)]
        groups = {"better": better, "not told apart": level, "worse": worse}
        said = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in groups.items() if names)
        floor = f"against its best floor '{split['best_floor']}'"
        yield f"{split['name']} ({split['folds']} folds), {floor}: {said or 'no model'}."
    answers = {name: _lines(facts, name).values() for name, kind in _order(facts) if kind == "model"}
    losers = [name for name, lines in answers.items() if lines and all(line["v_floor"] >= 0 for line in lines)]
    yield f"Better than the best floor nowhere: {', '.join(losers) or 'none'}."
    refused: dict[tuple[str, str], list[str]] = {}
    for split in facts["splits"]:
        for recipe, reason in split["refused"].items():
            refused.setdefault((recipe, reason), []).append(split["name"])
    yield from (f"{recipe} cannot answer {', '.join(names)}: {reason}" for (recipe, reason), names in refused.items())


def _title(facts: Facts) -> str:
    kind = "SIMULATED data" if facts["simulated"] else "measured data"
    return f"MRRMSE of held-out rows, {kind}. Held out whole: {', '.join(split['name'] for split in facts['splits'])}"


def _rows(facts: Facts, mark: str) -> list[list[str]]:
    rows = [["", *(text for split in facts["splits"] for text in (split["name"], "v best floor"))]]
    for name, kind in _order(facts):
        lines = _lines(facts, name)
        cells = [cell for split in facts["splits"] for cell in _cells(lines.get(split["name"]))]
        rows.append([name if kind == "model" else f"{mark}{name}{mark} ({kind})", *cells])
    return rows


def _cells(line: dict | None) -> tuple[str, str]:
    if line is None:
        return "", "cannot answer"
    interval = f"{line['v_floor_low']:+.3f} to {line['v_floor_high']:+.3f}"
    return f"{line['mrrmse']:.3f}", f"{line['v_floor']:+.3f} ({interval})"


def _lines(facts: Facts, name: str) -> dict[str, dict]:
    """Return what a model scored, split by split; nothing where it could not answer."""
    return {split["name"]: line for split in facts["splits"] for line in split["lines"] if line["name"] == name}


def _order(facts: Facts) -> list[tuple[str, str]]:
    """Name everything with its kind, best first within ceiling, models and floors; what answers nowhere is last."""
    kinds = {line["name"]: line["kind"] for told in facts["splits"] for line in told["lines"]}

    def mean_difference(name: str) -> float:
        differences = [line["v_floor"] for line in _lines(facts, name).values()]
        return sum(differences) / len(differences)

    order = sorted(kinds, key=lambda name: (KINDS.index(kinds[name]), mean_difference(name)))
    never = sorted({one for told in facts["splits"] for one in told["refused"]} - set(kinds))
    return [(name, kinds[name]) for name in order] + [(name, "model") for name in never]
