"""Differential expression within one group of samples: every condition against the control."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertcast.de.design import Design, build_design, contrasts_against, inestimable
from pertcast.de.linear_model import ContrastSd, fit_contrasts, fit_linear, fit_weighted, no_replicates
from pertcast.de.log10_p import adjust_log10_p, signed_log10_p
from pertcast.de.log_odds import log_odds
from pertcast.de.moderated_t import ModeratedT, moderated_t
from pertcast.de.normalization import filter_by_expression, library_sizes, log2_cpm, log2_cpm_voom, tmm_factors
from pertcast.de.pseudobulk import Pseudobulk
from pertcast.de.voom import voom
from pertcast.errors import InputError, shorten
from pertcast.types import Floats

PRIOR_COUNT = 3.0  # as limma's authors advise where the prior variance follows the mean


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared to what, and how."""

    condition: str  # column whose levels are compared
    control: str  # the level that the others are compared to
    covariates: tuple[str, ...] = ()  # columns that the design corrects for; numbers that are no floats are labels
    weights: bool = True  # voom; without it the prior variance follows the mean (limma-trend)
    expressed_only: bool = True  # test only genes that edgeR's filter keeps
    contrast_sd: ContrastSd = "limma"
    plain: bool = False  # log2 CPM by plain totals, one prior variance for all genes, all genes tested


@dataclass(frozen=True, slots=True)
class Plan:
    """A design that can be fitted, and contrasts that it can tell."""

    design: Design
    contrasts: Floats  # (p, k)
    conditions: list[str]  # (k,)
    left_out: list[str]  # columns that others determine, covariates of one level


@dataclass(frozen=True, slots=True)
class Compared:
    """The tests of one group. Genes that were not tested have 0 in the response and NaN elsewhere."""

    plan: Plan
    samples: int
    tested: NDArray[np.bool_]  # (g,)
    signed_log10_p: Floats  # (k, g)
    log_fc: Floats  # (k, g)  log2
    t: Floats  # (k, g)
    log10_adjusted_p: Floats  # (k, g)  Benjamini-Hochberg over the tested genes of a condition
    log_odds: Floats  # (k, g)  natural log
    mean_log2_cpm: Floats  # (g,)
    df: float  # of t
    prior_df: float


def compare(bulk: Pseudobulk, how: Comparison) -> Compared:
    """Test every condition of the samples against the control.

    Steps: design ~ 0 + condition + covariates; genes with too few counts are not tested (edgeR's filter, smallest
    condition); library sizes of the tested genes times TMM factors; voom and weighted least squares, or log2 CPM with
    a variance trend; empirical Bayes; moderated t.
    Raises InputError when the control or replicates are missing, when the design confounds a condition with covariates,
    and when fewer than 2 genes have enough counts.
    """
    plan = plan_comparison(bulk.obs, how)
    labels = bulk.obs[how.condition].astype(str).to_numpy()
    tested = bulk.counts.any(axis=0) | how.plain  # a gene without counts varies only as the library sizes do
    if how.expressed_only:
        tested &= filter_by_expression(bulk.counts, labels)
    return compare_by_plan(bulk, plan, tested, how)


def compare_by_plan(bulk: Pseudobulk, plan: Plan, tested: NDArray[np.bool_], how: Comparison) -> Compared:
    """Test the contrasts of a plan in the genes that `tested` (g,) marks.

    Raises InputError when these are fewer than 2.
    """
    if np.count_nonzero(tested) < 2:
        raise InputError(f"{np.count_nonzero(tested)} genes have enough counts to be tested, 2 are needed")
    counts = bulk.counts[:, tested]
    tests, mean = _test(counts, library_sizes(counts) * tmm_factors(counts), plan, how)
    response = signed_log10_p(tests.t, tests.df)
    adjusted = adjust_log10_p(-np.abs(response))
    wide = {"log_fc": tests.effect, "t": tests.t, "log10_adjusted_p": adjusted, "log_odds": log_odds(tests)}
    return Compared(
        plan=plan,
        samples=len(bulk),
        tested=tested,
        signed_log10_p=_spread(response, tested, 0.0),
        **{name: _spread(values, tested, np.nan) for name, values in wide.items()},
        mean_log2_cpm=_spread(mean[None], tested, np.nan)[0],
        df=tests.df,
        prior_df=tests.prior.df,
    )


