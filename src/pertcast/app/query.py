"""A small language to choose cells: comparisons of columns with values, joined by and, or, not and parentheses.

    population == "T cells" and CD3D > 2
    not batch in ["b1", "b2"] or 1 <= `gene 7` < 3

A column is a column of `obs` or a gene. Text becomes a tree of comparisons or a sentence on what is wrong with it;
nothing is ever evaluated, so no query can run code. Source of the behaviour: system 001, whose app takes such queries.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pertcast.errors import InputError, shorten, unknown

Bools = NDArray[np.bool_]
Value = float | str

TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>"[^"]*"|'[^']*')
    |(?P<column>`[^`]*`)
    |(?P<compare>==|!=|<=|>=|<|>|=)
    |(?P<mark>[()\[\],&|~])
    |(?P<word>[+-]?[\w.][\w.+/:-]*)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
SIGNS = {"&": "and", "|": "or", "~": "not"}
TRUTH = {"true": 1.0, "false": 0.0}
COMPARE: Mapping[str, Callable] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
LONGEST = 2000  # characters
DEEPEST = 40  # parentheses in parentheses
FORM = 'Compare columns with values, as in: population == "T cells" and not (GENE1 > 2 or GENE2 == 0). No code is run.'


class Token(NamedTuple):
    kind: str  # text, column, compare, mark, word, number, join or end
    text: str
    at: int  # position of its first character, counted from 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """A column against one value, or against several of which one must hold."""

    column: str
    sign: str  # of COMPARE, or "in"
    values: tuple[Value, ...]

    def rows(self, columns: Mapping[str, NDArray]) -> Bools:
        """Say of every cell whether it holds: (n,)."""
        if self.column not in columns:
            raise InputError(unknown("column", self.column, columns))
        found = columns[self.column]
        is_text = found.dtype.kind not in "biuf"
        for value in self.values:
            if isinstance(value, str) != is_text:
                raise InputError(_other_kind(self.column, found, value, is_text=is_text))
        if self.sign == "in":
            return np.isin(found.astype(str) if is_text else found, self.values)
        if is_text and self.sign not in ("==", "!="):
            raise InputError(f"Column '{self.column}' holds text, which is compared by ==, != or in, not {self.sign}.")
        return np.asarray(COMPARE[self.sign](found, self.values[0]), bool)


@dataclass(frozen=True, slots=True)
class Joined:
    """Conditions of which all (`and`), any (`or`) or none (`not`) must hold."""

    how: str
    parts: tuple[Condition, ...]

    def rows(self, columns: Mapping[str, NDArray]) -> Bools:
        """Say of every cell whether it holds: (n,)."""
        found = [part.rows(columns) for part in self.parts]
        if self.how == "not":
            return ~found[0]
        return reduce(np.logical_and if self.how == "and" else np.logical_or, found)


Condition = Comparison | Joined


def parse(text: str) -> Condition:
    """Read a query. Raises InputError that says where it stops making sense, and what was expected there."""
    if len(text) > LONGEST:
        raise InputError(f"The query has {len(text)} characters, at most {LONGEST} are read. Shorten it.")
    return _Parser(list(_tokens(text))).whole()


def matching(text: str, columns: Mapping[str, NDArray]) -> Bools:
    """Say which cells a query chooses: (n,); an empty query chooses all.

    columns   name -> (n,) numbers or text
    Raises InputError for a query that cannot be read, a column that is not there, text where there are numbers.
    """
    if not text.strip():
        return np.ones(len(next(iter(columns.values()))), bool)
    return parse(text).rows(columns)


def _tokens(text: str) -> Iterator[Token]:
    for found in TOKEN.finditer(text):
        kind, word, at = found.lastgroup, found.group(), found.start() + 1
        if kind == "other":
            hint = "A text or name begun by it is not closed." if word in "\"'`" else FORM
            raise InputError(f"Query, character {at}: '{word}' means nothing here. {hint}")
        if kind == "mark" and word in SIGNS:
            yield Token("join", SIGNS[word], at)
        elif kind == "word" and word.lower() in ("and", "or", "not", "in"):
            yield Token("join", word.lower(), at)
        elif kind == "word" and NUMBER.fullmatch(word):
            yield Token("number", word, at)
        elif kind in ("text", "column"):
            yield Token("word" if kind == "column" else "text", word[1:-1], at)
        elif kind != "space":
            yield Token(kind, word, at)
    yield Token("end", "the end", len(text) + 1)


class _Parser:
    """Recursive descent: any = all ("or" all)*; all = one ("and" one)*; one = "not" one | "(" any ")" | comparison."""

    def __init__(self, tokens: list[Token]):
        self.tokens, self.place, self.depth = tokens, 0, 0

    def whole(self) -> Condition:
        condition = self._any()
        if self._next.kind != "end":
            raise self._expected("and, or, or the end")
        return condition

    @property
    def _next(self) -> Token:
        return self.tokens[self.place]

    def _take(self) -> Token:
        self.place += 1
        return self.tokens[self.place - 1]

    def _skip(self, kind: str, text: str) -> bool:
        """Step over a token, if it is this one."""
        found = (self._next.kind, self._next.text) == (kind, text)
        self.place += found
        return found

    def _any(self) -> Condition:
        parts = [self._all()]
        while self._skip("join", "or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Joined("or", tuple(parts))

    def _all(self) -> Condition:
        parts = [self._one()]
        while self._skip("join", "and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Joined("and", tuple(parts))

    def _one(self) -> Condition:
        self.depth += 1
        if self.depth > DEEPEST:
            raise InputError(f"The query is nested deeper than {DEEPEST} levels. Simplify it.")
        if self._skip("join", "not"):
            condition = Joined("not", (self._one(),))
        elif self._skip("mark", "("):
            condition = self._any()
            if not self._skip("mark", ")"):
                raise self._expected("')'")
        else:
            condition = self._comparison()
        self.depth -= 1
        return condition

    def _comparison(self) -> Condition:
        """Read `side sign side`, and chains of these such as 1 <= G < 3."""
        left = self._side()
        negated = self._skip("join", "not")
        if negated or self._next[:2] == ("join", "in"):
            return self._among(left, negated=negated)
        parts = []
        while self._next.kind == "compare":
            sign, right = self._take(), self._side()
            if sign.text == "=":
                raise InputError(f"Query, character {sign.at}: write == to compare, as in {left.text} == {right.text}.")
            parts.append(_compared(left, sign, right))
            left = right
        if not parts:
            raise self._expected("a comparison (==, !=, <, <=, >, >=, in)")
        return parts[0] if len(parts) == 1 else Joined("and", tuple(parts))

    def _among(self, left: Token, *, negated: bool) -> Condition:
        """Read the rest of `column [not] in [value, ...]`."""
        if not self._skip("join", "in"):
            raise self._expected("in")
        closing = {"[": "]", "(": ")"}.get(self._next.text)
        if left.kind != "word" or closing is None:
            raise self._expected("a list, as in: column in ['a', 'b']")
        self._take()
        values = [_value(self._side())]
        while self._skip("mark", ","):
            values.append(_value(self._side()))
        if not self._skip("mark", closing):
            raise self._expected(f"',' or '{closing}'")
        condition = Comparison(left.text, "in", tuple(values))
        return Joined("not", (condition,)) if negated else condition

    def _side(self) -> Token:
        if self._next.kind not in ("word", "text", "number"):
            raise self._expected("a column, a number or a text in quotes")
        return self._take()

    def _expected(self, what: str) -> InputError:
        got = self._next
        shown = got.text if got.kind == "end" else f"'{got.text}'"
        return InputError(f"Query, character {got.at}: expected {what}, got {shown}. {FORM}")


def _compared(left: Token, sign: Token, right: Token) -> Comparison:
    """Put the column of a comparison to its left."""
    if right.kind == "word" and left.kind != "word":
        return Comparison(right.text, MIRRORED[sign.text], (_value(left),))
    if left.kind == "word":
        return Comparison(left.text, sign.text, (_value(right),))
    raise InputError(f"Query, character {left.at}: two values are compared. One side must be a column. {FORM}")


def _value(token: Token) -> Value:
    if token.kind == "word" and token.text.lower() in TRUTH:
        return TRUTH[token.text.lower()]
    if token.kind == "word":
        fix = f'Text stands in quotes: "{token.text}". A column is compared with values only.'
        raise InputError(f"Query, character {token.at}: expected a value, got the name '{token.text}'. {fix}")
    return float(token.text) if token.kind == "number" else token.text


def _other_kind(column: str, found: NDArray, value: Value, *, is_text: bool) -> str:
    if is_text:
        known = shorten((f'"{one}"' for one in np.unique(found.astype(str))), most=5)
        return f"Column '{column}' holds text, it was compared with {value:g}. It has {known}."
    low, high = (np.nanmin(found), np.nanmax(found)) if len(found) else (0, 0)
    return f"Column '{column}' holds numbers ({low:g} to {high:g}), it was compared with the text \"{value}\"."
