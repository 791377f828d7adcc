"""Fetch the real competition files: resumed where a connection was cut, checked, and whole under their names or absent.

pooch looks after what is there already, the hash and the final name. It cannot resume, so it is given a downloader
that can.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pertcast.errors import InputError
from pertcast.io.atomic import atomic_path, digest_file, make_folder

if TYPE_CHECKING:
    import requests

KAGGLE_COMPETITION = "open-problems-single-cell-perturbations"
KAGGLE_FILES = ("de_train.parquet", "id_map.csv", "sample_submission.csv")  # of 3.8 GB, what a submission needs
OPENPROBLEMS_URL = (
    "https://openproblems-bio.s3.amazonaws.com/public/neurips-2023-competition/workflow-resources/neurips-2023-data/"
)
OPENPROBLEMS_FILES = ("de_train.h5ad", "de_test.h5ad", "id_map.csv")

ATTEMPTS = 5  # connections tried in a row without a byte gained before giving up
PAUSE_S = 1.0  # before the second attempt; doubled before each further one
TIMEOUT_S = 30.0  # without a byte
LOG_INTERVAL_S = 15.0  # between progress lines where stderr is no terminal
CHUNK = 1 << 16  # bytes; what is lost of a connection that is cut is less than one


def download_kaggle(out: Path, *, files: Sequence[str] = KAGGLE_FILES) -> list[Path]:
    """Download files of the competition from Kaggle into `out`; those that are there already are left as they are.

    They pass through kagglehub's cache, which resumes a cut download. It needs a Kaggle account whose owner accepted
    the competition's rules, and its API token (`~/.kaggle/kaggle.json`, or KAGGLE_USERNAME and KAGGLE_KEY).
    Raises InputError without token, permission or network, or when the disk is full.
    """
    out = Path(out)
    make_folder(out)
    for name in files:
        if (out / name).exists():
            continue
        cached = _from_kaggle(name)
        if zipfile.is_zipfile(cached):  # Kaggle compresses some tables and keeps their names
            unzip(cached, out)
        else:
            with atomic_path(out / name) as temporary:
                shutil.copyfile(cached, temporary)
    return [out / name for name in files]


def download_openproblems(out: Path, *, base_url: str = OPENPROBLEMS_URL) -> list[Path]:
    """Download the benchmark's public copies into `out`: `de_train.h5ad`, `de_test.h5ad`, `id_map.csv`.

    Their hashes are not published: see `fetch` for what is checked.
    """
    make_folder(Path(out))
    return [fetch(f"{base_url.rstrip('/')}/{name}", Path(out) / name) for name in OPENPROBLEMS_FILES]


def fetch(url: str, target: Path, *, sha256: str | None = None) -> Path:
    """Download a file; a file that is there with the right hash is kept.

    sha256   what the content must hash to. Without it the hash of the first download is recorded in
             `<target>.sha256` (as sha256sum writes it), and every later use is checked against that: a damaged file is
             fetched again, and content that changed on the server is refused

    A download that was cut is continued from `<target>.part`, also by a later call, if the server says that its file
    is still the same. Nothing stands under the final name before it is whole and checked.
    Raises InputError when the server refuses, cannot be reached or sends another content, and on a full disk.
    """
    import pooch
    import requests

    target = Path(target)
    record = target.with_name(f"{target.name}.sha256")
    expected = sha256 or _recorded(record)
    pooch.get_logger().setLevel("WARNING")  # it advises to pin hashes, which the record does
    try:
        pooch.retrieve(url, expected, fname=target.name, path=target.parent, downloader=ResumingDownloader(target))
    except requests.RequestException as error:
        raise InputError(f"'{url}' cannot be downloaded: {error}. Check the address.") from error
    except ValueError as error:  # pooch's word for a wrong hash
        fix = f"Try again; if the new content is wanted, remove '{record}' first." if not sha256 else "Try again."
        raise InputError(f"'{url}' did not send what was expected. {error} {fix}") from error
    except OSError as error:
        raise InputError(f"'{target}' cannot be written: {error}. Check the disk's space and permissions.") from error
    if expected is None:
        with atomic_path(record) as temporary:
            temporary.write_text(f"{digest_file(target)}  {target.name}\n")
    return target


def unzip(archive: Path, folder: Path) -> list[Path]:
    """Unpack a zip archive into a folder; nothing is unpacked if any member would land outside it, or is a link."""
    folder = Path(folder)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [info for info in opened.infolist() if not info.is_dir()]
            for info in members:
                inside = (folder / info.filename).resolve().is_relative_to(folder.resolve())
                if not inside or stat.S_ISLNK(info.external_attr >> 16):
                    fix = "Do not use the archive; get it from its source."
                    raise InputError(f"Archive '{archive}' would write outside '{folder}': '{info.filename}'. {fix}")
            for info in members:
                make_folder((folder / info.filename).parent)
                with opened.open(info) as source, atomic_path(folder / info.filename) as temporary:
                    with open(temporary, "wb") as file:
                        shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"Archive '{archive}' is damaged: {error}. Download it again.") from error
    return [folder / info.filename for info in members]


class _CutError(Exception):
    """The connection ended early, or the server asks to come back: worth another attempt."""


@dataclass(frozen=True, slots=True)
class ResumingDownloader:
    """A downloader as pooch calls it, which keeps what it got in `<target>.part` and continues from there."""

    target: Path

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download `url`; once whole, move it to `output_file`."""
        os.unlink(output_file)  # pooch's empty temporary file, which would stay if this process were killed
        part, failures, reason = self._part, 0, ""
        while failures < ATTEMPTS:
            if failures:
                time.sleep(PAUSE_S * 2 ** (failures - 1))
            before = _size(part)
            try:
                self._continue(url)
                break
            except _CutError as error:
                reason = str(error)
                failures = 1 if _size(part) > before else failures + 1
        else:
            kept = f"{_size(part)} bytes are kept in '{part}': run it again to continue."
            raise InputError(f"'{url}' cannot be downloaded, {ATTEMPTS} attempts failed: {reason}. {kept}")
        os.replace(part, output_file)
        self._tag.unlink(missing_ok=True)

    @property
    def _part(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def _tag(self) -> Path:
        """Where the server's mark of the content is kept, so that halves of two versions are never joined."""
        return self.target.with_name(f"{self.target.name}.part.tag")

    def _continue(self, url: str) -> None:
        """Get what is missing; raise _CutError if that did not work out."""
        import requests

        tag = self._tag.read_text() if self._tag.exists() else ""
        start = _size(self._part) if tag else 0
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": tag}
        try:
            with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
                self._receive(response, url, start=start)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _CutError(f"no connection, or it was cut ({type(error).__name__}); is there a network?") from error

    def _receive(self, response: requests.Response, url: str, *, start: int) -> None:
        _check_status(response.status_code, url)
        continued = response.status_code == 206
        if response.status_code == 416 or (continued and not _continues_at(response, start)):
            self._part.unlink(missing_ok=True)  # the part does not fit the server's file: from the beginning
            raise _CutError("the server could not continue the download")
        start = start if continued else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None else None
        with open(self._part, "ab" if continued else "wb") as file:
            self._tag.write_text(_mark(response))  # after an old part was emptied: a tag never stands beside old bytes
            progress = _Progress(self.target.name, total=total, start=start)
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                progress.add(len(chunk))
            progress.close()
        if total is not None and _size(self._part) != total:
            raise _CutError(f"the connection was cut at {_size(self._part)} of {total} bytes")


class _Progress:
    """A bar on a terminal, one plain line per interval in a log."""

    def __init__(self, name: str, *, total: int | None, start: int):
        from tqdm.std import tqdm

        self.name, self.total, self.done = name, total, start
        hidden = not sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, leave=False, disable=hidden)
        self.next = time.monotonic() + LOG_INTERVAL_S if hidden else float("inf")

    def add(self, count: int) -> None:
        self.done += count
        self.bar.update(count)
        if time.monotonic() >= self.next:
            of = "" if self.total is None else f" of {self.total / 1e6:.1f}"
            print(f"{self.name}: {self.done / 1e6:.1f}{of} MB", file=sys.stderr, flush=True)
            self.next = time.monotonic() + LOG_INTERVAL_S

    def close(self) -> None:
        self.bar.close()


