"""The run directory: created once, locked by one process, with the few files that say what the run is."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from tsdf_ray.errors import UserError
from tsdf_ray.game.executor import StepEvent
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.atomic import write_json, write_text

PACKAGES = ("tsdf-ray", "torch", "ray", "numpy", "pyarrow", "pydantic", "kornia")


class RunDirectory:
    """An open run, held by this process until `close`."""

    def __init__(self, root: Path, lock: TextIO) -> None:
        self.root = root
        self._lock = lock
        self._guard = threading.Lock()
        self._events = (root / "events.jsonl").open("a", encoding="utf-8")

    @staticmethod
    def create(root: Path, scenario: Scenario, kind: str = "race") -> RunDirectory:
        """A new run; `kind`: race or search. Raises UserError when `root` is a run already, is not empty, or cannot be
        written."""
        check_new(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
            lock = take_lock(root)
            write_text(root / "scenario.yaml", scenario.as_yaml())
            run = RunDirectory(root, lock)
        except OSError as error:
            raise UserError(f"{root}: cannot be written ({error.strerror}); choose another --out") from error
        run.update(
            schema=1,
            kind=kind,
            scenario=scenario.name,
            digest=scenario.digest,
            content=json.loads(scenario.as_json()),
            seeds=list(scenario.seeds),
            status="running",
            started=time.time(),
            seconds=0.0,
            versions={name: version(name) for name in PACKAGES},
            machine=machine(),
            failed={},
            skipped=[],
        )
        return run

    @staticmethod
    def open(root: Path) -> tuple[RunDirectory, Scenario]:
        """Take up an existing run. Raises UserError when `root` is none, is held by another process, or was changed."""
        info = read_info(root)
        lock = take_lock(root)
        try:
            scenario = Scenario.load(root / "scenario.yaml")
        except UserError:
            lock.close()
            raise
        if scenario.digest != info.get("digest"):
            lock.close()
            changed = "; ".join(_differences(info.get("content"), json.loads(scenario.as_json())))
            raise UserError(
                f"{root / 'scenario.yaml'}: was changed since the run began ({changed}); play it into a new folder"
            )
        return RunDirectory(root, lock), scenario

    def info(self) -> dict[str, Any]:
        """What run.json says."""
        return read_info(self.root) if (self.root / "run.json").exists() else {}

    def update(self, **changes: Any) -> None:
        """Change keys of run.json."""
        with self._guard:
            write_json(self.root / "run.json", self.info() | changes)

    def event(self, event: StepEvent) -> None:
        """Append one line to events.jsonl; may be called from any thread."""
        self.log(asdict(event))

    def log(self, line: Mapping[str, Any]) -> None:
        """Append any JSON object to events.jsonl."""
        with self._guard:
            self._events.write(json.dumps(line, sort_keys=True) + "\n")
            self._events.flush()

    def note(self, kind: str, text: str, **more: Any) -> None:
        """Append what people want to know, with the time; see `Journal` (game/executor.py)."""
        self.log({"event": kind, "text": text, "time": time.time(), **more})

    def close(self) -> None:
        """Give the lock back."""
        self._events.close()
        self._lock.close()


def read_info(root: Path) -> dict[str, Any]:
    """run.json of a run directory. Raises UserError when `root` is not one."""
    try:
        info: dict[str, Any] = json.loads((root / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{root}: is not a run directory (no run.json); give the folder that `play --out` made"
        ) from error
    except ValueError as error:
        raise UserError(f"{root / 'run.json'}: is damaged ({error}); restore it from a copy") from error
    return info


def _differences(before: Any, after: Any, key: str = "") -> Iterator[str]:
    """`key: old -> new` of everything that differs; keys are dotted."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in {**before, **after}:
            yield from _differences(before.get(name), after.get(name), f"{key}.{name}" if key else name)
    elif before != after:
        yield f"{key}: {json.dumps(before)} -> {json.dumps(after)}"


def check_new(root: Path) -> None:
    """Raises UserError unless a new run can be made at `root`; writes nothing."""
    if (root / "run.json").exists():
        raise UserError(f"{root}: is a run already; go on with `tsdf-ray resume {root}`, or choose another --out")
    if root.exists() and not root.is_dir():
        raise UserError(f"{root}: is a file; choose another --out")
    if root.is_dir() and any(root.iterdir()):
        raise UserError(f"{root}: is not empty; choose another --out")
    parent = root
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        raise UserError(f"{root}: cannot be written (no permission on {parent}); choose another --out")


def machine() -> dict[str, Any]:
    """What the run was played on, for the report; no host name."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }


def take_lock(root: Path) -> TextIO:
    """Hold `root` until the file returned is closed. Raises UserError while another process holds it."""
    # The kernel drops the lock with its holder, so a lock file left by a killed process is no obstacle.
    lock = (root / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise UserError(
            f"{root}: another process (pid {holder}) is writing this run; wait for it or stop it"
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
