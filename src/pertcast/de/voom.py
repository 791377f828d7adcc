"""Precision weights for log counts from their mean-variance trend.

Source: Law et al. 2014, doi:10.1186/gb-2014-15-2-r29; the numbers are those of limma's voom.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pertcast.de.linear_model import fit_linear
from pertcast.de.lowess import lowess
from pertcast.de.normalization import effective_sizes, log2_cpm_voom
from pertcast.errors import InputError
from pertcast.types import Floats, Ints

SPAN = 0.5  # share of the genes that the trend looks at in one place


@dataclass(frozen=True, slots=True)
class Voom:
    """Log expression with the weight of each value."""

    log2_cpm: Floats  # (n, g)
    weights: Floats  # (n, g)  > 0, inverse variances
    trend_x: Floats  # (m,)  ascending: mean log2 count of a gene, to which offset and library size were added
    trend_y: Floats  # (m,)  root of the residual sd expected there


def voom(
    counts: Ints,
    design: Floats,
    *,
    lib_size: Floats | None = None,
    names: Sequence[str] | None = None,
    span: float = SPAN,
) -> Voom:
    """Return log2 counts per million, and weights from the trend of the residual sd over the mean log count.

    counts    (n, g)  samples by genes, at least 2 genes
    design    (n, p)  full column rank, p < n
    lib_size  (n,)    effective library sizes; sums of the samples unless given
    names     (p,)    of the columns, for messages
    span              share of the genes that the trend looks at in one place

    Raises InputError as `fit_linear` and `effective_sizes`, and when fewer than 2 genes have counts.
    """
    counts = np.asarray(counts)
    lib_size = effective_sizes(counts, lib_size)
    y = log2_cpm_voom(counts, lib_size)
    fit = fit_linear(y, design, names=names)
    seen = counts.any(axis=0)  # a gene without counts varies only as the library sizes do
    if np.count_nonzero(seen) < 2:
        raise InputError(f"A trend of the variance needs 2 genes with counts, got {np.count_nonzero(seen)}.")
    x = y.mean(axis=0) + np.log2(lib_size + 1).mean() - np.log2(1e6)  # (g,)
    root_sd = fit.residual_variance**0.25  # (g,)
    trend_x, first = np.unique(x[seen], return_index=True)
    trend_y = lowess(x[seen], root_sd[seen], span=span)[first]  # points of one x share the curve
    if not (trend_y > 0).all():
        raise InputError("The trend of the variance reaches 0: too many genes do not vary. Leave such genes out.")
    fitted = np.asarray(design, float) @ fit.coefficients  # (n, g)  log2 counts per million
    fitted += np.log2((lib_size[:, None] + 1) * 1e-6)
    weights = np.interp(fitted, trend_x, trend_y) ** -4.0
    return Voom(y, weights, trend_x, trend_y)
