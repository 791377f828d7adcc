"""Seconds that a cycle-GAN takes for one hold-out of 2,000 cells x 2,000 genes, and its distance beside references.

SIMULATED counts: eight types, half of the cells treated, the last type never in training; one thread.
"""

import argparse
import time

import numpy as np
import torch
from scipy.sparse import csr_array

from pertcast.cells import registry
from pertcast.cells.wins import compare_models
from pertcast.types import Cells

CELLS, GENES, TYPES, TARGET = 2_000, 2_000, 8, 180.0  # target: seconds of training


def simulated(seed: int = 0) -> Cells:
    """Draw counts, a tenth of them above 0; treatment moves 200 genes, in each type by a factor of its own."""
    rng = np.random.default_rng(seed)
    kind, treated = np.arange(CELLS) % TYPES, rng.random(CELLS) < 0.5
    level = rng.normal(-2.8, 1.0, GENES) + 0.5 * rng.normal(size=(TYPES, GENES))
    effect = np.zeros((TYPES, GENES))
    effect[:, :200] = rng.normal(0, 1, 200) * rng.uniform(0.7, 1.3, (TYPES, 1))
    rate = np.exp(level[kind] + effect[kind] * treated[:, None] + rng.normal(0, 0.3, (CELLS, 1)))
    x = rng.poisson(rate * rng.gamma(2.0, 0.5, rate.shape)).astype(np.float32)
    names = lambda word, numbers: np.array([f"{word}{i}" for i in numbers], dtype=object)  # noqa: E731
    condition = np.where(treated, "drug", "control").astype(object)
    genes = tuple(f"GENE{j:04d}" for j in range(GENES))
    same = np.full(CELLS, "batch", dtype=object)
    return Cells(
        names("cell", range(CELLS)), genes, csr_array(x), "counts", condition, names("type", kind), same, "control"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = simulated()
    last = cells.context == f"type{TYPES - 1}"
    train, held = cells.take(cells.untreated | ~last), cells.take(last)
    model = registry.build("cycle-gan", {"training": {"steps": arguments.steps}})
    start = time.perf_counter()
    model.fit(train, seed=0)
    seconds = time.perf_counter() - start
    print(f"SIMULATED cells: {len(train)} x {GENES}, {train.x.nnz / np.prod(train.x.shape):.1%} dense, one thread")
    print(f"cycle-gan: {seconds:.0f} s, {arguments.steps} steps, {seconds / TARGET:.2f} of the {TARGET:.0f} s allowed")
    models = {"cycle-gan": model}
    models |= {name: registry.build(name).fit(train, seed=0) for name in ("no-change", "mean-shift")}
    row = compare_models(models, held, seed=0).scores["drug"]
    for name in ("no-change", "mean-shift"):
        print(f"energy distance: {row['cycle-gan'] / row[name]:.3f} of that of {name}")


if __name__ == "__main__":
    main()
