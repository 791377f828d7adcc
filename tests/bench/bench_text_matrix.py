"""Reading a matrix of text, genes x cells, a tenth of it not 0, against pandas reading the table whole."""

import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from pertcast.io.text_matrix import read_text_matrix

GENES, CELLS, SHARE = 6_000, 4_000, 0.1


def whole(path: Path) -> csr_array:
    return csr_array(pd.read_csv(path, index_col=0).to_numpy(np.float32))


def ours(path: Path) -> csr_array:
    return read_text_matrix(path).values


def measured(read, path: Path, told) -> None:
    """Seconds, and memory beyond what the process held before; in a process of its own."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    values = read(path)
    told.put((time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, values.nnz))


def main() -> None:
    rng, context = np.random.default_rng(0), multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "matrix.csv"
        with open(path, "w") as file:
            file.write(",".join(["gene", *(f"CELL{i}" for i in range(CELLS))]) + "\n")
            for gene in range(GENES):
                values = np.where(rng.random(CELLS) < SHARE, rng.random(CELLS).round(3) + 0.001, 0)
                file.write(f"GENE{gene}," + ",".join(f"{value:g}" for value in values) + "\n")
        found = {}
        for read in (whole, ours):
            told = context.Queue()
            process = context.Process(target=measured, args=(read, path, told))
            process.start()
            found[read.__name__] = told.get()
            process.join()
    (slow, much, nnz), (quick, little, same) = found["whole"], found["ours"]
    assert nnz == same
    print(f"{GENES} x {CELLS} from text: {quick:.1f} s, {little / 1024:.0f} MB (held as CSR: {nnz * 8 / 2**20:.0f} MB)")
    ratios = f"{much / little:.1f} times our memory, {slow / quick:.2f} times our seconds"
    print(f"  pandas, whole: {slow:.1f} s, {much / 1024:.0f} MB: {ratios}")


if __name__ == "__main__":
    main()
