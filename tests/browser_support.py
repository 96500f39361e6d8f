"""A headless Chromium over a pipe: the DevTools protocol with the standard library alone.

    with Browser.open(page, tmp_path) as tab:
        tab.run("document.title")

The network is off, and every request, console message and exception is kept.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--remote-debugging-pipe", "--window-size=1500,1000",
)  # fmt: skip


class Browser:
    """One tab."""

    def __init__(self, process: subprocess.Popen[bytes], write: int, read: int) -> None:
        self.process, self.write, self.read = process, write, read
        self.buffer, self.last, self.session = b"", 0, None
        self.events: list[dict[str, Any]] = []

    @classmethod
    @contextmanager
    def open(cls, page: Path, profile: Path, *, width=1500, height=1000, dark=False, wait=60.0):
        """Load a file and wait until its script says that it is ready."""
        to_read, to_write = os.pipe(), os.pipe()
        command = 'exec "$@" 3<&"$IN" 4>&"$OUT"'  # DevTools reads from 3 and writes to 4
        process = subprocess.Popen(
            ["bash", "-c", command, "bash", CHROMIUM, *_FLAGS, f"--user-data-dir={profile}",
             "about:blank"],
            pass_fds=(to_read[0], to_write[1]),
            env={**os.environ, "IN": str(to_read[0]), "OUT": str(to_write[1])},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read[0])
        os.close(to_write[1])
        tab = cls(process, to_read[1], to_write[0])
        try:
            targets = tab.call("Target.getTargets")["targetInfos"]
            target = next(t for t in targets if t["type"] == "page")
            tab.session = tab.call(
                "Target.attachToTarget", targetId=target["targetId"], flatten=True
            )["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log", "Security"):
                tab.call(f"{domain}.enable")
            tab.screen(width, height, dark=dark)
            tab.call("Page.navigate", url=page.resolve().as_uri())
            tab.until("document.documentElement?.dataset.ready === 'yes'", wait)
            yield tab
        finally:
            os.close(tab.write)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(tab.read)

    def screen(self, width: int, height: int = 1000, *, dark: bool = False) -> None:
        """The size of the window, as a phone has it where it is narrow."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = "dark" if dark else "light"
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol and its answer."""
        self.last += 1
        message: dict[str, Any] = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            got = self._next(60.0)
            if got.get("id") == self.last:
                assert "error" not in got, f"{method}: {got['error']}"
                return got["result"]
            self.events.append(got)

    def _next(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], max(0.0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            more = os.read(self.read, 1 << 20)
            assert more, "Chromium has gone"
            self.buffer += more
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited."""
        got = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def until(self, condition: str, seconds: float = 20.0) -> None:
        """Wait for a condition."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"never true: {condition}; {self.faults()}"
            assert not self.faults(), self.faults()
            time.sleep(0.05)

    def key(self, name: str, code: int) -> None:
        """Press a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name,
                windowsVirtualKeyCode=code, nativeVirtualKeyCode=code,
            )  # fmt: skip

    def picture(self, file: Path, *, clip: dict[str, float] | None = None) -> None:
        """The whole page, or a part of it, as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {
            "scale": 1,
            **(clip or {"x": 0, "y": 0, **{k: size[k] for k in ("width", "height")}}),
        }
        got = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(got["data"]))

    def requests(self) -> list[str]:
        """What was asked for, but for the page itself and data in it."""
        found = [
            e["params"]["request"]["url"] for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        ]  # fmt: skip
        return [url for url in found[1:] if not url.startswith("data:")]

    def faults(self) -> list[str]:
        """Exceptions, errors and warnings of the console, blocked loads."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            match event.get("method"):
                case "Runtime.exceptionThrown":
                    details = params["exceptionDetails"]
                    thrown = details.get("exception", {}).get("description", "")
                    found.append(f"{details['text']} {thrown}"[:600])
                case "Runtime.consoleAPICalled" if params["type"] in (
                    "error",
                    "warning",
                    "assert",
                ):
                    found.append(json.dumps(params["args"])[:600])
                case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                    found.append(params["entry"]["text"][:600])
                case "Page.javascriptDialogOpening":
                    found.append(f"a dialog: {params.get('message')}")
        return found
