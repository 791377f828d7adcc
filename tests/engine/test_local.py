"""Units of work on this machine: one or several processes, errors, workers and starters that are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pertcast.engine import local
from pertcast.errors import InputError, PertcastError
from units import Write

UNITS = ["one", "two", "three", "four"]


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".pid"}


def test_one_process_in_order_in_one_thread(tmp_path):
    """The thread count is this process's own again afterwards, also after an error."""
    threads, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        local.run_units(UNITS, lambda unit: seen.append((unit, torch.get_num_threads())), jobs=1, describe=str)
        assert seen == [(unit, 1) for unit in UNITS]
        with pytest.raises(InputError):
            local.run_units(["broken"], Write(tmp_path), jobs=1, describe=str)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_several_processes_do_the_same(tmp_path, monkeypatch):
    """R38: in processes of their own, one thread each, with the files that one process writes."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folders = {jobs: tmp_path / str(jobs) for jobs in (1, 2)}
    for jobs, folder in folders.items():
        folder.mkdir()
        local.run_units(UNITS, Write(folder), jobs=jobs, describe=str)
    assert written(folders[1]) == written(folders[2]) == set(UNITS)
    for unit in UNITS:
        assert (folders[2] / unit).read_text() == (folders[1] / unit).read_text() == f"{unit} 1 1"
    pids = {int((folders[2] / f"{unit}.pid").read_text()) for unit in UNITS}
    assert os.getpid() not in pids
    assert {int((folders[1] / f"{unit}.pid").read_text()) for unit in UNITS} == {os.getpid()}


def test_workers_are_told_of_one_thread_and_the_environment_stays(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    with local._pool(1, Write(tmp_path)) as pool:
        pool.submit(local._do, "one").result()
        assert os.environ["MKL_NUM_THREADS"] == "1"
    assert (tmp_path / "one").read_text() == "one 1 1"
    assert "OMP_NUM_THREADS" not in os.environ
    assert os.environ["MKL_NUM_THREADS"] == "7"


def test_an_error_stops_the_rest_and_keeps_what_was_done(tmp_path):
    units = ["one", "two", "broken", "four"]
    with pytest.raises(InputError, match="Unit 'broken' is at fault."):
        local.run_units(units, Write(tmp_path), jobs=1, describe=str)
    assert written(tmp_path) == {"one", "two"}


def test_an_error_in_a_worker_comes_back_as_it_was(tmp_path):
    """The message and the kind survive the way between processes; what nobody began is not begun."""
    units = ["one", "broken", *(f"later {k}" for k in range(200))]
    with pytest.raises(InputError, match="^Unit 'broken' is at fault.$"):
        local.run_units(units, Write(tmp_path), jobs=2, describe=str)
    assert within(30, lambda: "one" in written(tmp_path))  # a unit at work is finished, not cut off
    assert len(written(tmp_path)) < len(units) - 1


def test_a_worker_that_is_killed_gives_one_message(tmp_path):
    with pytest.raises(PertcastError, match="ended from outside, .* memory ran out. What was finished stays. "):
        local.run_units(["one", "two", "killed", "four", "five"], Write(tmp_path), jobs=2, describe=str)
    assert {"killed"}.isdisjoint(written(tmp_path))


def test_workers_end_with_the_process_that_started_them(tmp_path):
    """SIGKILL of the starter leaves nothing running that would write into the same folders."""
    code = (
        "from pathlib import Path\nfrom pertcast.engine.local import run_units\nfrom units import Write\n"
        "if __name__ == '__main__':\n"
        f"    run_units(['waiting 1', 'waiting 2'], Write(Path({str(tmp_path)!r})), jobs=2, describe=str)\n"
    )
    (tmp_path / "start.py").write_text(code)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    starter = subprocess.Popen([sys.executable, str(tmp_path / "start.py")], env=env, stderr=subprocess.DEVNULL)
    pids: list[int] = []
    try:
        assert within(60, lambda: len(list(tmp_path.glob("*.pid"))) == 2 and all(
            path.read_text() for path in tmp_path.glob("*.pid")))  # fmt: skip
        pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
        assert all(running(pid) for pid in pids)
        starter.send_signal(signal.SIGKILL)
        starter.wait()
        assert within(30, lambda: not any(running(pid) for pid in pids))
    finally:
        starter.kill()
        for pid in filter(running, pids):
            os.kill(pid, signal.SIGKILL)


def within(seconds: float, condition) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def running(pid: int) -> bool:
    """Tell a process that runs from one that is gone, or dead and not yet waited for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_nothing_to_do_says_nothing(capfd):
    local.run_units([], lambda unit: pytest.fail("no unit"), jobs=2, describe=str)
    assert capfd.readouterr() == ("", "")


def test_a_log_gets_whole_lines(capfd, monkeypatch):
    """Where stderr is no terminal: how many of how many, which, never a bar that rewrites itself; nothing on stdout."""
    monkeypatch.setattr(local, "LOG_INTERVAL", 0.0)
    local.run_units(UNITS, lambda unit: None, jobs=1, describe=lambda unit: f"unit {unit}")
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line.strip("\r") for line in err.splitlines() if line.strip("\r")]
    assert [line.split(" ")[0] for line in lines][-1] == "4/4"
    assert lines[-1].endswith("unit four")
    assert not any("%|" in line for line in lines)


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (64, local.MOST_JOBS)])
def test_as_many_processes_as_cores_but_not_without_end(monkeypatch, cores, expected):
    """What this process may use counts, not what the machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 999)
    assert local.available_jobs() == expected
