"""Memory of GANs on 6,998 genes with 4 heads, and seconds of one hold-out of measured blood cells with all its genes.

Memory is the peak of a process of its own that fits SIMULATED cells: all genes in the networks, attention in generator
and critic, the default batch. The hold-out needs the measured cells; PERTCAST_REAL_DATA says where they lie.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array

from pertcast.cells.log_scale import as_log1p
from pertcast.cells.registry import build
from pertcast.cells.variable_genes import variable_genes
from pertcast.io.single_cells import read_cells
from pertcast.metrics.distribution import wasserstein
from pertcast.metrics.structure import skill_of_means
from pertcast.types import Cells

REAL_DATA = Path(os.environ.get("PERTCAST_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
GENES, HEADS, CELLS, STEPS = 6_998, 4, 256, 3
MOST_MEMORY, MOST_SECONDS = 4.0, 180.0  # GB and seconds that are allowed
HELD_OUT, THREADS, SCORED = "NK", 2, 2000
LARGE = {
    "film-gan": {"heads": HEADS, "critic_heads": HEADS, "most_genes": 0, "training": {"steps": STEPS}},
    "cycle-gan": {"most_genes": 0, "training": {"steps": STEPS}},
}


def simulated() -> Cells:
    """Draw counts of two contexts, half of the cells treated, about a tenth of them above 0."""
    rng = np.random.default_rng(0)
    treated, number = np.arange(CELLS) % 2 == 1, np.arange(CELLS)
    rate = np.exp(rng.normal(-2.8, 1.0, GENES)) * np.where(treated[:, None] & (np.arange(GENES) < 200), 3.0, 1.0)
    names = lambda word, numbers: np.array([f"{word}{i}" for i in numbers], dtype=object)  # noqa: E731
    condition = np.where(treated, "drug", "control").astype(object)
    genes = tuple(f"GENE{j:04d}" for j in range(GENES))
    x = csr_array(rng.poisson(rate).astype(np.float32))
    kind, same = names("type", number // 2 % 2), np.full(CELLS, "batch", dtype=object)
    return Cells(names("cell", number), genes, x, "counts", condition, kind, same, "control")


def fit_large(name: str) -> None:
    """Fit a few steps on all genes; print seconds and the peak of this process in GB."""
    torch.set_num_threads(THREADS)
    cells = simulated()
    start = time.perf_counter()
    build(name, LARGE[name]).fit(cells, seed=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(time.perf_counter() - start, peak)


def report_memory() -> None:
    for name in LARGE:
        child = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
        seconds, peak = map(float, child.stdout.split())
        heads = f" x {HEADS} heads" if "heads" in LARGE[name] else ""
        print(f"SIMULATED cells, {GENES:,} genes{heads}: {name} built and {STEPS} steps taken in {seconds:.0f} s")
        print(f"  peak memory {peak:.2f} GB, {peak / MOST_MEMORY:.2f} of the {MOST_MEMORY:.0f} GB allowed")


def report_hold_out() -> None:
    path = REAL_DATA / "kang" / "kang_ifnb_2000.h5ad"
    if not path.exists():
        print(f"no hold-out: '{path}' is not there")
        return
    torch.set_num_threads(THREADS)
    cells = read_cells(path, condition_key="condition", control="control", context_key="cell_type")
    held = (cells.context == HELD_OUT) & ~cells.untreated
    train, control = cells.take(~held), cells.take((cells.context == HELD_OUT) & cells.untreated)
    genes = variable_genes(as_log1p(train), SCORED)
    y_true, y_control = (as_log1p(one)[:, genes].toarray() for one in (cells.take(held), control))
    print(f"measured blood cells: {len(train)} x {len(cells.genes):,}, {HELD_OUT} held out, {THREADS} threads")
    for name in ("film-gan", "cycle-gan", "context-transfer"):
        start, cpu = time.perf_counter(), time.process_time()
        made = build(name).fit(train, seed=0).predict(control, "stimulated", seed=0, sample=True)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        y_pred = as_log1p(made)[:, genes].toarray()
        skill = skill_of_means(y_true=y_true, y_pred=y_pred, y_control=y_control)
        distance = wasserstein(y_true=y_true, y_pred=y_pred)
        share = f"{seconds / MOST_SECONDS:.2f} of the {MOST_SECONDS:.0f} s allowed"
        print(f"  {name}: {seconds:.0f} s ({cpu:.0f} s of processors), {share}; skill {skill:.3f}, W1 {distance:.3f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        fit_large(sys.argv[1])
    else:
        report_memory()
        report_hold_out()
