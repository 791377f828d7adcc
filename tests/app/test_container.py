"""The Containerfile: what it copies is there, and what it installs starts the app in an environment of its own."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from browser import answers, free_port
from pertcast.app import places

ROOT = Path(__file__).parents[2]
LINES = [
    line.split(maxsplit=1)
    for line in (Path(places.__file__).parent / "Containerfile").read_text().splitlines()
    if line and not line.startswith("#")
]
SHARED_LIBRARIES = ("rdkit/Chem/Draw/rdMolDraw2D.so", "lightgbm/lib/lib_lightgbm.so")
SLIM = {"libc6", "libgcc-s1", "libstdc++6", "zlib1g"}  # what the slim image has without asking


def of(kind: str) -> list[str]:
    return [rest for word, rest in LINES if word == kind]


def test_what_is_copied_is_there():
    for line in of("COPY"):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists(), source


def test_the_port_that_is_shown_is_the_one_listened_on():
    (command,) = (json.loads(line) for line in of("CMD"))
    assert command[command.index("--port") + 1] == of("EXPOSE")[0]
    assert command[command.index("--address") + 1] == "0.0.0.0"  # of the container, which its host reaches


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="no dpkg that says which package a library is of")
def test_the_system_packages_are_those_that_the_wheels_need():
    """S001-17. Oracle: what the linker resolves the wheels' libraries to, and dpkg's word on whose files these are."""
    (line,) = (line for line in of("RUN") if "apt-get" in line)
    named = set(re.search(r"--no-install-recommends ([^&]+)", line).group(1).split())
    site = Path(requests.__file__).parents[1]
    needed = set()
    for library in SHARED_LIBRARIES:
        told = subprocess.run(["ldd", site / library], capture_output=True, text=True, check=True).stdout
        assert "not found" not in told
        needed |= {path for path in re.findall(r"=> (/lib/\S+)", told)}
    owners = {_package(path) for path in needed}
    wanted = {one for one in owners - SLIM if not re.match(r"libx(cb|au|dmcp|11)|libbsd|libmd", one.lower())}
    assert wanted == named  # the others come with libxext6


def _package(path: str) -> str:
    for name in (path, f"/usr{path}"):
        told = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True)
        if told.returncode == 0:
            return told.stdout.partition(":")[0]
    raise AssertionError(f"no package has {path}")


@pytest.mark.slow
def test_its_install_list_starts_the_app(tmp_path):
    """S001-17, R37: its pip lines in an empty environment, then its command; only the address and port are others."""
    copied = tmp_path / "pertcast"
    copied.mkdir()
    for line in of("COPY"):
        *sources, _ = line.split()
        for source in sources:
            target = copied / source
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, target)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "clean"], check=True)
    programs = tmp_path / "clean" / "bin"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    installs = [shlex.split(line) for line in of("RUN") if line.startswith("python -m pip")]
    assert len(installs) == 2
    for program, *words in installs:
        words = [word for word in words if word != "--no-cache-dir"]  # a second download proves nothing more
        done = subprocess.run(
            [programs / program, *words], cwd=copied, env=environment, capture_output=True, text=True, timeout=1500
        )
        assert done.returncode == 0, done.stderr
    (command,) = (json.loads(line) for line in of("CMD"))
    port = free_port()
    at = {"--port": str(port), "--address": "127.0.0.1"}
    words = [at.get(before, word) for before, word in zip(["", *command], command, strict=False)]
    process = subprocess.Popen(
        [programs / words[0], *words[1:]], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        answers(f"http://127.0.0.1:{port}/_stcore/health", process, patience=60)
        assert process.poll() is None
        script = "from pertcast.app import main, places; assert (places.BUNDLED / places.CELLS).is_file()"
        subprocess.run([programs / "python", "-c", script], cwd=tmp_path, env=environment, check=True)
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(tmp_path / "clean")  # gigabytes
