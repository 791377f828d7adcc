"""Downloads against a server on this machine: cut, resumed, refused, changed, damaged, zipped."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from pertcast.errors import InputError
from pertcast.io import download
from pertcast.io.download import KAGGLE_FILES, download_kaggle, download_openproblems, fetch, unzip

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves the server's `files`, as far as its other settings let it."""

    def do_GET(self):
        server, name = self.server, self.path.rsplit("/", 1)[-1]
        asked = self.headers.get("Range")
        server.asked.append((name, asked))
        status = server.statuses.pop(0) if server.statuses else None
        if status or name not in server.files:
            self.send_error(status or 404)
            return
        content = server.files[name]
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if asked and server.resumes and self.headers.get("If-Range") == tag:
            start = from_byte(asked)
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.resumes:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[start:end])
        self.wfile.flush()
        if end < len(content) and server.hold is not None:
            server.hold.wait(20)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.asked, server.resumes = {"a.bin": CONTENT}, [], True
        server.statuses, server.cuts, server.hold = [], [], None
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def remains(folder):
    return sorted(path.name for path in folder.iterdir())


def from_byte(asked):
    return None if asked is None else int(asked.removeprefix("bytes=").removesuffix("-"))


def test_fetch_and_keep(server, tmp_path):
    target = fetch(f"{server.url}/a.bin", tmp_path / "new" / "a.bin")
    assert target.read_bytes() == CONTENT
    assert remains(target.parent) == ["a.bin", "a.bin.sha256"]
    assert target.with_name("a.bin.sha256").read_text() == f"{SHA256}  a.bin\n"
    fetch(f"{server.url}/a.bin", target)
    fetch(f"{server.url}/a.bin", target, sha256=SHA256.upper())
    assert len(server.asked) == 1


def test_a_cut_connection_is_resumed(server, tmp_path):
    server.cuts = [1_000_000, 500_000]
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", sha256=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    first, second, third = (from_byte(asked) for _, asked in server.asked)
    assert first is None
    assert 900_000 < second <= 1_000_000
    assert second + 400_000 < third <= second + 500_000
    assert remains(tmp_path) == ["a.bin"]


def test_a_later_call_goes_on_where_the_former_gave_up(server, tmp_path):
    server.cuts = [1_000_000, 0, 0, 0, 0]
    with pytest.raises(InputError) as caught:
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin")
    shown = str(caught.value)
    assert f"'{server.url}/a.bin' cannot be downloaded, 5 attempts failed: " in shown
    assert "cut" in shown
    kept = (tmp_path / "a.bin.part").stat().st_size
    assert 900_000 < kept <= 1_000_000
    assert f"{kept} bytes are kept in '{tmp_path / 'a.bin.part'}': run it again to continue." in shown
    assert remains(tmp_path) == ["a.bin.part", "a.bin.part.tag"]
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert from_byte(server.asked[-1][1]) == kept
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_halves_of_two_versions_are_never_joined(server, tmp_path):
    server.cuts = [1_000_000, 0, 0, 0, 0]
    with pytest.raises(InputError, match="attempts failed"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin")
    server.files["a.bin"] = CONTENT[::-1]
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("resumes", [True, False])
def test_a_part_of_any_length_ends_well(server, tmp_path, resumes):
    """A part that is whole already, and a server that cannot resume, mean to begin again."""
    server.resumes = resumes
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    (tmp_path / "a.bin.part.tag").write_text(f'"{hashlib.md5(CONTENT).hexdigest()}"')
    server.cuts = [700_000]
    assert fetch(f"{server.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT
    assert remains(tmp_path) == ["a.bin", "a.bin.sha256"]


def test_killed_while_downloading(server, tmp_path):
    server.cuts, server.hold = [1_500_000], threading.Event()
    code = "import sys; from pertcast.io.download import fetch; fetch(sys.argv[1], sys.argv[2])"
    command = [sys.executable, "-c", code, f"{server.url}/a.bin", str(tmp_path / "a.bin")]
    with subprocess.Popen(command) as process:
        part = tmp_path / "a.bin.part"
        waiting = threading.Event()
        while not (part.exists() and part.stat().st_size > 500_000):
            assert process.poll() is None
            waiting.wait(0.01)
        process.kill()
    server.hold.set()
    assert remains(tmp_path) == ["a.bin.part", "a.bin.part.tag"]
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", sha256=SHA256)
    assert server.asked[-1][1] is not None
    assert remains(tmp_path) == ["a.bin"]


def test_a_server_in_trouble_is_asked_again(server, tmp_path):
    server.statuses = [503, 429, 500]
    assert fetch(f"{server.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT
    server.statuses = [503] * 5
    with pytest.raises(InputError, match="5 attempts failed: the server answers 503"):
        fetch(f"{server.url}/a.bin", tmp_path / "b.bin")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, r"is refused by the server \(403\). Check the credentials, and that the owner's rules are accepted"),
        (401, r"is refused by the server \(401\)"),
        (404, r"is not there \(404\). Check the address"),
        (400, "is answered with status 400, expected 200"),
    ],
)
def test_refusals(server, tmp_path, status, said):
    server.statuses = [status]
    with pytest.raises(InputError, match=said):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert len(server.asked) == 1
    assert remains(tmp_path) == []


