"""Pseudobulk of the long table of cells, streamed: rows a second, and memory at 1x and 10x the rows.

The same 20,000 cells, 2,304 samples and 18,000 genes; only the rows grow, from 2 to 20 million. Each size runs in a
process of its own. Seconds of the wall clock are those of this machine as busy as it is; CPU seconds hardly are. The
third run is the usual way for comparison, a table in memory grouped by pandas, at 1x.
"""

import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pertcast.io.long_counts import pseudobulk_long

CELLS, GENES, ROWS = 20_000, 18_000, 2_000_000
BY = ["plate_name", "well", "cell_type"]


def write(folder: Path, rows: int) -> None:
    """Write cells one after the other, as the competition does: `rows / CELLS` distinct genes each."""
    rng, each = np.random.default_rng(0), rows // CELLS
    ids = np.array([f"{k * 2654435761:016x}" for k in range(CELLS)])
    genes = np.array([f"GENE{j}" for j in range(GENES)])
    kinds = {"obs_id": pa.string(), "gene": pa.string(), "count": pa.int32(), "normalized_count": pa.float64()}
    with pq.ParquetWriter(folder / "counts.parquet", pa.schema(kinds)) as file:
        for start in range(0, CELLS, 1_000):
            cell = np.repeat(np.arange(start, start + 1_000), each)
            gene = (rng.integers(0, GENES, 1_000)[:, None] + np.arange(each) * (GENES // each)).ravel() % GENES
            columns = (ids[cell], genes[gene], rng.integers(1, 6, len(cell)), rng.random(len(cell)))
            arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds.values(), strict=True)]
            file.write_table(pa.table(arrays, names=list(kinds)))
    places = {"plate_name": 6, "well": 96, "cell_type": 4}
    table = {name: [f"{name} {k}" for k in rng.integers(0, n, CELLS)] for name, n in places.items()}
    pd.DataFrame({"obs_id": ids, **table}).to_csv(folder / "obs.csv", index=False)


def ours(folder: Path) -> int:
    return int(pseudobulk_long(folder / "counts.parquet", folder / "obs.csv", by=BY)[1].sum())


def whole(folder: Path) -> int:
    joined = pd.read_parquet(folder / "counts.parquet", columns=["obs_id", "gene", "count"])
    joined = joined.merge(pd.read_csv(folder / "obs.csv"), on="obs_id")
    return int(joined.groupby([*BY, "gene"])["count"].sum().sum())


def measured(read, folder: Path, told) -> None:
    start, cpu = time.perf_counter(), time.process_time()
    total = read(folder)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    told.put((total, seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def run(read, folder: Path) -> tuple[int, float, float, float]:
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=measured, args=(read, folder, told))
    process.start()
    found = told.get()
    process.join()
    return found


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as home:
        for times in (1, 10):
            folder = Path(home) / str(times)
            folder.mkdir()
            write(folder, times * ROWS)
            found[times] = run(ours, folder)
        plain = run(whole, Path(home) / "1")
    assert plain[0] == found[1][0]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for times, (_, seconds, cpu, memory) in found.items():
        rate = times * ROWS / 1e6
        print(f"{rate:.0f} million rows: {rate / seconds:.1f} million a second of wall clock, {rate / cpu:.1f} of CPU, "
              f"peak {memory:.0f} MB")  # fmt: skip
    print(f"10 times the rows: {found[10][3] / found[1][3]:.2f} times the peak memory")
    _, seconds, cpu, memory = plain
    print(f"pandas at 1x: {cpu / found[1][2]:.1f} times the CPU, {memory / found[1][3]:.1f} times the memory")


if __name__ == "__main__":
    main()
