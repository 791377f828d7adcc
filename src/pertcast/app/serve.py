"""Start the app's web server: one process, this machine alone unless an address is named."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

from pertcast.app.places import Places
from pertcast.errors import InputError

MAIN = Path(__file__).parent / "main.py"
OPTIONS = {
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": "false",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "theme.base": "light",
    "theme.primaryColor": "#2f6690",
    "theme.baseRadius": "small",
}


def prepare(places: Places, address: str, port: int) -> None:
    """Raise InputError where data or runs are not there, or the address cannot be listened on."""
    if places.data is not None and not places.data.exists():
        raise InputError(f"'{places.data}' does not exist. Name an h5ad file with --data.")
    if places.runs is not None and not places.runs.is_dir():
        raise InputError(f"'{places.runs}' is no folder. Name a folder of runs with --runs.")
    try:
        with socket.create_server((address, port)):
            pass
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"Port {port} of {address} is in use. Name another one with --port.") from None
        fix = "Name another one with --port or --address."
        raise InputError(f"Port {port} of {address} cannot be listened on: {error.strerror}. {fix}") from None


def serve(places: Places, *, address: str = "127.0.0.1", port: int = 8501) -> None:
    """Turn this process into the web server; it ends as any server does, by Ctrl-C."""
    os.execve(sys.executable, command(address, port), {**os.environ, **places.to_environment()})


def command(address: str, port: int) -> list[str]:
    """Return the words that start the server."""
    options = {"server.address": address, "server.port": str(port), **OPTIONS}
    told = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "streamlit", "run", str(MAIN), *told]
