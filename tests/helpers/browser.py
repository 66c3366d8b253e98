"""A headless Chromium, driven through a pipe by the DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from typing import Any, Final

from tests.helpers.waiting import wait_until

_OPTIONS: Final = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --disable-dev-shm-usage --hide-scrollbars "
    "--force-color-profile=srgb --remote-debugging-pipe"
)
_PATIENCE: Final = 20.0


def find() -> str | None:
    """Return the path of a Chromium, None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class PageError(AssertionError):
    """A script has failed in the page."""


class Browser:
    """One browser with one page. What the page says on its console as an error is in ``errors``."""

    def __init__(self, path: str, width: int = 1360, height: int = 820) -> None:
        self._folder = tempfile.mkdtemp(prefix="rlk-browser-")
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        command = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        size = f"--window-size={width},{height}"
        self.process = subprocess.Popen(
            [
                "bash",
                "-c",
                command,
                "chromium",
                path,
                *_OPTIONS.split(),
                size,
                f"--user-data-dir={self._folder}",
            ],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_in, ours_out
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        """Addresses that the page has asked for."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    # -- the protocol ---------------------------------------------------------------------------

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _PATIENCE
        while (answer := self._receive(deadline)).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']}")
        return answer["result"]

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                raise PageError("the browser does not answer")
            part = os.read(self._in, 1 << 20)
            if not part:
                raise PageError("the browser has ended")
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found

    def _note(self, event: Mapping[str, Any]) -> None:
        content = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = content["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif event.get("method") == "Log.entryAdded" and content["entry"]["level"] == "error":
            self.errors.append(content["entry"]["text"])
        elif event.get("method") == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])

    # -- the page -------------------------------------------------------------------------------

    def open(self, address: str) -> None:
        """Go to ``address``."""
        self._call("Page.navigate", url=address)
        wait_until(lambda: self.run("document.readyState") == "complete", what="the page is loaded")

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page; promises are waited for."""
        answer = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if details := answer.get("exceptionDetails"):
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def wait(self, script: str, what: str = "") -> Any:
        """Wait until an expression is true in the page."""
        return wait_until(lambda: self.run(script), what=what or script)

    def press(self, *keys: str) -> None:
        """Press keys, as ``KeyboardEvent.key`` calls them, wherever the focus is."""
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            code = {"Escape": 27, "Enter": 13}.get(key, 0)
            for kind in ("keyDown", "keyUp"):
                options: dict[str, Any] = {"text": text} if text and kind == "keyDown" else {}
                options |= {"windowsVirtualKeyCode": code} if code else {}
                self._call("Input.dispatchKeyEvent", type=kind, key=key, **options)

    def type(self, text: str) -> None:
        """Put text in where the focus is."""
        self._call("Input.insertText", text=text)

    def resize(self, width: int, height: int) -> None:
        """Make the window of another size."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, scheme: str) -> None:
        """Have the system prefer ``dark`` or ``light``."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: str) -> None:
        """Write a PNG of what is to be seen."""
        data = self._call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def close(self) -> None:
        """End it, and whatever it has started."""
        with contextlib.suppress(OSError, PageError):
            self._session = None
            self._call("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._folder, ignore_errors=True)
