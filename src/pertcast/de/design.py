"""Design matrices from a table of factors, and contrasts of conditions against a control."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from pertcast.de.linear_model import aliased_columns
from pertcast.errors import InputError, several, shorten, unknown
from pertcast.types import Floats, Ints

INTERCEPT = "(Intercept)"
_NAME = re.compile(r"[A-Za-z.][\w.]*|`[^`]+`")
_FORM = "Write '~ 0 + a + b' or '~ a + b', with names of columns; a name with blanks stands in `backticks`."


@dataclass(frozen=True, slots=True)
class Design:
    """A design matrix whose columns have names."""

    matrix: Floats  # (n, p)
    names: tuple[str, ...]  # (p,)  "(Intercept)", column + level, or the column of numbers itself
    terms: tuple[str, ...]  # (p,)  which term of the formula each belongs to; "" for the intercept
    levels: Mapping[str, tuple[str, ...]]  # of each factor, with the one that has no column of its own

    def aliased(self) -> list[int]:
        """Return the columns that those before them determine."""
        return aliased_columns(self.matrix)

    def without(self, columns: Sequence[int]) -> "Design":
        """Leave columns out."""
        keep = [j for j in range(len(self.names)) if j not in set(columns)]
        names, terms = (tuple(labels[j] for j in keep) for labels in (self.names, self.terms))
        return replace(self, matrix=self.matrix[:, keep], names=names, terms=terms)


def parse_formula(formula: str) -> tuple[bool, list[str]]:
    """Read '~ 0 + a + b': whether there is an intercept, and the terms in their order.

    Only sums of columns are understood; InputError names anything else.
    """
    head, tilde, body = formula.partition("~")
    parts = [part.strip() for part in body.split("+")]
    problems = []
    if not tilde or head.strip():
        problems.append("it must start with '~'")
    terms = [part.strip("`") for part in parts if part not in ("0", "1")]
    odd = [part for part in parts if part not in ("0", "1") and not _NAME.fullmatch(part)]
    if odd and tilde:
        problems.append(f"only sums of columns are understood, got {shorten(repr(part) for part in odd)}")
    if "0" in parts and "1" in parts:
        problems.append("it has both 0 (no intercept) and 1 (an intercept)")
    repeated = [term for term, times in Counter(terms).items() if times > 1]
    if repeated:
        problems.append(f"named more than once: {shorten(repeated)}")
    if problems:
        raise InputError(several(f"Formula '{formula}'", problems, fix=_FORM))
    return "0" not in parts, terms


def design_from_formula(formula: str, table: pd.DataFrame) -> Design:
    """Build the design of a formula such as '~ 0 + compound + donor + plate' from columns of a table (n, ..)."""
    intercept, terms = parse_formula(formula)
    return build_design(table, terms, intercept=intercept)


def build_design(table: pd.DataFrame, terms: Sequence[str], *, intercept: bool = False) -> Design:
    """Build the columns of each term: an indicator per level, or the numbers of a numeric column as they are.

    table      (n, ..)  a row per sample
    terms               columns of the table. Text, booleans and categoricals are factors: their levels are sorted, or
                        in the order of the categorical, and those that no sample has are left out
    intercept           without one, the first factor has a column for each level; every other factor has one for each
                        level but its first (treatment contrasts)

    Columns and their names are those of R's model.matrix. Raises InputError, all faults at once, for columns that are
    missing, without a value somewhere, or factors of one level only where these are compared to their first.
    """
    problems = _faults(table, terms)
    blocks = [np.ones((len(table), 1))] if intercept else []
    names, owners = ([INTERCEPT], [""]) if intercept else ([], [])
    factors: dict[str, tuple[str, ...]] = {}
    full = not intercept  # the first factor takes the place of the intercept
    for term in terms if not problems else ():
        column = table[term]
        if _is_number(column):
            block, labels = column.to_numpy(float)[:, None], [term]
        else:
            levels, code = _levels(column)
            if len(levels) < 2 and not full:
                problems.append(f"column '{term}' has one level only, '{levels[0]}': nothing to compare")
            block = (code[:, None] == np.arange(0 if full else 1, len(levels))).astype(float)
            labels = [f"{term}{level}" for level in levels[0 if full else 1 :]]
            factors[term] = tuple(levels)
            full = False
        blocks.append(block)
        names += labels
        owners += [term] * block.shape[1]
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        problems.append(f"several columns would be called {shorten(repeated)}; rename a column or a level")
    if problems:
        raise InputError(several("Design", problems))
    return Design(np.concatenate(blocks, axis=1), tuple(names), tuple(owners), factors)


def _faults(table: pd.DataFrame, terms: Sequence[str]) -> list[str]:
    problems = [] if terms and len(table) else [f"{len(terms)} terms and {len(table)} samples; it needs one of each"]
    missing = [term for term in terms if term not in table.columns]
    if missing:
        problems.append(f"the table lacks the columns {shorten(missing)}; it has {shorten(table.columns, most=12)}")
    for term in terms:
        if term in table.columns:
            column = table[term]
            bad = ~np.isfinite(column.to_numpy(float, na_value=np.nan)) if _is_number(column) else column.isna()
            if bad.any():
                problems.append(f"column '{term}' has no value in {int(bad.sum())} of {len(table)} samples")
    return problems


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _levels(column: pd.Series) -> tuple[list[str], Ints]:
    """Levels that occur, and the number of each sample's level (n,)."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.remove_unused_categories()
        return [str(level) for level in column.cat.categories], column.cat.codes.to_numpy()
    code, levels = pd.factorize(column, sort=True)
    return [_level_name(level) for level in levels], code


