"""Who writes a run: one holder at a time, known by a lease that it renews every few seconds.

A lease is a small text (a file, or an object in a bucket) that names the holder and changes with every beat. Whether a
holder on another machine lives is told by watching whether it changes, so clocks need not agree. Storage without locks
leaves a gap of a moment between looking and writing; a holder therefore looks again before every round it records
(`check`), and the one who finds another's name there stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tsdf_ray.errors import NotStored, TakenOver

BEAT = 5.0
"""Seconds between two signs of life."""
LEASE = 30.0
"""Seconds without a sign of life after which a holder counts as dead."""
SETTLE = 0.5
"""Seconds after which a new holder looks whether another one wrote at the same moment."""

Content = dict[str, Any]


class Lease:
    """Taken by `take`, renewed by a thread of its own until `release`."""

    def __init__(self, where: str, read: Callable[[], str | None], write: Callable[[str], None]) -> None:
        """`where`: the run, for messages. `read` gives None where there is no lease; both may raise OSError."""
        self._where = where
        self._read = read
        self._write = write
        self._mine: Content = identity()
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, locked: bool) -> str | None:
        """Become the holder. Says in words whom it was taken over from, None when it was free.

        `locked`: we hold a lock of the operating system, so no other process of this machine holds the lease. Raises
        TakenOver while another process holds it: at once when it lives here, after a beat when it lives elsewhere.
        """
        found = self._found()
        note = None
        elsewhere = not found or not same_machine(found)
        if found and not found.get("released"):
            gone = (True if locked else ended(found)) if same_machine(found) else None
            if "pid" not in found:  # a file of an earlier release, or half a line
                gone = True if locked else None
            if gone is False:
                raise self._held(found)
            if gone is None:
                self._watch(found)
            holder = f"process {found.get('pid', 'unknown')} on {found.get('host', 'unknown')}"
            note = f"taken over from {holder}, which {'is gone' if gone else 'gives no sign of life'}"
        self._write(_text(self._mine))
        if not locked or (found and elsewhere):
            time.sleep(SETTLE)
            self.check()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return note

    def _watch(self, found: Content) -> None:
        """Wait until the holder has not moved for as long as a lease lasts. Raises TakenOver as soon as it moves."""
        until = time.monotonic() + LEASE
        while time.monotonic() < until:
            time.sleep(min(1.0, BEAT / 4))
            now = self._found()
            if not now or now.get("released"):
                return
            if now != found:
                raise self._held(now)

    def check(self) -> None:
        """Raises TakenOver when another process has taken the lease over, because we gave no sign of life."""
        found = self._found()
        if found and found.get("token") != self._mine["token"]:
            raise self._held(found)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            # Storage that does not answer for a moment: the lease grows old, and the next beat tries again.
            with contextlib.suppress(OSError, NotStored), self._guard:
                found = self._found()
                if not found or found.get("token") != self._mine["token"]:
                    return  # `check` says so
                self._mine |= {"beat": self._mine["beat"] + 1, "time": time.time()}
                if not self._ended.is_set():
                    self._write(_text(self._mine))

    def release(self) -> None:
        """Give it back, if it is ours still."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError, NotStored), self._guard:
            found = self._found()
            if found and found.get("token") == self._mine["token"]:
                self._write(_text(self._mine | {"released": True}))

    def _found(self) -> Content:
        text = self._read()
        if not text or not text.strip("\0 \n"):
            return {}
        try:
            content = json.loads(text.rstrip("\0 \n"))
        except ValueError:
            content = None
        return content if isinstance(content, dict) else {"unknown": text}

    def held(self) -> TakenOver:
        """The error that says who has it now."""
        return self._held(self._found())

    def _held(self, holder: Content) -> TakenOver:
        if "pid" not in holder:
            return TakenOver(f"{self._where}: another process is writing this run; wait for it or stop it")
        there = "" if holder.get("host") == self._mine["host"] else f" on {holder.get('host')}"
        return TakenOver(
            f"{self._where}: another process (pid {holder['pid']}{there}) is writing this run; wait for it or stop it"
        )


def identity() -> Content:
    """This process, told apart from every other one, also from one that gets its number later."""
    return {
        "token": uuid.uuid4().hex,
        "pid": os.getpid(),
        "host": platform.node(),
        "boot": _boot(),
        "space": _pid_space(),
        "start": psutil.Process().create_time(),
        "beat": 0,
        "time": time.time(),
    }


def same_machine(holder: Content) -> bool:
    """Does the holder run, or did it run, on this machine since it was switched on?"""
    return (holder.get("host"), holder.get("boot")) == (platform.node(), _boot())


def ended(holder: Content) -> bool | None:
    """Has a process of this machine ended? None where it lives in another container, whose numbers say nothing."""
    if holder.get("space") != _pid_space():
        return None
    try:
        process = psutil.Process(int(holder["pid"]))
        other = abs(process.create_time() - float(holder["start"])) > 2
        return bool(other or process.status() == psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return True
    except psutil.AccessDenied:
        return False


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


def _pid_space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _text(content: Content) -> str:
    return json.dumps(content, sort_keys=True)
