"""Simulated counts: against a loop over genes with scipy's generators, and at the size of an atlas."""

import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

from pertcast.metrics.count_fit import fit_zinb
from pertcast.simulate.base import BaseSettings, base_plan, simulate_base
from pertcast.simulate.cells import draw_cells
from pertcast.simulate.files import About, stream_cells
from pertcast.simulate.mechanisms import StructuralModel

REPEATS = 15
FASTER = 4.0  # than the loop
SECONDS, GIGABYTES = 60.0, 4.0  # for 100,000 x 2,000


def loop(n_cells: int, n_genes: int, zero_share: float, seed: int) -> np.ndarray:
    """Draw gene after gene, as one writes it with scipy."""
    rng = np.random.default_rng(seed)
    mean, dispersion = rng.uniform(1, 10, n_genes), rng.uniform(0.5, 2, n_genes)
    counts = np.empty((n_cells, n_genes), np.int64)
    for gene in range(n_genes):
        size = 1 / dispersion[gene]
        share = size / (size + mean[gene])
        dropped = (zero_share - share**size) / (1 - share**size)
        drawn = stats.nbinom.rvs(size, share, size=n_cells, random_state=rng)
        counts[:, gene] = drawn * (1 - stats.bernoulli.rvs(dropped, size=n_cells, random_state=rng))
    return counts


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak() -> float:
    """Largest memory of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def small() -> None:
    ours, theirs = [], []
    for seed in range(REPEATS):  # taken in turns, so that a busy moment hits both
        theirs.append(seconds(lambda seed=seed: loop(10_000, 20, 0.8, seed)))
        ours.append(seconds(lambda seed=seed: simulate_base(10_000, 20, 0.8, seed=seed)))
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"10,000 x 20: {1e3 * a:.1f} ms, scipy's loop {1e3 * b:.1f} ms: {b / a:.1f} times faster (at least {FASTER})")
    cells = simulate_base(10_000, 20, 0.8, seed=42, fixture=True)
    print(f"maximum likelihood of its 20 genes: {seconds(lambda: fit_zinb(cells.counts)):.2f} s")
    print(f"likelihood at the truth: {1e3 * seconds(cells.nll):.0f} ms")


def large() -> None:
    settings = BaseSettings(populations=5, library_sd=0.4)
    model = StructuralModel(base_plan(2000, 0.8, seed=1, settings=settings))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        taken = seconds(lambda: stream_cells(path, model, 100_000, about=About("base", 1)))
        size = path.stat().st_size / 1e9
    print(f"100,000 x 2,000 streamed to h5ad ({size:.2f} GB) with its likelihood: {taken:.1f} s, peak {peak():.2f} GB")
    start = time.perf_counter()
    cells = draw_cells(model, 100_000, seed=1, as_sparse=True)
    taken = time.perf_counter() - start
    print(
        f"100,000 x 2,000 in memory (CSR, {cells.counts.nnz / 1e6:.0f} million counts above 0): {taken:.1f} s "
        f"(at most {SECONDS:.0f}), peak {peak():.2f} GB (at most {GIGABYTES:.0f})"
    )


if __name__ == "__main__":
    print("SIMULATED data throughout.")
    small()
    if "--small" not in sys.argv:
        large()
