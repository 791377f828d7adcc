"""Differential expression at the size of the competition, on simulated counts.

(a) least squares, empirical Bayes, p and adjusted p of every contrast without weights, (b) voom with weights per gene
and sample, in a design of the competition's kind. Beside each: a plain loop over the genes in numpy, timed on some of
them and scaled up. Each case runs in a process of its own, so that its peak of memory is its own.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from pertcast.de.linear_model import fit_linear, fit_weighted
from pertcast.de.log10_p import adjust_log10_p, signed_log10_p
from pertcast.de.log_odds import log_odds
from pertcast.de.moderated_t import moderated_t
from pertcast.de.normalization import library_sizes, log2_cpm, tmm_factors
from pertcast.de.voom import voom

GENES = 18_211
LOOPED = 100  # genes that the loop is timed on
LIMITS = {"plain": 20.0, "voom": 120.0}  # seconds
MEMORY = 4.0  # GiB


def design_of(samples: int, compounds: int, others: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make a design ~ 0 + compound + other columns (donors, plates) and contrasts of each compound with the first."""
    compound = np.concatenate([np.arange(compounds + 1), np.zeros(samples // 5, int)])
    compound = np.concatenate([compound, rng.integers(1, compounds + 1, samples - len(compound))])
    plates = rng.integers(0, others + 1, samples)[:, None] == np.arange(1, others + 1)
    design = np.concatenate([compound[:, None] == np.arange(compounds + 1), plates], axis=1).astype(float)
    contrasts = np.zeros((design.shape[1], compounds))
    contrasts[0], contrasts[1 + np.arange(compounds), np.arange(compounds)] = -1, 1
    return design, contrasts


def simulate(samples: int, rng: np.random.Generator) -> np.ndarray:
    mean = np.exp(rng.normal(3, 1.5, GENES)) * np.exp(rng.normal(0, 0.3, (samples, 1)))
    return rng.poisson(mean * rng.gamma(10, 0.1, mean.shape))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def finish(tests) -> None:
    adjust_log10_p(-np.abs(signed_log10_p(tests.t, tests.df)))


def loop(y: np.ndarray, design: np.ndarray, contrasts: np.ndarray, weights: np.ndarray | None) -> float:
    """Seconds of a loop over the genes, scaled up to all of them."""

    def work() -> None:
        for gene in range(LOOPED):
            root = np.ones(len(y)) if weights is None else np.sqrt(weights[:, gene])
            x = design * root[:, None]
            q, r = np.linalg.qr(x)
            beta = np.linalg.solve(r, q.T @ (y[:, gene] * root))
            half = np.linalg.solve(r.T, contrasts)
            _ = contrasts.T @ beta, np.sqrt((half**2).sum(axis=0)), ((y[:, gene] * root - x @ beta) ** 2).sum()

    with threadpool_limits(1, user_api="blas"):  # with more threads the loop is slower
        return seconds(work) / LOOPED * GENES


def run_plain() -> None:
    rng = np.random.default_rng(0)
    design, contrasts = design_of(600, 150, 12, rng)
    y = log2_cpm(simulate(600, rng))
    took = seconds(lambda: finish(moderated_t(fit_linear(y, design), contrasts)))
    report("plain", took, loop(y, design, contrasts, None), (y, design, contrasts))


def run_voom(contrast_sd: str) -> None:
    rng = np.random.default_rng(0)
    design, contrasts = design_of(426, 145, 12, rng)  # 158 columns
    counts = simulate(426, rng)
    parts, found = {}, {}

    def timed(name: str, work: Callable[[], object]) -> object:
        parts[name] = seconds(lambda: found.update({name: work()}))
        return found[name]

    size = timed("TMM", lambda: library_sizes(counts) * tmm_factors(counts))
    v = timed("voom", lambda: voom(counts, design, lib_size=size))
    fit = timed("fit", lambda: fit_weighted(v.log2_cpm, design, v.weights, contrasts, contrast_sd=contrast_sd))
    tests = timed("eBayes", lambda: moderated_t(fit))
    timed("p", lambda: finish(tests))
    timed("log odds", lambda: log_odds(tests))
    print(", ".join(f"{name} {value:.1f} s" for name, value in parts.items()))
    report("voom", sum(parts.values()), loop(v.log2_cpm, design, contrasts, v.weights), (counts, design, contrasts))


def report(case: str, took: float, looped: float, shapes: tuple[np.ndarray, ...]) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (samples, genes), (_, columns), (_, contrasts) = (array.shape for array in shapes)
    print(
        f"{case}: {genes} genes x {samples} samples, {columns} columns, {contrasts} contrasts: {took:.1f} s "
        f"(limit {LIMITS[case]:.0f}), loop over genes {looped:.0f} s (scaled up from {LOOPED}), "
        f"ratio {looped / took:.1f}; peak {peak:.2f} GiB (limit {MEMORY:.0f})",
        flush=True,
    )


CASES = {"plain": run_plain, "voom": lambda: run_voom("limma"), "voom-exact": lambda: run_voom("exact")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="?", choices=CASES, help="one case, in this process; all of them otherwise")
    case = parser.parse_args().case
    if case:
        CASES[case]()
        return
    for name in CASES:
        subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    main()
