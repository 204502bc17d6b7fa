"""Chromium without a window, for tests of pages: driven by its own debugging protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-headless-shell")


class Page:
    """A tab; what it asked of the network and what it logged as an error are kept."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.requests: list[str] = []
        self.errors: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message))
        while True:
            answer: dict[str, Any] = json.loads(self._connection.recv(60))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._keep(answer)

    def _keep(self, event: dict[str, Any]) -> None:
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.errors.append(str(event["params"]["exceptionDetails"]))

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """Return what a JavaScript expression is, or its promise gives."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self) -> str:
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def until(self, condition: str, seconds: float = 60) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(condition):
            assert time.monotonic() < deadline, f"never {condition}: {self.text()}; {self.errors}"
            time.sleep(0.2)

    def until_text(self, words: str) -> str:
        """Wait until the page shows these words; return all that it shows."""
        self.until(f"document.body && document.body.innerText.includes({json.dumps(words)})")
        return self.text()

    def type_into(self, selector: str, text: str) -> None:
        """Type into an input as a person does."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def use_color_scheme(self, scheme: str) -> None:
        """Prefer "light" or "dark"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def use_width(self, width: int, height: int = 800) -> None:
        """Show the page as wide and as high as this, whatever the window is."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def chromium(folder: Path, width: int = 1280, height: int = 800) -> Iterator[Page]:
    """Run Chromium with a profile of its own and give its only tab."""
    assert CHROMIUM
    profile = folder / "chromium"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-dev-shm-usage", "--hide-scrollbars"]
    options += ["--remote-debugging-port=0", f"--user-data-dir={profile}"]
    options += [f"--window-size={width},{height}", "about:blank"]
    browser = subprocess.Popen(
        [CHROMIUM, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with connect(_address(profile, browser), max_size=None) as connection:
            page = Page(connection)
            for domain in ("Page", "Runtime", "Network"):
                page.call(f"{domain}.enable")
            yield page
    finally:
        browser.terminate()
        browser.wait(30)


def _address(profile: Path, browser: subprocess.Popen[bytes]) -> str:
    """Return the WebSocket of the tab, as soon as there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and browser.poll() is None:
        try:
            port = (profile / "DevToolsActivePort").read_text().split()[0]
            tabs = httpx.get(f"http://127.0.0.1:{port}/json/list").json()
            return next(str(t["webSocketDebuggerUrl"]) for t in tabs if t["type"] == "page")
        except (FileNotFoundError, IndexError, httpx.HTTPError, StopIteration):
            time.sleep(0.1)
    raise AssertionError("Chromium did not start")
