"""Run units of work on this machine: one after the other, or several processes side by side.

Every unit computes in one thread. Small models gain little from more, several processes gain all cores, and the numbers
do not depend on how many cores there are.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from tqdm.std import tqdm

from pertcast.errors import PertcastError

U = TypeVar("U")

MOST_JOBS = 8  # each holds the libraries and the data: about half a gigabyte
LOG_INTERVAL = 15.0  # seconds between progress lines where stderr is no terminal
LOG_LINE = "{n_fmt}/{total_fmt} done after {elapsed}: {desc}\n"  # whole lines, not a bar that rewrites itself
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def available_jobs() -> int:
    """Count the processes that this machine's cores can feed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_JOBS)


def run_units(units: Sequence[U], work: Callable[[U], None], *, jobs: int, describe: Callable[[U], str]) -> None:
    """Do the work of every unit: in order in this process (jobs 1), or in `jobs` processes that `work` is sent to.

    An error of one unit stops the rest; what was finished stays.
    """
    with progress_bar(len(units)) as bar:
        if jobs <= 1 or len(units) <= 1:
            for unit in units:
                bar.set_description_str(describe(unit), refresh=sys.stderr.isatty())
                with one_thread():
                    work(unit)
                bar.update()
            return
        with _pool(min(jobs, len(units)), work) as pool:
            waiting = {pool.submit(_do, unit): unit for unit in units}
            try:
                for done in as_completed(waiting):
                    done.result()
                    bar.set_description_str(describe(waiting[done]), refresh=False)
                    bar.update()
            except BrokenProcessPool:
                pool.shutdown(wait=False, cancel_futures=True)
                raise PertcastError(
                    "A worker process was ended from outside, most often because memory ran out. "
                    "What was finished stays. Run the same command again with fewer --jobs."
                ) from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def one_thread() -> AbstractContextManager[None]:
    """Compute in one thread: the order of summation, and so the last digit, must not follow the machine."""
    return threads(1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute in so many threads inside the block."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def progress_bar(total: int, *, done: int = 0) -> tqdm:
    """Return a bar on a terminal, one plain line per interval in a log; `done` were done before."""
    interval, line = (0.1, None) if sys.stderr.isatty() else (LOG_INTERVAL, LOG_LINE)
    return tqdm(
        total=total, initial=done, file=sys.stderr, mininterval=interval, miniters=1, bar_format=line,
        disable=total == 0,
    )  # fmt: skip


@contextmanager
def _pool(jobs: int, work: Callable[[U], None]) -> Iterator[ProcessPoolExecutor]:
    """Start fresh processes, whose libraries read at their start that one thread is wanted."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(work, os.getpid())) as pool:
            yield pool
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


_WORK: list[Callable] = []  # what this worker process does, set once when it starts


def _begin(work: Callable, parent: int) -> None:
    _WORK[:] = [work]
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, however that was ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _do(unit: object) -> None:
    with one_thread():
        _WORK[0](unit)
