"""Differential expression in one linear model over all groups: variances and covariates are shared.

The benchmark's design, `~ 0 + sm_cell_type + plate_name`, is of this kind: a column for every compound in every cell
type, a compound compared to the control of its own cell type.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertcast.de.compare import Compared, Comparison, Plan, compare_by_plan, covariates_of, plan_contrasts
from pertcast.de.design import Design, contrasts_against
from pertcast.de.normalization import filter_by_expression
from pertcast.de.pseudobulk import Pseudobulk
from pertcast.errors import InputError, shorten
from pertcast.types import Floats, Strings

BETWEEN = " / "  # condition and group in the name of a level


def compare_jointly(bulk: Pseudobulk, group: str, how: Comparison) -> dict[str, Compared]:
    """Test every condition of every group against the group's own control, in one model of all samples.

    A gene is tested if edgeR's filter keeps it in every group (or, without the filter, if any sample has counts of it).
    Returns the tests group by group; what belongs to the model (df, its columns) is the same in all.
    Raises InputError as `compare`, and for groups without a control or without a condition.
    """
    groups, labels = (bulk.obs[name].astype(str).to_numpy(object) for name in (group, how.condition))
    names = list(dict.fromkeys(groups))
    others = {name: sorted(set(labels[groups == name]) - {how.control}) for name in names}
    _refuse_one_sided(groups, labels, others, how.control)
    levels = [f"{label}{BETWEEN}{name}" for name, label in zip(groups, labels, strict=True)]
    table = pd.DataFrame({f"{how.condition}{BETWEEN}{group}": levels, **covariates_of(bulk.obs, how)})
    plan = plan_contrasts(table, how, lambda design: _within(design, table.columns[0], others, how.control))
    both = compare_by_plan(bulk, plan, _tested(bulk, groups, labels, how), how)
    result, start = {}, 0
    for name in names:
        rows = slice(start, start + len(others[name]))
        part = Plan(plan.design, plan.contrasts[:, rows], others[name], plan.left_out)
        result[name] = _rows_of(both, rows, part, samples=int((groups == name).sum()))
        start = rows.stop
    return result


def _refuse_one_sided(groups: Strings, labels: Strings, others: dict[str, list[str]], control: str) -> None:
    without = [name for name in others if control not in labels[groups == name]]
    if without:
        raise InputError(f"no sample of the control '{control}' in {shorten(without)}; leave such cells out")
    alone = [name for name, conditions in others.items() if not conditions]
    if alone:
        raise InputError(f"every sample of {shorten(alone)} is of the control '{control}'; leave such cells out")


def _within(design: Design, term: str, others: dict[str, Sequence[str]], control: str) -> tuple[Floats, list[str]]:
    """Contrast every condition with the control of its own group: (p, k), groups one after the other."""
    contrasts, names = [], []
    for group, conditions in others.items():
        own, levels = contrasts_against(design, term, f"{control}{BETWEEN}{group}")
        wanted = [f"{condition}{BETWEEN}{group}" for condition in conditions]
        contrasts.append(own[:, [levels.index(level) for level in wanted]])
        names += wanted
    return np.concatenate(contrasts, axis=1), names


def _tested(bulk: Pseudobulk, groups: Strings, labels: Strings, how: Comparison) -> NDArray[np.bool_]:
    if not how.expressed_only:
        return bulk.counts.any(axis=0)
    kept = [filter_by_expression(bulk.counts[groups == name], labels[groups == name]) for name in set(groups)]
    return np.logical_and.reduce(kept)


def _rows_of(both: Compared, rows: slice, plan: Plan, *, samples: int) -> Compared:
    layers = ("signed_log10_p", "log_fc", "t", "log10_adjusted_p", "log_odds")
    return replace(both, plan=plan, samples=samples, **{name: getattr(both, name)[rows] for name in layers})
