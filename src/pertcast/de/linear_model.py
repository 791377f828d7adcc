"""Least squares of every gene on one design: coefficients, residual variances, contrasts and what they vary by.

Without weights one factorisation serves all genes; with weights per gene and sample every gene has its own normal
equations, which are made by one matrix product for many genes and solved as a batch.
Sources: Smyth 2004, doi:10.2202/1544-6115.1027; the names follow limma.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import lapack
from threadpoolctl import threadpool_info, threadpool_limits

from pertcast.errors import InputError, several, shorten
from pertcast.types import Floats

MEMORY = 120_000_000  # bytes that one batch of genes may take; large batches leave the processor's caches
TOLERANCE = 1e-7  # a column of which less than this share is its own is determined by others, as in R's `lm`
BLOCK = 8  # columns of the normal equations that are made by one matrix product
ContrastSd = Literal["limma", "exact"]


@dataclass(frozen=True, slots=True)
class LinearFit:
    """Least squares of every gene on the same design."""

    coefficients: Floats  # (p, g)
    residual_variance: Floats  # (g,)
    df: int  # samples minus columns of the design
    unscaled_covariance: Floats  # (p, p)  inverse of X'X


@dataclass(frozen=True, slots=True)
class ContrastFit:
    """Contrasts of a fit, before variances are shrunk over the genes."""

    effect: Floats  # (k, g)  in the unit of y
    unscaled_sd: Floats  # (k, 1) or, with weights, (k, g): sd of a contrast over the sd of the residuals
    residual_variance: Floats  # (g,)
    df: int


def fit_linear(y: Floats, design: Floats, *, names: Sequence[str] | None = None) -> LinearFit:
    """Fit every gene on the design by least squares.

    y       (n, g)  log expression, samples by genes
    design  (n, p)  full column rank, p < n
    names   (p,)    of the columns, for messages

    Raises InputError when shapes disagree, values are not finite, columns are aliased, or no residual df are left.
    """
    y, design = np.asarray(y, float), np.asarray(design, float)
    check_design(y, design, names)
    n, p = design.shape
    q, r = np.linalg.qr(design)  # (n, p), (p, p)
    coefficients = np.linalg.solve(r, q.T @ y)  # (p, g)
    residual = y - design @ coefficients  # (n, g)
    variance = np.einsum("ng,ng->g", residual, residual) / (n - p)
    inverse = np.linalg.inv(r)
    return LinearFit(coefficients, variance, n - p, inverse @ inverse.T)


def check_design(y: Floats, design: Floats, names: Sequence[str] | None = None) -> None:
    """Refuse values and a design that cannot be fitted: all faults in one message, columns by name."""
    problems = []
    names = [f"column {j}" for j in range(design.shape[-1])] if names is None else list(names)
    if y.ndim != 2 or design.ndim != 2 or len(y) != len(design) or design.shape[1] != len(names):
        raise InputError(f"Design: y {y.shape}, design {design.shape} and {len(names)} names must agree.")
    for what, values in (("y", y), ("the design", design)):
        if not np.isfinite(values).all():
            problems.append(f"{what} has {np.count_nonzero(~np.isfinite(values))} values that are not finite")
    if not problems:
        aliased = aliased_columns(design)
        if aliased:
            problems.append(f"aliased with columns before them: {shorten((names[j] for j in aliased), most=10)}")
        columns = design.shape[1] - len(aliased)
        if len(design) <= columns:
            problems.append(no_replicates(len(design), columns))
    if problems:
        raise InputError(several("Design", problems, fix="Drop aliased columns, or give more samples."))


def no_replicates(samples: int, columns: int) -> str:
    """Say that a design leaves nothing to estimate the noise from."""
    return (
        f"{samples} samples leave no residual degrees of freedom for {columns} independent columns "
        "(one replicate only, nothing to estimate the noise from)"
    )


def aliased_columns(design: Floats, *, tolerance: float = TOLERANCE) -> list[int]:
    """Return the columns that are linear combinations of columns before them."""
    basis = np.zeros((len(design), 0))
    aliased = []
    for j, column in enumerate(design.T):
        rest = column - basis @ (basis.T @ column)
        rest = rest - basis @ (basis.T @ rest)  # once more: one pass of Gram-Schmidt loses digits
        size = np.linalg.norm(rest)
        if size <= tolerance * np.linalg.norm(column):
            aliased.append(j)
        else:
            basis = np.column_stack([basis, rest / size])
    return aliased


def check_contrasts(contrasts: Floats, columns: int) -> Floats:
    """Return contrasts (p, k) as floats; InputError when they do not fit a design of so many columns."""
    contrasts = np.asarray(contrasts, float)
    if contrasts.ndim != 2 or len(contrasts) != columns or not np.isfinite(contrasts).all():
        raise InputError(f"Contrasts {contrasts.shape} must have a row for each of {columns} columns, and be finite.")
    return contrasts


def fit_contrasts(fit: LinearFit, contrasts: Floats) -> ContrastFit:
    """Take contrasts (p, k) of a fit without weights."""
    contrasts = check_contrasts(contrasts, len(fit.coefficients))
    effect = contrasts.T @ fit.coefficients  # (k, g)
    unscaled_sd = np.sqrt(np.einsum("pk,pq,qk->k", contrasts, fit.unscaled_covariance, contrasts, optimize=True))
    return ContrastFit(effect, unscaled_sd[:, None], fit.residual_variance, fit.df)


def fit_weighted(
    y: Floats,
    design: Floats,
    weights: Floats,
    contrasts: Floats,
    *,
    names: Sequence[str] | None = None,
    contrast_sd: ContrastSd = "limma",
    memory: int = MEMORY,
) -> ContrastFit:
    """Fit every gene by least squares with its own weights, and take contrasts.

    y            (n, g)  log expression, samples by genes
    design       (n, p)  full column rank, p < n
    weights      (n, g)  > 0, inverse variances up to a factor per gene
    contrasts    (p, k)
    names        (p,)    of the columns, for messages
    contrast_sd  "exact": the sd of each contrast from the gene's own normal equations. "limma": as limma's
                 `contrasts.fit`, the gene's own sds of the coefficients with the correlations of the design without
                 weights; the same where each column of the design has samples of its own
    memory       bytes for a batch of genes; as many batches are in work as linear algebra may use threads. Nothing
                 depends on the number of threads, and on the size of a batch the last digit at most

    Raises InputError as `fit_linear`, and for weights that are not finite and positive.
    """
    y, design, weights = (np.asarray(array, float) for array in (y, design, weights))
    check_design(y, design, names)
    contrasts = check_contrasts(contrasts, design.shape[1])
    if contrast_sd not in ("limma", "exact"):
        raise InputError(f"contrast_sd must be 'limma' or 'exact', got '{contrast_sd}'.")
    wrong = "shape " + str(weights.shape) if weights.shape != y.shape else _not_positive(weights)
    if wrong:
        raise InputError(f"Weights must be {y.shape} finite positive numbers, got {wrong}.")
    equations = _Equations(design, contrasts, exact=contrast_sd == "exact")
    genes, k = y.shape[1], contrasts.shape[1]
    effect, sd, variance = np.empty((k, genes)), np.empty((k, genes)), np.empty(genes)

    def solve(part: slice) -> None:
        effect[:, part], sd[:, part], variance[part] = equations.solve(y[:, part].T, weights[:, part].T)

    workers = _blas_threads()  # a batch each, rather than all at one product: matrices are small, and cores are shared
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        list(pool.map(solve, equations.batches(genes, memory)))
    return ContrastFit(effect, sd, variance, len(design) - design.shape[1])


def _not_positive(weights: Floats) -> str:
    wrong = np.count_nonzero(~(np.isfinite(weights) & (weights > 0)))
    return f"{wrong} that are not" if wrong else ""


class _Equations:
    """Normal equations of many genes in the orthonormal basis of the design.

    In that basis their condition is at most the ratio of a gene's largest to its smallest weight, whatever the units
    of the design's columns; one step of refinement returns the digits that normal equations lose against QR.
    """

    def __init__(self, design: Floats, contrasts: Floats, *, exact: bool):
        self.q, r = np.linalg.qr(design)  # (n, p), (p, p)
        self.inverse_r = np.linalg.inv(r)
        self.contrasts = contrasts
        self.turned = self.inverse_r.T @ contrasts  # (p, k)  contrasts of the coefficients in the new basis
        self.exact = exact
        covariance = self.inverse_r @ self.inverse_r.T
        scale = 1 / np.sqrt(np.diag(covariance))
        self.correlation = covariance * scale * scale[:, None]  # of the coefficients without weights

    def batches(self, genes: int, memory: int) -> Iterator[slice]:
        n, p = self.q.shape
        widest = self.turned.shape[1] if self.exact else p
        per_gene = 8 * ((1 + BLOCK / p) * p * p + p * widest + 5 * n)
        size = max(1, min(genes, int(memory / per_gene)))
        return (slice(start, min(start + size, genes)) for start in range(0, genes, size))

    def solve(self, y: Floats, w: Floats) -> tuple[Floats, Floats, Floats]:
        """Solve a batch, y and w (c, n): effects (k, c), unscaled sd (k, c), residual variances (c,)."""
        n, p = self.q.shape
        root = _inverse_roots(self._gram(w))  # (c, p, p)  root' root is the inverse of the normal equations
        coefficients = np.zeros((len(y), p))
        residual = y
        for _ in range(2):  # the second time round is the refinement
            right = (w * residual) @ self.q  # (c, p)
            half = np.matmul(root, right[:, :, None])
            coefficients += np.matmul(root.transpose(0, 2, 1), half)[:, :, 0]
            residual = y - coefficients @ self.q.T  # (c, n)
        variance = np.einsum("cn,cn,cn->c", w, residual, residual) / (n - p)
        sd = self._exact_sd(root, self.turned) if self.exact else self._limma_sd(root)
        return self.turned.T @ coefficients.T, sd.T, variance

    def _gram(self, w: Floats) -> Floats:
        """Q'WQ of each gene (c, p, p), lower triangle: products of pairs of columns, and one matrix product a block."""
        n, p = self.q.shape
        gram = np.empty((len(w), p, p))
        for start in range(0, p, BLOCK):
            stop = min(start + BLOCK, p)
            pairs = self.q[:, start:stop, None] * self.q[:, None, :stop]  # (n, block, stop)
            gram[:, start:stop, :stop] = (w @ pairs.reshape(n, -1)).reshape(-1, stop - start, stop)
        return gram

    def _exact_sd(self, root: Floats, directions: Floats) -> Floats:
        """Length of root d for each gene and each of the directions (p, m): (c, m)."""
        half = (root.reshape(-1, len(directions)) @ directions).reshape(len(root), *directions.shape)
        return np.sqrt(np.einsum("cpm,cpm->cm", half, half))

    def _limma_sd(self, root: Floats) -> Floats:
        own = self._exact_sd(root, self.inverse_r.T)  # (c, p)  unscaled sd of each coefficient
        sd = np.empty((len(root), self.contrasts.shape[1]))
        for k, contrast in enumerate(self.contrasts.T):
            used = np.flatnonzero(contrast)
            parts = own[:, used] * contrast[used]  # (c, m)
            sd[:, k] = np.sqrt(np.einsum("ca,ca->c", parts @ self.correlation[np.ix_(used, used)], parts))
        return sd


def _inverse_roots(gram: Floats) -> Floats:
    """Turn the lower triangles of matrices (c, p, p), in place, into the inverses of their Cholesky factors."""
    for j, matrix in enumerate(gram):
        factor, bad = lapack.dpotrf(matrix.T, lower=0, overwrite_a=1, clean=1)  # the transpose is in Fortran's order
        size = np.diagonal(factor)
        if bad or size.min() < TOLERANCE * size.max():
            raise InputError("Weights of a gene differ so much that its fit has no unique answer.")
        gram[j] = lapack.dtrtri(factor, lower=0, overwrite_c=1)[0].T
    return gram


def _blas_threads() -> int:
    """Return how many threads linear algebra may use here."""
    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)
