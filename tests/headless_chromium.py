"""Drive headless Chromium over its DevTools pipe: no extra package, no open port."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 120.0
"""Seconds to wait for an answer: the machine may be busy."""

SETTLE = """(async () => {
  document.querySelectorAll('details').forEach(d => d.open = true);
  await Promise.all([...document.images].map(i => i.decode().catch(() => null)));
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  const root = document.scrollingElement;
  return JSON.stringify({inner: innerWidth, scroll: root.scrollWidth,
    broken: [...document.images].filter(i => !i.naturalWidth).length, images: document.images.length,
    text: document.body.innerText});
})()"""


@dataclass
class Seen:
    """What happened while a page was open."""

    inner_width: int
    scroll_width: int
    images: int
    broken_images: int
    text: str
    errors: list[str] = field(default_factory=list)
    """Console errors and warnings, exceptions, blocked content, dialogs."""
    requests: list[str] = field(default_factory=list)
    """Addresses asked for besides the page itself and data: URIs."""


class Chromium:
    """A running browser with one page."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="chromium-")
        ours_in, theirs_out = (_high(fd) for fd in os.pipe())
        theirs_in, ours_out = (_high(fd) for fd in os.pipe())
        # Chromium reads commands from descriptor 3 and answers on 4.
        redirect = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", redirect, "chromium", program, *FLAGS, f"--user-data-dir={self._folder}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_in, ours_out
        self._buffer = b""
        self._number = 0
        self._events: list[dict[str, Any]] = []
        self._session = ""

    def __enter__(self) -> Chromium:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._folder, ignore_errors=True)

    def look(self, url: str, width: int, *, dark: bool = False) -> Seen:
        """Open `url` at `width` CSS pixels with all details open, and say what happened."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 700
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self.call("Page.navigate", url=url)
        self._wait_for("Page.loadEventFired")
        answer = self.call("Runtime.evaluate", expression=SETTLE, awaitPromise=True, returnByValue=True)
        found = json.loads(answer["result"]["value"])
        seen = Seen(found["inner"], found["scroll"], found["images"], found["broken"], found["text"])
        for event in self._events:
            self._note(seen, event["method"], event["params"], url)
        return seen

    @staticmethod
    def _note(seen: Seen, method: str, params: dict[str, Any], url: str) -> None:
        if method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            seen.errors.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            seen.errors.append(params["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            seen.errors.append(str(params["exceptionDetails"]))
        elif method == "Page.javascriptDialogOpening":
            seen.errors.append("dialog: " + params["message"])
        elif method == "Network.requestWillBeSent":
            address = params["request"]["url"]
            if address != url and not address.startswith("data:"):
                seen.requests.append(address)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One DevTools command, and its result."""
        number = self._number = self._number + 1
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _wait_for(self, method: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not any(event["method"] == method for event in self._events):
            self._receive(deadline)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._in, 1 << 20) if ready else b""
            if not chunk:
                state = "said nothing in time" if self._process.poll() is None else "ended"
                raise RuntimeError(f"chromium {state}")
            self._buffer += chunk
        raw, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(raw)
        if "method" in message:
            self._events.append(message)
            if message["method"] == "Page.javascriptDialogOpening":
                # Left open, a dialog would stop the page for ever. The answer to this is skipped like any other.
                self._number += 1
                accept = {"id": self._number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                os.write(self._out, json.dumps(accept | {"sessionId": self._session}).encode() + b"\0")
        return message


def _high(fd: int) -> int:
    """The same pipe end under a number above those the browser expects."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(fd)
    return moved
