"""Files and folders that are either whole or not there: written under a temporary name, renamed when complete."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pertcast.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_FIXES = {
    errno.ENOSPC: "The disk is full. Free some space, or write to another disk.",
    errno.EDQUOT: "The disk quota is used up. Free some space, or write to another disk.",
    errno.EFBIG: "The file is larger than a limit of the system allows. Write to another disk, or raise the limit.",
    errno.EACCES: "There is no permission to write there. Choose another place, or change the permissions.",
    errno.EPERM: "There is no permission to write there. Choose another place, or change the permissions.",
    errno.EROFS: "The file system is read-only. Choose another place.",
    errno.ENOENT: "Its folder does not exist. Create the folder first.",
    errno.ENOTDIR: "A file stands where a folder of that path should be. Choose another path, or move the file away.",
    errno.EISDIR: "A folder stands where the file should go. Choose another path, or move the folder away.",
}


def make_folder(folder: Path) -> None:
    """Make a folder that files can be written to. Raises InputError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        fix = "Choose another place, or move away what stands there."
        raise InputError(f"Folder '{folder}' cannot be written to: {error.strerror}. {fix}") from error


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Yield a temporary path beside `final`; what was written there becomes `final` when the block ends well.

    The temporary name ends in the name of `final`, so that writers which look at the suffix see the same one. After
    an error nothing remains, and an older `final` stays as it was.
    Raises InputError when the disk is full, or the place cannot be written to.
    """
    final = Path(final)
    with _said_plainly(final):
        _remove_abandoned(final)
        if final.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(final))
        temporary = _temporary(final)
        try:
            temporary.touch()
            yield temporary
            _sync(temporary)
            os.replace(temporary, final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(final.parent)


@contextmanager
def atomic_folder(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a new folder beside `final`; it becomes `final` when the block ends well, else it is removed.

    replace     let it take the place of an existing folder, which is removed; without it that is an InputError
    Raises InputError when the disk is full, or the place cannot be written to.
    """
    final = Path(final)
    with _said_plainly(final):
        _remove_abandoned(final)
        if final.exists() and not replace:
            raise InputError(f"Folder '{final}' cannot be written: it exists. Remove it, or choose another name.")
        temporary = _temporary(final)
        try:
            temporary.mkdir()
            yield temporary
            for path in sorted(temporary.rglob("*")):
                _sync(path)
            _swap_in(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync(final.parent)


def write_json(path: Path, obj: object) -> None:
    """Write JSON in one canonical form: sorted keys, one space of indent, a newline at the end; NaN is refused."""
    text = json.dumps(obj, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False, default=_plain)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a pyarrow table; text is dictionary-coded, numbers are not (they hardly repeat)."""
    import pyarrow.parquet as pq
    import pyarrow.types as types

    text = [field.name for field in table.schema if types.is_string(field.type) or types.is_large_string(field.type)]
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, use_dictionary=text or False, write_statistics=False)


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(final: Path) -> Path:
    return final.with_name(f".partial-{socket.gethostname()}-{os.getpid()}-{final.name}")


def _remove_abandoned(final: Path) -> None:
    """Remove what processes of this machine that are no longer alive left behind for the same `final`."""
    prefix, suffix = f".partial-{socket.gethostname()}-", f"-{final.name}"
    for path in final.parent.iterdir() if final.parent.is_dir() else ():
        process = path.name[len(prefix) : -len(suffix)] if path.name.startswith(prefix) else ""
        if path.name == f"{prefix}{process}{suffix}" and process.isdigit() and not _alive(int(process)):
            _remove(path)


def _alive(process: int) -> bool:
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _swap_in(temporary: Path, final: Path) -> None:
    if not final.exists():
        os.rename(temporary, final)
        return
    old = temporary.with_name(f"{temporary.name}.old")
    os.rename(final, old)
    os.rename(temporary, final)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _said_plainly(final: Path) -> Iterator[None]:
    """Turn what the operating system says of writing `final` into one message for the user."""
    try:
        yield
    except InputError:  # said already, by a block within this one
        raise
    except Exception as error:
        fix = _fix(error, final)
        if fix is None:
            raise
        raise InputError(f"'{final}' cannot be written: {error}. {fix}") from error


def _fix(error: Exception, final: Path) -> str | None:
    # Writers outside Python (polars, HDF5) report a full disk in their own error classes, as text.
    if "No space left on device" in str(error):
        return _FIXES[errno.ENOSPC]
    if not isinstance(error, OSError):
        return None
    about_another_file = error.filename is not None and Path(error.filename).parent != final.parent
    return None if about_another_file and error.filename != str(final.parent) else _FIXES.get(error.errno)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