def test_a_wrong_hash(server, tmp_path):
    with pytest.raises(InputError, match=f"did not send what was expected.*expected {'0' * 64} but got {SHA256}"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", sha256="0" * 64)
    assert remains(tmp_path) == []
    (tmp_path / "a.bin").write_bytes(b"older")
    with pytest.raises(InputError, match="did not send what was expected"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", sha256="0" * 64)
    assert (tmp_path / "a.bin").read_bytes() == b"older"


def test_without_a_hash_the_first_content_counts(server, tmp_path):
    target = fetch(f"{server.url}/a.bin", tmp_path / "a.bin")
    target.write_bytes(CONTENT[:-1])  # damaged here: fetched again
    assert fetch(f"{server.url}/a.bin", target).read_bytes() == CONTENT
    target.unlink()
    server.files["a.bin"] = b"another"  # changed there: refused
    with pytest.raises(InputError, match=f"expected {SHA256} but got.*remove '.*a.bin.sha256' first"):
        fetch(f"{server.url}/a.bin", target)
    assert not target.exists()
    target.with_name("a.bin.sha256").write_text("no hash")
    with pytest.raises(InputError, match="must start with a sha256 of 64 digits"):
        fetch(f"{server.url}/a.bin", target)


def test_no_network(server, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=r"5 attempts failed: no connection.*is there a network\?"):
        fetch(f"http://127.0.0.1:{port}/a.bin", tmp_path / "a.bin")
    with pytest.raises(InputError, match="'a.bin' cannot be downloaded: .*Check the address"):
        fetch("a.bin", tmp_path / "a.bin")
    assert remains(tmp_path) == []


def test_a_full_disk_and_a_file_for_a_folder(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        fetch(f"{server.url}/a.bin", tmp_path / "file" / "a.bin")
    with pytest.raises(InputError, match="Folder '.*file' cannot be written to: File exists"):
        download_openproblems(tmp_path / "file", base_url=server.url)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        with pytest.raises(InputError, match=r"a\.bin' cannot be written: .*No space left on device"):
            fetch(f"{server.url}/a.bin", disk / "a.bin")
        assert not (disk / "a.bin").exists()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_progress_in_a_log(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "LOG_INTERVAL_S", 0.0)
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1] == "a.bin: 3.0 of 3.0 MB"
    assert "\r" not in printed.err


def test_openproblems(server, tmp_path):
    names = ["de_train.h5ad", "de_test.h5ad", "id_map.csv"]
    server.files = {name: name.encode() for name in names}
    found = download_openproblems(tmp_path / "raw", base_url=f"{server.url}/public/")
    assert [path.name for path in found] == names
    assert all(path.read_text() == path.name for path in found)
    download_openproblems(tmp_path / "raw", base_url=f"{server.url}/public/")
    assert len(server.asked) == 3


def zip_of(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def test_unzip(server, tmp_path):
    server.files["all.zip"] = zip_of(tmp_path / "z", **{"id_map.csv": "id\n", "deep/er/x.txt": "x"}).read_bytes()
    archive = fetch(f"{server.url}/all.zip", tmp_path / "all.zip")
    out = tmp_path / "out"
    assert unzip(archive, out) == [out / "id_map.csv", out / "deep/er/x.txt"]
    assert (out / "deep/er/x.txt").read_text() == "x"


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt"])
def test_unzip_stays_in_its_folder(tmp_path, name):
    archive = zip_of(tmp_path / "z.zip", **{"good.txt": "good", name: "evil"})
    with pytest.raises(InputError, match=f"would write outside '.*out': '{name}'"):
        unzip(archive, tmp_path / "out")
    assert remains(tmp_path) == ["z.zip"]


def test_unzip_refuses_links_and_damage(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(InputError, match="would write outside '.*': 'link'"):
        unzip(tmp_path / "l.zip", tmp_path / "out")
    text = zip_of(tmp_path / "d.zip", **{"x.txt": "x" * 9999}).read_bytes()
    (tmp_path / "d.zip").write_bytes(text.replace(text[40:44], b"\xff\xff\xff\xff", 1))
    with pytest.raises(InputError, match="is damaged: .*Download it again"):
        unzip(tmp_path / "d.zip", tmp_path / "out")
    (tmp_path / "t.zip").write_text("no zip")
    with pytest.raises(InputError, match="is damaged"):
        unzip(tmp_path / "t.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists() or remains(tmp_path / "out") == []


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """Stand in for kagglehub's download: files from a cache folder, or the error that is set."""
    import kagglehub

    cache = tmp_path / "cache"
    cache.mkdir()
    state = {"asked": [], "error": None, "cache": cache}

    def competition_download(handle, path):
        assert handle == "open-problems-single-cell-perturbations"
        state["asked"].append(path)
        if state["error"]:
            raise state["error"]
        return str(cache / path)

    monkeypatch.setattr(kagglehub, "competition_download", competition_download)
    return state


def test_kaggle(kaggle, tmp_path):
    for name in KAGGLE_FILES:
        (kaggle["cache"] / name).write_text(name)
    zip_of(kaggle["cache"] / "id_map.csv", **{"id_map.csv": "unpacked"})  # Kaggle does so, under the plain name
    out = tmp_path / "raw"
    assert download_kaggle(out) == [out / name for name in KAGGLE_FILES]
    assert [(out / name).read_text() for name in KAGGLE_FILES] == [KAGGLE_FILES[0], "unpacked", KAGGLE_FILES[2]]
    download_kaggle(out)
    assert kaggle["asked"] == list(KAGGLE_FILES)


def answer(status):
    import requests
    from kagglehub.exceptions import KaggleApiHTTPError

    response = requests.Response()
    response.status_code = status
    return KaggleApiHTTPError("refused", response=response)


def test_kaggle_says_no(kaggle, tmp_path):
    import requests
    from kagglehub.exceptions import DataCorruptionError, UnauthenticatedError

    for error, said in (
        (UnauthenticatedError(), r"there are no credentials. Make an API token .*kaggle\.json"),
        (answer(403), r"it refuses \(403\). Accept the rules at https://www.kaggle.com/competitions/open-.*/rules"),
        (answer(404), "it answers 404. See the file list at https://.*/data"),
        (answer(502), "it answers 502. Try again later"),
        (requests.ConnectionError(), r"no connection \(ConnectionError\). Check the network"),
        (DataCorruptionError(), "it arrived damaged, and was removed. Try again"),
        (ValueError("Invalid Kaggle credentials file at x"), "Invalid Kaggle credentials file at x. Make an API token"),
        (OSError(28, "No space left on device"), "No space left on device. Check the disk's space"),
    ):
        kaggle["error"] = error
        with pytest.raises(InputError, match=f"'de_train.parquet' cannot be downloaded from Kaggle: .*{said}"):
            download_kaggle(tmp_path / "raw")
    assert remains(tmp_path / "raw") == []


def test_kaggle_without_credentials_for_real(tmp_path):
    """The library itself, in a home folder without a token; it gives up before it uses the network."""
    code = "import sys; from pertcast.io.download import download_kaggle; download_kaggle(sys.argv[1])"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KAGGLE_API_ENVIRONMENT": "TEST"}
    command = [sys.executable, "-c", code, str(tmp_path / "raw")]
    shown = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "InputError: 'de_train.parquet' cannot be downloaded from Kaggle: there are no credentials" in shown.stderr
    assert remains(tmp_path / "raw") == []