def _test(counts: NDArray, lib_size: Floats, plan: Plan, how: Comparison) -> tuple[ModeratedT, Floats]:
    design, names = plan.design.matrix, plan.design.names
    if how.plain:
        y = log2_cpm_voom(counts)
        return moderated_t(fit_contrasts(fit_linear(y, design, names=names), plan.contrasts)), y.mean(axis=0)
    if how.weights:
        v = voom(counts, design, lib_size=lib_size, names=names)
        fit = fit_weighted(v.log2_cpm, design, v.weights, plan.contrasts, names=names, contrast_sd=how.contrast_sd)
        return moderated_t(fit), v.log2_cpm.mean(axis=0)
    y = log2_cpm(counts, lib_size, prior_count=PRIOR_COUNT)
    mean = y.mean(axis=0)
    return moderated_t(fit_contrasts(fit_linear(y, design, names=names), plan.contrasts), trend=mean), mean


def _spread(values: Floats, tested: NDArray[np.bool_], other: float) -> Floats:
    """Put values of the tested genes (k, tested) in their places among all (k, g)."""
    result = np.full((len(values), len(tested)), other)
    result[:, tested] = values
    return result


def plan_comparison(obs: pd.DataFrame, how: Comparison) -> Plan:
    """Build design and contrasts for the samples `obs` (n, ..); InputError when they cannot answer the question."""
    table = _factors(obs, how)
    conditions = list(table[how.condition].cat.categories)
    if how.control not in set(table[how.condition]):
        raise InputError(f"no sample of the control '{how.control}', only of {shorten(conditions[1:])}")
    if len(conditions) < 2:
        raise InputError(f"every sample is of the control '{how.control}', there is nothing to compare")
    return plan_contrasts(table, how, lambda design: contrasts_against(design, how.condition, how.control))


def plan_contrasts(
    table: pd.DataFrame, how: Comparison, contrasts_of: Callable[[Design], tuple[Floats, list[str]]]
) -> Plan:
    """Build a design that can be fitted from its columns `table` (n, ..), the conditions in the first.

    contrasts_of   contrasts (p, k) of a design, and what the k of them are called
    Raises InputError for contrasts that the covariates confound, and without samples to tell the noise by.
    """
    condition = table.columns[0]
    single = [name for name in how.covariates if name in table and table[name].nunique() < 2]
    full = build_design(table, [condition, *(name for name in how.covariates if name not in single)])
    contrasts, labels = contrasts_of(full)
    confounded = inestimable(full.matrix, contrasts)
    if confounded:
        raise InputError(
            f"{shorten(labels[k] for k in confounded)} cannot be told from '{how.control}' once the covariates "
            f"{shorten(how.covariates)} are corrected for; leave a covariate out, or give samples that share it"
        )
    aliased = full.aliased()
    design = full.without(aliased)
    samples, columns = design.matrix.shape
    if samples <= columns:
        raise InputError(no_replicates(samples, columns))
    contrasts, labels = contrasts_of(design)
    return Plan(design, contrasts, labels, [*single, *(full.names[j] for j in aliased)])


def covariates_of(obs: pd.DataFrame, how: Comparison) -> dict[str, NDArray]:
    """Return the columns that the design corrects for; numbers that are no floats become labels."""
    columns = {}
    for name in how.covariates:
        is_float = pd.api.types.is_float_dtype(obs[name])
        columns[name] = obs[name].to_numpy() if is_float else obs[name].astype(str).to_numpy()
    return columns


def _factors(obs: pd.DataFrame, how: Comparison) -> pd.DataFrame:
    """Return the columns of the design; the control is the first level."""
    labels = obs[how.condition].astype(str)
    others = sorted(set(labels) - {how.control})
    return pd.DataFrame({how.condition: pd.Categorical(labels, [how.control, *others]), **covariates_of(obs, how)})


def needed_columns(how: Comparison, *more: Sequence[str]) -> list[str]:
    """Return the columns by which cells are summed up: those given, the condition, the covariates; each once."""
    return list(dict.fromkeys([*(name for names in more for name in names), how.condition, *how.covariates]))
