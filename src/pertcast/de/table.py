"""The table of responses: differential expression of every condition against the control, within every group.

Its columns are those of the competition's `de_train`: the group is called `cell_type`, the condition `sm_name`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertcast.de.compare import Compared, Comparison, compare
from pertcast.de.joint import compare_jointly
from pertcast.de.pseudobulk import Pseudobulk
from pertcast.errors import InputError, several, shorten, unknown
from pertcast.schema import CELL_TYPE, COMPOUND, COMPOUND_ID, CONTROL, GENE, SMILES
from pertcast.types import Floats

CARRIED = (COMPOUND_ID, SMILES, CONTROL)  # what the competition says of a compound, kept where the cells say it


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """What stands behind the rows of one group."""

    group: str
    samples: int
    conditions: int  # without the control
    genes_tested: int
    df: float  # of t
    prior_df: float  # may be infinite
    columns: int  # of the design
    left_out: tuple[str, ...]  # of the design: determined by other columns, or of one level


@dataclass(frozen=True, slots=True)
class DETable:
    """One row per group and condition, one column per gene, in layers.

    Genes that were not tested in a group have 0 in the response (no evidence) and NaN in the other layers.
    """

    keys: pd.DataFrame  # (r, ..)  cell_type, sm_name, and what is carried along
    genes: tuple[str, ...]  # (g,)
    signed_log10_p: Floats  # (r, g)  the response: sign of t times -log10 of its two-sided p
    log_fc: Floats  # (r, g)  log2
    t: Floats  # (r, g)
    log10_adjusted_p: Floats  # (r, g)  Benjamini-Hochberg over the tested genes of a row
    log_odds: Floats  # (r, g)  natural log odds of responding (limma's B)
    mean_log2_cpm: Floats  # (r, g)  over all samples of the group
    tested: NDArray[np.bool_]  # (r, g)
    groups: tuple[GroupFacts, ...]
    remarks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def log10_p(self) -> Floats:
        return np.where(self.tested, -np.abs(self.signed_log10_p), np.nan)

    @property
    def p(self) -> Floats:
        """Two-sided p; 0 where it is below what float64 can hold, which its logarithm is not."""
        return 10.0**self.log10_p

    @property
    def adjusted_p(self) -> Floats:
        return 10.0**self.log10_adjusted_p

    def long(self) -> pd.DataFrame:
        """Return a row per group, condition and tested gene."""
        row, gene = np.nonzero(self.tested)
        table = pd.DataFrame({key: self.keys[key].to_numpy()[row] for key in (CELL_TYPE, COMPOUND)})
        table[GENE] = np.array(self.genes, object)[gene]
        for name in ("log_fc", "mean_log2_cpm", "t", "p", "adjusted_p", "log10_p", "log10_adjusted_p", "log_odds"):
            table[name] = getattr(self, name)[row, gene]
        return table


def de_table(bulk: Pseudobulk, group: str, how: Comparison, *, skip: bool = False, joint: bool = False) -> DETable:
    """Test every condition against the control within each level of a column.

    bulk   samples whose `obs` has the columns named by `group` and `how`
    group  column; groups share no variance, no trend and no library size
    skip   leave groups out that cannot be tested, with a remark, instead of raising
    joint  one model of all groups, which share variances and covariates; nothing can be left out of it

    Raises InputError that names every group at fault, a control that no sample has, and columns that are missing.
    """
    _check(bulk, group, how)
    if joint:
        return _assemble(compare_jointly(bulk, group, how), bulk, [])
    labels = bulk.obs[group].astype(str).to_numpy()
    done, faults = {}, []
    for name in dict.fromkeys(labels):
        try:
            done[name] = compare(bulk.take(labels == name), how)
        except InputError as error:
            faults.append(f"{group} '{name}': {error}")
    if faults and not (skip and done):
        fix = "Give more samples or fewer covariates, ask for fewer cells per sample, or skip such groups."
        raise InputError(several(f"Comparison with '{how.control}'", faults, fix=fix))
    return _assemble(done, bulk, [f"Skipped: {fault}" for fault in faults])


def _check(bulk: Pseudobulk, group: str, how: Comparison) -> None:
    problems = []
    wanted = [group, how.condition, *how.covariates]
    missing = [name for name in dict.fromkeys(wanted) if name not in bulk.obs.columns]
    if missing:
        problems.append(f"the samples lack the columns {shorten(missing)}; they have {shorten(bulk.obs.columns)}")
    elif how.control not in set(bulk.obs[how.condition].astype(str)):
        problems.append(unknown(f"label of '{how.condition}'", how.control, set(bulk.obs[how.condition].astype(str))))
    if len(set(wanted)) < len(wanted):
        problems.append(f"group, condition and covariates must be columns of their own, got {shorten(wanted)}")
    repeated = sorted(name for name, times in pd.Series(bulk.genes).value_counts().items() if times > 1)
    if repeated:
        problems.append(f"every gene needs its own name, got several times: {shorten(repeated)}")
    clash = sorted({CELL_TYPE, COMPOUND, *CARRIED} & set(bulk.genes))
    if clash:
        problems.append(f"genes may not be called {shorten(clash)}; such columns mean something else")
    if problems:
        raise InputError(several("Comparison", problems))


def _assemble(done: dict[str, Compared], bulk: Pseudobulk, remarks: list[str]) -> DETable:
    parts = list(done.values())
    conditions = [len(part.plan.conditions) for part in parts]
    keys = {
        CELL_TYPE: np.repeat(np.array(list(done), object), conditions),
        COMPOUND: np.array([label for part in parts for label in part.plan.conditions], object),
    }
    layers = ("signed_log10_p", "log_fc", "t", "log10_adjusted_p", "log_odds")
    per_group = ("mean_log2_cpm", "tested")
    return DETable(
        keys=pd.DataFrame(keys),
        genes=bulk.genes,
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in layers},
        **{name: np.repeat([getattr(part, name) for part in parts], conditions, axis=0) for name in per_group},
        groups=tuple(_facts(name, part) for name, part in done.items()),
        remarks=tuple(remarks),
    )


def _facts(name: str, part: Compared) -> GroupFacts:
    return GroupFacts(
        group=name,
        samples=part.samples,
        conditions=len(part.plan.conditions),
        genes_tested=int(np.count_nonzero(part.tested)),
        df=part.df,
        prior_df=part.prior_df,
        columns=len(part.plan.design.names),
        left_out=tuple(part.plan.left_out),
    )


def carry(table: DETable, obs: pd.DataFrame, condition: str, *, columns: Sequence[str] = CARRIED) -> DETable:
    """Add what the cells say of a condition, such as its structure, to the keys.

    obs        (c, ..)  a row per cell
    condition           column of `obs` that became `sm_name`
    columns             those that `obs` lacks, or that differ between cells of one condition, are left out
    """
    keys = table.keys.copy()
    label = obs[condition].astype(str)
    for name in columns:
        if name not in obs.columns or name == condition or obs[name].isna().any():
            continue
        values = obs[name].astype(bool if name == CONTROL and obs[name].dtype == bool else str)
        by_label = values.groupby(label.to_numpy()).agg(["nunique", "first"])
        is_flag = name != CONTROL or values.dtype == bool
        if is_flag and (by_label["nunique"] == 1).all():
            keys[name] = by_label["first"].reindex(keys[COMPOUND]).to_numpy()
    return replace(table, keys=keys)
