"""Writing a submission at the size of the competition against pandas."""

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pertcast.submission import validate_submission, write_submission

ROWS, GENES, REPEATS = 255, 18_211, 3
TARGET = 2.0


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    values = np.random.default_rng(0).standard_t(3, size=(ROWS, GENES))
    ids, genes = np.arange(ROWS), [f"GENE{j}" for j in range(GENES)]
    took: dict[str, list[float]] = {"ours": [], "pandas float64": [], "pandas float32": [], "check": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "submission.csv"
        frames = {
            name: pd.DataFrame(values.astype(name.split()[1]), index=pd.Index(ids, name="id"), columns=genes)
            for name in took
            if name.startswith("pandas")
        }
        for _ in range(REPEATS):  # taken in turns, so that a busy moment hits all
            for name, frame in frames.items():
                took[name].append(seconds(lambda frame=frame: frame.to_csv(path)))
            took["ours"].append(seconds(lambda: write_submission(path, ids=ids, genes=genes, values=values)))
            took["check"].append(seconds(lambda: validate_submission(path, ids=ids, genes=genes)))
        size = os.path.getsize(path) / 1e6
    middle = {name: statistics.median(times) for name, times in took.items()}
    print(f"write {ROWS} x {GENES}: {middle['ours']:.2f} s, {size:.0f} MB; checking it: {middle['check']:.2f} s")
    for name in frames:
        ratio = middle[name] / middle["ours"]
        print(f"  {name}: {middle[name]:.2f} s, {ratio:.1f} times ours (target at least {TARGET})")


if __name__ == "__main__":
    main()
