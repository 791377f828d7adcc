"""What can go wrong through the user's input, said once, in one form.

Every message names the thing, what was expected, what was got and the fix. The command line prints it without a
traceback and exits with `exit_code`.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class PertcastError(Exception):
    """The user's input is at fault. Message only, no traceback; exit code 2."""

    exit_code = 2


class InputError(PertcastError):
    """A file, table, name or setting is not what it must be."""


class LeakError(PertcastError):
    """Rows that were held out would be seen in fitting, or fitted rows would be scored as held out."""


class NotFittedError(PertcastError):
    """A model was used before `fit` or `load`."""


def several(subject: str, problems: Sequence[str], *, fix: str | None = None) -> str:
    """Render all faults of one thing as one message: a heading, a line each, and the likely fix."""
    if len(problems) == 1:
        text = f"{subject}: {problems[0]}"
    else:
        text = "\n".join([f"{subject} has {len(problems)} problems:", *(f"  - {problem}" for problem in problems)])
    return f"{text}\n{fix}" if fix else text


def unknown(kind: str, got: str, known: Iterable[str]) -> str:
    """Say that a name is not known, what it may have meant, and what is known."""
    names = sorted(known)
    close = get_close_matches(got, names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"Unknown {kind} '{got}'.{hint} Known: {shorten(names, most=40)}."


def shorten(items: Iterable[object], *, most: int = 5) -> str:
    """List a few items and count the rest: `a, b, c and 12 more`."""
    items = [str(item) for item in items]
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest
