"""Drives headless Chromium over its debugging pipe, with the standard library alone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path

PATIENCE = 60
"""Seconds that the browser may be silent."""

KEYS = {"Tab": 9, "Enter": 13, "Escape": 27}


def find() -> str | None:
    """Chromium or Chrome on this machine."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell")
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """One page. `messages`: errors and warnings of its console; `requests`: every address that it asked for."""

    def __init__(self, program: str, profile: Path):
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        high = [
            fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)
        ]  # clear of 3 and 4, which the browser reads and writes
        quiet = os.open(os.devnull, os.O_RDWR)
        command = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile}",
        ]  # fmt: skip
        ends = [(high[0], 3), (high[1], 4), (quiet, 1), (quiet, 2)]
        self.process = os.posix_spawn(
            program, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, *pair) for pair in ends]
        )
        for end in (theirs_in, theirs_out, *high, quiet):
            os.close(end)
        self.into, self.out = ours_out, ours_in
        self.waiting, self.number, self.session = b"", 0, None
        self.messages: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters) -> dict:
        """One command and its answer. Raises RuntimeError with the browser's words."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters} | (
            {"sessionId": self.session} if self.session else {}
        )
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.into, data) :]
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(answer["error"]["message"])
                return answer["result"]
            self.note(answer)

    def read(self) -> dict:
        while b"\0" not in self.waiting:
            ready, _, _ = select.select([self.out], [], [], PATIENCE)
            data = os.read(self.out, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError(
                    "the browser ended" if ready else f"the browser has been silent for {PATIENCE} seconds"
                )
            self.waiting += data
        message, self.waiting = self.waiting.split(b"\0", 1)
        return json.loads(message)

    def note(self, event: dict) -> None:
        told = event.get("params", {})
        match event.get("method"):
            case "Log.entryAdded":
                self.messages.append(told["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.messages.append(str(told["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.messages.append(str(told["args"]))
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])

    def open(self, path: Path, width: int, *, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.until("document.readyState === 'complete' && location.protocol === 'file:'")

    def run(self, expression: str):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = PATIENCE) -> None:
        end = time.monotonic() + seconds
        while not self.run(expression):
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=KEYS[key],
                **(text if kind == "keyDown" else {}),
            )

    def write(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def close(self) -> None:
        self.session = None
        with contextlib.suppress(RuntimeError, OSError):
            self.call("Browser.close")
        os.close(self.into)
        os.close(self.out)
        end = time.monotonic() + PATIENCE
        while os.waitpid(self.process, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                os.kill(self.process, signal.SIGKILL)
            time.sleep(0.05)
