"""The app's command: what it refuses before a server starts, and what it starts."""

import os
import re
import socket
import sys
from pathlib import Path

import pytest
import requests

from browser import free_port, running_app
from command_line import pertcast, refused
from pertcast.app import serve
from pertcast.app.places import BUNDLED, Places


@pytest.fixture
def never_served(monkeypatch):
    """Keep this process from turning into a server, and note with what it would have."""
    calls = []
    monkeypatch.setattr(serve.os, "execve", lambda *words: calls.append(words))
    return calls


def test_a_port_in_use_is_one_sentence(never_served):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = pertcast("app", "--port", port)
    refused(done, f"^Port {port} of 127.0.0.1 is in use. Name another one with --port.$")
    assert never_served == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "nowhere.h5ad"], "'nowhere.h5ad' does not exist"),
        (["--runs", "nowhere"], "'nowhere' is no folder"),
        (["--address", "203.0.113.1"], "Port 8501 of 203.0.113.1 cannot be listened on: .* Name another one"),
    ],
)
def test_what_is_not_there_is_refused(words, said, never_served):
    refused(pertcast("app", *words), said)
    assert never_served == []


def test_the_server_listens_on_this_machine_alone(never_served, tmp_path):
    """Loopback unless an address is named; no question, no telemetry, no browser opened; the pages know the places."""
    port = free_port()
    done = pertcast("app", "--runs", tmp_path, "--port", port)
    assert done.code == 0, done.err
    ((program, words, environment),) = never_served
    assert program == sys.executable
    options = dict(zip(words[5::2], words[6::2], strict=True))
    assert options["--server.address"] == "127.0.0.1"
    assert options["--server.port"] == str(port)
    assert (options["--server.headless"], options["--browser.gatherUsageStats"]) == ("true", "false")
    assert re.search(f"http://127.0.0.1:{port}", done.err)
    assert Places.from_environment() == Places()
    os.environ.update({key: value for key, value in environment.items() if key.startswith("PERTCAST")})
    try:
        assert Places.from_environment() == Places(None, tmp_path)
    finally:
        del os.environ["PERTCAST_APP"]


def test_own_cells_never_meet_the_bundled_model(tmp_path):
    own = Places(data=tmp_path / "x.h5ad", runs=tmp_path)
    assert own.cell_runs == tmp_path
    assert own.compound_runs == tmp_path
    assert Places(runs=tmp_path).cell_runs == BUNDLED / "runs"


def test_the_server_answers_and_ends():
    """R15: started as a user does; the page's shell is there, and the port is free again afterwards."""
    with running_app() as url:
        port = int(url.rpartition(":")[2])
        with requests.Session() as http:
            http.trust_env = False
            assert "<title>" in http.get(url, timeout=10).text
        refused(pertcast("app", "--port", port), "is in use")
    with socket.create_server(("127.0.0.1", port)):
        pass
    assert Path(serve.MAIN).is_file()