def _from_kaggle(name: str) -> Path:
    import kagglehub
    import requests
    from kagglehub import exceptions

    page = f"https://www.kaggle.com/competitions/{KAGGLE_COMPETITION}"
    subject = f"'{name}' cannot be downloaded from Kaggle"
    token = "Make an API token in your Kaggle settings and save it as ~/.kaggle/kaggle.json."
    try:
        return Path(kagglehub.competition_download(KAGGLE_COMPETITION, path=name))
    except (exceptions.UnauthenticatedError, exceptions.CredentialError) as error:
        raise InputError(f"{subject}: there are no credentials. {token}") from error
    except exceptions.KaggleApiHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            fix = f"Accept the rules at {page}/rules, and check your API token."
            raise InputError(f"{subject}: it refuses ({status}). {fix}") from error
        fix = f"See the file list at {page}/data." if status == 404 else "Try again later."
        raise InputError(f"{subject}: it answers {status}. {fix}") from error
    except requests.RequestException as error:
        raise InputError(f"{subject}: no connection ({type(error).__name__}). Check the network.") from error
    except OSError as error:
        raise InputError(f"{subject}: {error}. Check the disk's space and permissions.") from error
    except exceptions.DataCorruptionError as error:
        raise InputError(f"{subject}: it arrived damaged, and was removed. Try again.") from error
    except ValueError as error:  # kagglehub's word for a credentials file that it cannot read
        raise InputError(f"{subject}: {error}. {token}") from error


def _check_status(status: int, url: str) -> None:
    """Refuse an answer that holds no file; 5xx and 429 are worth another attempt."""
    if status in (200, 206, 416):
        return
    if status in (401, 403):
        fix = "Check the credentials, and that the owner's rules are accepted."
        raise InputError(f"'{url}' is refused by the server ({status}). {fix}")
    if status in (404, 410):
        raise InputError(f"'{url}' is not there ({status}). Check the address; the file may have moved.")
    if status == 429 or status >= 500:
        raise _CutError(f"the server answers {status}")
    raise InputError(f"'{url}' is answered with status {status}, expected 200. Check the address.")


def _continues_at(response: requests.Response, start: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _mark(response: requests.Response) -> str:
    """Return the strong ETag, else the date of change: what If-Range may ask for. Without one nothing is resumed."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _recorded(record: Path) -> str | None:
    if not record.exists():
        return None
    words = record.read_text().split()
    if not words or len(words[0]) != 64:
        raise InputError(f"'{record}' must start with a sha256 of 64 digits. Remove it to record the hash anew.")
    return words[0]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
