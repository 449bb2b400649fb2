"""Chromium without a window, told what to do over its debugging protocol, a static server, and a package."""

from __future__ import annotations

import base64
import functools
import itertools
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from detrex.export.web import RUNTIME_VERSION

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a static server of the folder, on this machine alone."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


class Tab:
    """A page that is open.

    Attributes:
        requested: addresses that the page has asked for.
        complaints: texts of errors that the browser logged.
    """

    def __init__(self, address: str):
        import websocket

        self._socket = websocket.create_connection(address, timeout=120, suppress_origin=True)
        self._ids = itertools.count(1)
        self.requested: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The browser's answer to a command of its protocol."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self._socket.recv())).get("id") != number:
            self._note(message.get("method"), message.get("params", {}))
        assert "error" not in message, message["error"]
        return message["result"]

    def evaluate(self, code: str) -> Any:
        """The value of an expression of JavaScript in the page, waited for where it is a promise."""
        answer = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, path: Path, width: int, height: int, scheme: str) -> Path:
        """Saves how the page looks in a window of a size in pixels, ``light`` or ``dark``."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def close(self) -> None:
        self._socket.close()

    def _note(self, method: str | None, parameters: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requested.append(parameters["request"]["url"])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(parameters["exceptionDetails"]["text"])


@contextmanager
def opened(address: str, folder: Path) -> Iterator[Tab]:
    """A page in a browser of its own, whose profile is in ``folder``."""
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # there is no network
    flags += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    environment = {**os.environ, "HOME": str(folder)}
    browser = subprocess.Popen(
        [CHROMIUM, *flags, f"--user-data-dir={folder}", "about:blank"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        tab = Tab(_debugger(folder / "DevToolsActivePort"))
        tab.call("Page.navigate", url=address)
        yield tab
        tab.close()
    finally:
        browser.terminate()
        browser.wait(30)


def _debugger(file: Path) -> str:
    """Where the browser's first tab listens, which it writes into a file when it has started."""
    for _ in range(300):
        if file.exists() and "\n" in (text := file.read_text()):
            with urllib.request.urlopen(f"http://127.0.0.1:{text.split()[0]}/json/list") as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            if pages:
                return pages[0]["webSocketDebuggerUrl"]
        time.sleep(0.1)
    raise TimeoutError(f"{CHROMIUM} did not start")


def package(folder: Path, name: str = "onnxruntime-web", version: str = RUNTIME_VERSION) -> Path:
    """A package of npm with the files that a page needs, and one that it does not."""
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": name, "version": version}))
    for file in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm", "ort.js"):
        (folder / "dist" / file).write_text(f"content of {file}")
    return folder
