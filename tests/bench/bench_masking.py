"""Masking of 4,096 cells x 15,000 genes beside a loop of `Generator.choice`, its memory, and training throughput.

10 % of the entries are not zero; 50 to 80 % of them are hidden. Turns alternate, ratios are medians over them. Memory
is the peak above what is held before, as a share of the matrix that is masked. Training: cells per second of an epoch
of the published network (one hidden layer of 1,024) and of the default one, at 15,000 genes and batches of 128.
"""

import argparse
import time
import tracemalloc

import numpy as np
import torch
from scipy.sparse import csr_array

from pertcast.nn.fit import fit_network, seeded
from pertcast.nn.masked_fit import Hiding, MaskedLoss, MaskedTraining, rows_of, start_of
from pertcast.nn.masked_net import MaskedNet, MaskedNetSizes
from pertcast.nn.masking import hide_dense, hide_sparse

CELLS, GENES, DENSITY = 4096, 15_000, 0.10
LOW, HIGH = 0.5, 0.8
TRAINED, BATCH = 1024, 128
TARGET, MOST_MEMORY = 3.0, 2.0


def simulated() -> tuple[np.ndarray, csr_array]:
    """Values above 0 at random places, dense and sparse."""
    dense = np.random.default_rng(0).random((CELLS, GENES), dtype=np.float32)
    dense[dense > DENSITY] = 0
    return dense, csr_array(dense)


def loop_sparse(x: csr_array, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """Hide the same share of each row by `choice`, row by row."""
    hidden = np.zeros(len(x.data), bool)
    for first, last in zip(x.indptr, x.indptr[1:], strict=False):
        n = last - first
        count = rng.integers(int(np.ceil(low * n)), int(high * n) + 1)
        hidden[first + rng.choice(n, count, replace=False)] = True
    return hidden


def loop_dense(x: np.ndarray, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """The same of a dense matrix."""
    hidden = np.zeros(x.shape, bool)
    for i, row in enumerate(x):
        at = np.flatnonzero(row)
        count = rng.integers(int(np.ceil(low * len(at))), int(high * len(at)) + 1)
        hidden[i, rng.choice(at, count, replace=False)] = True
    return hidden


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def peak_share(function, x, size: int) -> float:
    """Most memory that a call takes beside its input, as a share of the input."""
    tracemalloc.start()
    function(x, LOW, HIGH, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / size


def throughput(sizes: MaskedNetSizes, x: csr_array) -> float:
    """Cells per second of one epoch."""
    with seeded(0):
        net = MaskedNet(sizes, **start_of(x, zeros=False), zeros=False, above=False)
    rows = rows_of(x, np.full(x.shape[0], -1))
    settings = MaskedTraining(epochs=1, batch=BATCH, patience=None)
    return x.shape[0] / seconds(lambda: fit_network(net, rows, MaskedLoss(Hiding()), settings, seed=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dense, sparse = simulated()
    size = {"sparse": sum(part.nbytes for part in (sparse.data, sparse.indices, sparse.indptr)), "dense": dense.nbytes}
    print(f"SIMULATED values: {CELLS} x {GENES}, {sparse.nnz / dense.size:.1%} not zero, one thread")
    for form, x, ours, loop in (("sparse", sparse, hide_sparse, loop_sparse), ("dense", dense, hide_dense, loop_dense)):
        taken = {ours: [], loop: []}
        for turn in range(arguments.turns):
            for function, found in taken.items():
                found.append(seconds(function, x, LOW, HIGH, np.random.default_rng(turn)))
        mine, theirs = (float(np.median(found)) for found in taken.values())
        memory = peak_share(ours, x, size[form])
        print(
            f"{form}: {mine:.3f} s, loop {theirs:.3f} s, {theirs / mine:.1f} times as fast (target {TARGET:.0f}); "
            f"memory {memory:.2f} times the input (most {MOST_MEMORY:.0f})"
        )
    few = sparse[:TRAINED]
    for name, sizes in (("published", MaskedNetSizes(hidden=(1024,))), ("default", MaskedNetSizes())):
        print(f"training, {name} network: {throughput(sizes, few):,.0f} cells/s")


if __name__ == "__main__":
    main()
