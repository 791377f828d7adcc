"""A headless Chromium driven through its own driver, over HTTP as the WebDriver standard says.

Source: https://www.w3.org/TR/webdriver2. Debian's packages chromium and chromium-driver have all it needs.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

PARTS = ("chromium", "chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # key of an element's id, by the standard
PATIENCE = 60.0  # seconds until something expected on a page must be there
ENTER, BACKSPACE, ESCAPE, SELECT_ALL = "\ue007", "\ue003", "\ue00c", "\ue009a\ue000"
SIZE = "1400,1000"


class Browser:
    """One window. What is looked for is waited for."""

    def __init__(self, driver: str, downloads: Path):
        self.downloads = downloads
        options = {
            "binary": shutil.which("chromium"),
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server",
                f"--window-size={SIZE}",
            ],
            "prefs": {"download.default_directory": str(downloads), "download.prompt_for_download": False},
        }  # fmt: skip
        capabilities = {"alwaysMatch": {"goog:chromeOptions": options}}
        self.http = requests.Session()
        self.http.trust_env = False  # no proxy on the way to this machine
        found = self._call("POST", f"{driver}/session", {"capabilities": capabilities})
        self.session = f"{driver}/session/{found['sessionId']}"

    def _call(self, method: str, url: str, told: dict | None = None) -> object:
        answer = self.http.request(method, url, json=told, timeout=60)
        value = answer.json()["value"]
        if answer.status_code != 200:
            raise RuntimeError(f"{value['error']}: {value['message'].splitlines()[0]}")
        return value

    def do(self, what: str, told: dict | None = None) -> object:
        return self._call("POST", f"{self.session}/{what}", told or {})

    def open(self, url: str) -> None:
        self.do("url", {"url": url})

    def find(self, xpath: str) -> str:
        """Wait for an element and return its id."""
        said = {"using": "xpath", "value": xpath}
        return self.wait(lambda: self.do("element", said)[ELEMENT], f"no element {xpath}")

    def click(self, xpath: str) -> None:
        self.wait(lambda: self.do(f"element/{self.find(xpath)}/click") or True, f"{xpath} cannot be clicked")

    def press(self, xpath: str, keys: str) -> None:
        self.do(f"element/{self.find(xpath)}/value", {"text": keys})

    def type(self, xpath: str, text: str) -> None:
        """Write into a field in place of what is in it, and press Enter."""
        self.press(xpath, SELECT_ALL)
        self.press(xpath, f"{text}{ENTER}")

    def text(self) -> str:
        return self.do("execute/sync", {"script": "return document.body.innerText", "args": []})

    def sees(self, *texts: str) -> None:
        """Wait until the page shows these texts."""
        for text in texts:
            self.wait(lambda text=text: text in self.text(), f"the page does not show '{text}'")

    def wait(self, look: Callable[[], object], fault: str) -> object:
        """Look again and again until there is an answer; fail with the fault and what the page shows."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                found = look()
            except RuntimeError as error:
                found, fault = None, f"{fault} ({error})" if str(error) not in fault else fault
            if found:
                return found
            if time.monotonic() > end:
                pytest.fail(f"{fault}. It shows:\n{self.text()[:3000]}")
            time.sleep(0.05)

    def settled(self) -> None:
        """Wait until the page's script has run to its end."""
        script = "const app = document.querySelector('[data-testid=stApp]'); return app && app.dataset.testScriptState"
        told = {"script": script, "args": []}
        self.wait(lambda: self.do("execute/sync", told) == "notRunning", "the page is still at work")

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", f"{self.session}/screenshot")))

    def downloaded(self, name: str) -> Path:
        path = self.downloads / name
        self.wait(path.is_file, f"{name} was not downloaded")
        return path

    def close(self) -> None:
        self._call("DELETE", self.session)


def need_chromium() -> None:
    """Skip where there is no Chromium; under CI that is a failure."""
    lacking = [part for part in PARTS if shutil.which(part) is None]
    if lacking:
        message = f"{' and '.join(lacking)} not found; Debian's packages chromium and chromium-driver have them"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@contextmanager
def chromium(downloads: Path) -> Iterator[Browser]:
    """Open a browser whose downloads go to a folder."""
    port = free_port()
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=quiet, stderr=quiet)
    try:
        answers(f"http://127.0.0.1:{port}/status", process)
        browser = Browser(f"http://127.0.0.1:{port}", downloads)
        try:
            yield browser
        finally:
            browser.close()
            browser.http.close()
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def running_app(*arguments: object) -> Iterator[str]:
    """Start `pertcast app` as a user does, and return its address once it answers."""
    port = free_port()
    words = [sys.executable, "-m", "pertcast", "app", "--port", str(port), *map(str, arguments)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        answers(f"http://127.0.0.1:{port}/_stcore/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str, process: subprocess.Popen, *, patience: float = 30.0) -> None:
    """Wait until an address answers; fail when its process has ended."""
    end = time.monotonic() + patience
    with requests.Session() as http:
        http.trust_env = False
        while time.monotonic() < end and process.poll() is None:
            try:
                if http.get(url, timeout=5).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.05)
    raise RuntimeError(f"{url} does not answer; its process {'runs' if process.poll() is None else 'has ended'}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