def _level_name(level: object) -> str:
    return ("FALSE", "TRUE")[int(level)] if isinstance(level, bool | np.bool_) else str(level)


def contrasts_against(design: Design, term: str, control: str) -> tuple[Floats, list[str]]:
    """Contrast each level of a factor with the control.

    design   one whose columns of `term` are indicators of its levels, with or without one for the control
    control  level that the others are compared to

    Returns contrasts (p, k) and the k other levels. Raises InputError when the design has no columns of the factor, no
    such level, or compares to another one.
    """
    columns = [j for j, owner in enumerate(design.terms) if owner == term]
    if term not in design.levels or not columns:
        raise InputError(unknown("factor of the design", term, design.levels))
    if control not in design.levels[term]:
        raise InputError(unknown(f"level of '{term}'", control, design.levels[term]))
    own = next((j for j in columns if design.names[j] == f"{term}{control}"), None)
    first = design.levels[term][0]
    if own is None and control != first:
        raise InputError(f"Column '{term}{control}' is not in the design, and its columns are compared to '{first}'.")
    others = [j for j in columns if j != own]
    contrasts = np.zeros((len(design.names), len(others)))
    contrasts[others, np.arange(len(others))] = 1.0
    if own is not None:
        contrasts[own] = -1.0
    if own is not None and f"{term}{first}" not in design.names:  # one more level is what all are compared to
        contrasts = np.column_stack([contrasts, -np.eye(len(design.names))[own]])
        return contrasts, [*(design.names[j].removeprefix(term) for j in others), first]
    return contrasts, [design.names[j].removeprefix(term) for j in others]


def inestimable(design: Floats, contrasts: Floats, *, tolerance: float = 1e-7) -> list[int]:
    """Return the contrasts (p, k) that a design (n, p) cannot tell, since they are confounded with other columns.

    A contrast can be told if and only if it is a combination of the rows of the design.
    """
    _, s, vt = np.linalg.svd(design, full_matrices=False)
    rows = vt[s > tolerance * s[0]]  # (rank, p)  orthonormal
    rest = np.linalg.norm(contrasts - rows.T @ (rows @ contrasts), axis=0)
    return np.flatnonzero(rest > tolerance * np.linalg.norm(contrasts, axis=0)).tolist()
