"""Files and folders are whole or not there."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pertcast.errors import InputError
from pertcast.io.atomic import atomic_folder, atomic_path, digest_file, write_json, write_parquet


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half(final: Path, error: Exception) -> None:
    with atomic_path(final) as temporary:
        temporary.write_text("half")
        raise error


def write_half_a_folder(final: Path, error: Exception) -> None:
    with atomic_folder(final) as temporary:
        (temporary / "a").write_text("half")
        raise error


def test_file_appears_only_when_whole(tmp_path):
    final = tmp_path / "table.csv"
    with atomic_path(final) as temporary:
        temporary.write_text("new")
        assert not final.exists()
        assert temporary.suffix == ".csv"
        assert temporary.parent == tmp_path
    assert final.read_text() == "new"
    assert names(tmp_path) == ["table.csv"]


def test_old_file_stays_after_an_error(tmp_path):
    final = tmp_path / "table.csv"
    final.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(final, ZeroDivisionError())
    assert final.read_text() == "old"
    assert names(tmp_path) == ["table.csv"]


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "quota"),
        (RuntimeError("ComputeError: No space left on device (os error 28)"), "The disk is full"),
        (PermissionError(errno.EACCES, "Permission denied"), "no permission"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only"),
    ],
)
def test_what_the_system_says_becomes_one_message(tmp_path, error, fix):
    final = tmp_path / "submission.csv"
    with pytest.raises(InputError, match=fix) as caught:
        write_half(final, error)
    assert str(final) in str(caught.value)
    assert names(tmp_path) == []


def test_a_write_that_the_system_refuses_leaves_nothing(tmp_path):
    """As on a full disk, but real: the process may write files of 1,000 bytes at most."""
    code = f"""
        import resource, signal
        from pathlib import Path
        from pertcast.io.atomic import atomic_path
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with atomic_path(Path({str(tmp_path / "big.bin")!r})) as temporary:
            temporary.write_bytes(bytes(2000))
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "InputError" in ended.stderr
    assert "cannot be written: [Errno 27] File too large" in ended.stderr
    assert names(tmp_path) == []


def test_folder_missing_and_folder_in_the_way(tmp_path):
    with pytest.raises(InputError, match="Its folder does not exist. Create the folder first"):
        write_json(tmp_path / "no" / "facts.json", {})
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="A folder stands where the file should go"):
        write_json(tmp_path / "taken", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="A file stands where a folder of that path should be"):
        write_json(tmp_path / "file" / "facts.json", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_no_write_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="no permission to write"):
            write_json(tmp_path / "facts.json", {})
    finally:
        tmp_path.chmod(0o700)


def test_an_error_about_another_file_is_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError, match="another"), atomic_path(tmp_path / "out.csv"):
        open(tmp_path / "sub" / "another.csv")


def test_folder_appears_only_when_whole(tmp_path):
    final = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        write_half_a_folder(final, ZeroDivisionError())
    assert names(tmp_path) == []
    with atomic_folder(final) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "a").write_text("whole")
        assert not final.exists()
    assert (final / "sub" / "a").read_text() == "whole"


def test_folder_is_replaced_only_when_asked(tmp_path):
    final = tmp_path / "run"
    final.mkdir()
    (final / "old").write_text("old")
    with pytest.raises(InputError, match="exists"), atomic_folder(final):
        pass
    assert names(final) == ["old"]
    with atomic_folder(final, replace=True) as temporary:
        (temporary / "new").write_text("new")
    assert names(final) == ["new"]
    assert names(tmp_path) == ["run"]


def test_what_a_killed_process_left_is_removed_next_time(tmp_path):
    """Killed with SIGKILL in the middle of writing: the final name never appears, and the remains go."""
    code = f"""
        import os, signal
        from pathlib import Path
        from pertcast.io.atomic import atomic_folder
        with atomic_folder(Path({str(tmp_path / "run")!r})) as temporary:
            (temporary / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".partial-")
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "whole").write_text("whole")
    assert names(tmp_path) == ["run"]


def test_json_is_canonical(tmp_path):
    write_json(tmp_path / "a.json", {"b": np.float32(0.5), "a": [np.int64(1), tmp_path.name], "c": "ü"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == f'{{\n "a": [\n  1,\n  "{tmp_path.name}"\n ],\n "b": 0.5,\n "c": "ü"\n}}\n'
    assert json.loads(text)["a"][0] == 1
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"loss": float("nan")})
    assert names(tmp_path) == ["a.json"]


def test_parquet_and_digest(tmp_path):
    """Same table, same bytes; the digest is that of an outside tool's definition."""
    table = pa.table({"id": [1, 2], "name": ["a", "b"], "G1": np.array([0.5, -1], np.float32)})
    write_parquet(tmp_path / "a.parquet", table)
    write_parquet(tmp_path / "b.parquet", table)
    assert pq.read_table(tmp_path / "a.parquet").equals(table)
    assert digest_file(tmp_path / "a.parquet") == digest_file(tmp_path / "b.parquet")
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_file(tmp_path / "abc") == hashlib.sha256(b"abc").hexdigest()
