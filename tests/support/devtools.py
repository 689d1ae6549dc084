"""A real browser that is driven: Chromium over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--remote-debugging-port=0",
)
_KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, ""), "ArrowRight": (39, ""), "ArrowLeft": (37, "")}


class Tab:
    """A page of the browser.

    Attributes:
        problems: errors and warnings of the console, and exceptions.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.problems: list[str] = []
        self._socket, self._number = socket, 0
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            self._note(message)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.wait("document.readyState == 'complete'")

    def run(self, script: str) -> Any:
        """Return the value of a script's expression; a promise is awaited."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait until an expression is true, across pages."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer = self.send("Runtime.evaluate", expression=f"Boolean({condition})", returnByValue=True)
            if answer.get("result", {}).get("value") is True:
                return
            time.sleep(0.05)
        raise AssertionError(f"not true within {seconds:g} s: {condition}; {self.problems}")

    def press(self, *keys: str) -> None:
        for key in keys:
            code, text = _KEYS.get(key, (0, key))
            event = {"key": key, "windowsVirtualKeyCode": code, "text": text}
            self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **event)
            self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def drag(self, selector: str, begin: float, end: float) -> None:
        """Drag the mouse over an element, from one share of its width to another."""
        self.run(f"document.querySelector({selector!r}).scrollIntoView()")
        left, top, width, height = self.run(
            f"(b => [b.x, b.y, b.width, b.height])(document.querySelector({selector!r}).getBoundingClientRect())"
        )
        for kind, share in (("mousePressed", begin), ("mouseMoved", end), ("mouseReleased", end)):
            self.send("Input.dispatchMouseEvent", type=kind, x=left + share * width, y=top + height / 2, button="left", clickCount=1)

    def screenshot(self, path: Path, width: int, height: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.wait("[...document.images].every(i => i.complete || i.loading == 'lazy')")
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(str(message["params"]["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if message["params"]["type"] in ("error", "warning"):
                self.problems.append(str(message["params"]["args"]))
            case "Log.entryAdded" if message["params"]["entry"]["level"] in ("error", "warning"):
                self.problems.append(str(message["params"]["entry"]))


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """Start headless Chromium with one tab; skip the test without it."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not on PATH: no browser to open the page with")
    with subprocess.Popen([program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = next(found[1] for line in process.stderr if (found := re.search(r"listening on ws://([\d.:]+)/", line)))
            with urllib.request.urlopen(f"http://{address}/json/list") as answer:
                (target,) = [each for each in json.load(answer) if each["type"] == "page"]
            with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
                yield Tab(socket)
        finally:
            process.terminate()
            process.stderr and process.stderr.close()
