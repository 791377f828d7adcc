"""What tuning found and what it is worth, as plain text."""

from __future__ import annotations

from pertcast.report.text import aligned, plain
from pertcast.tuning import Compared, Tuned
from pertcast.validation.scores import ScoreTable


def plain_tuned(tuned: Tuned, table: ScoreTable) -> str:
    """Lay fields, scores with the paired difference, the verdict and the table with floors out for a terminal."""
    head = f"{tuned.own.name}: {tuned.trials} trials, {tuned.pruned} of them stopped early; number {tuned.best} is best"
    changes = [[field, *map(str, values)] for field, values in tuned.changes().items()]
    scores = [
        _scores("folds that tuning saw", tuned.seen),
        _scores("folds that tuning never saw", tuned.unseen),
    ]
    return "\n".join(
        [
            head,
            "",
            *aligned([["setting", "own", "tuned"], *changes]),
            "",
            *aligned([["MRRMSE", "own", "tuned", "difference", "standard error", "rows", "folds"], *scores]),
            "",
            verdict(tuned.unseen),
            "",
            plain(table),
        ]
    )


def verdict(unseen: Compared) -> str:
    """Say whether tuning helped, as far as rows that it never saw can tell."""
    if abs(unseen.difference) <= 2 * unseen.standard_error:
        return "On folds that tuning never saw the difference is within two standard errors: no gain can be told."
    kind = "better" if unseen.difference < 0 else "worse"
    return f"On folds that tuning never saw the tuned settings are {kind} by more than two standard errors."


def _scores(name: str, compared: Compared) -> list[str]:
    own, tuned = compared.own.mean(), compared.tuned.mean()
    numbers = [f"{own:.4f}", f"{tuned:.4f}", f"{compared.difference:+.4f}", f"{compared.standard_error:.4f}"]
    return [name, *numbers, str(len(compared.rows)), str(len(compared.folds))]
