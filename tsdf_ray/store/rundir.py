"""The run directory: created once, locked by one process, with the few files that say what the run is."""

from __future__ import annotations

import json
import os
import platform
import shlex
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tsdf_ray.errors import UserError
from tsdf_ray.game.executor import StepEvent
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.atomic import append, write_json, write_text
from tsdf_ray.store.copy import Copy
from tsdf_ray.store.lock import RunLock, take_lock
from tsdf_ray.store.manifest import Entry

TAIL_BYTES = 1 << 16
"""Of events.jsonl, read at a time to find the end of its last whole line."""
PACKAGES = ("tsdf-ray", "torch", "ray", "numpy", "pyarrow", "pydantic", "kornia")


class RunDirectory:
    """An open run, held by this process until `close`."""

    def __init__(self, root: Path, lock: RunLock, copy: Copy | None = None) -> None:
        self.root = root
        self.place = str(root if copy is None else copy.mirror)
        """What `resume` is given."""
        self.notes: list[str] = [note for note in (lock.note, *(copy.notes if copy else ())) if note]
        """What happened when it was taken up, in words."""
        self._lock = lock
        self._copy = copy
        self._guard = threading.Lock()
        self._events = root / "events.jsonl"
        _end_line(self._events)
        for note in self.notes:
            self.log({"event": "taken up", "note": note, "time": time.time()})

    @staticmethod
    def create(root: Path, scenario: Scenario, kind: str = "race", copy: Copy | None = None) -> RunDirectory:
        """A new run; `kind`: race or search; `copy`, held, is where it goes as well. Raises UserError when `root` is a
        run already, is not empty, or cannot be written."""
        check_new(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
            lock = take_lock(root)
        except OSError as error:
            raise UserError(f"{root}: cannot be written ({error.strerror}); choose another --out") from error
        try:
            write_text(root / "scenario.yaml", scenario.as_yaml())
            if copy is not None:
                copy.put(["scenario.yaml"])
            run = RunDirectory(root, lock, copy)
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
        except OSError as error:
            lock.close()
            raise UserError(f"{root}: cannot be written ({error.strerror}); choose another --out") from error
        except UserError:
            lock.close()
            raise
        return run

    @staticmethod
    def open(root: Path, copy: Copy | None = None) -> tuple[RunDirectory, Scenario]:
        """Take up an existing run. Raises UserError when `root` is none, is held by another process, was changed, or
        cannot be written."""
        info = read_info(root)
        try:
            lock = take_lock(root)
        except OSError as error:
            raise UserError(f"{root}: cannot be written ({error.strerror}); give yourself the right to") from error
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
        if info.get("kind") != "search":  # a search's trials are held by other processes
            _sweep(root)
        return RunDirectory(root, lock, copy), scenario

    def info(self) -> dict[str, Any]:
        """What run.json says."""
        return read_info(self.root) if (self.root / "run.json").exists() else {}

    def update(self, **changes: Any) -> None:
        """Change keys of run.json. Raises as `recorded`."""
        with self._guard:
            write_json(self.root / "run.json", self.info() | changes)
            if self._copy is not None:
                self._copy.check()
                self._copy.put(["run.json"])

    def event(self, event: StepEvent) -> None:
        """Append one line to events.jsonl; may be called from any thread."""
        self.log(asdict(event))

    def log(self, line: Mapping[str, Any]) -> None:
        """Append any JSON object to events.jsonl."""
        with self._guard:
            append(self._events, json.dumps(line, sort_keys=True) + "\n", sync=False)

    def check(self) -> None:
        """Raises TakenOver when another process took the run over while this one gave no sign of life."""
        self._lock.check()

    def recorded(self, entry: Entry) -> None:
        """A round is on disk: copy it, where there is a copy. Raises NotStored and TakenOver."""
        if self._copy is not None:
            self._copy.put_round(entry)

    def finished(self) -> None:
        """Tables, summary and report are on disk: copy them, where there is a copy. Raises NotStored."""
        if self._copy is not None:
            self._copy.finish()

    def note(self, kind: str, text: str, **more: Any) -> None:
        """Append what people want to know, with the time; see `Journal` (game/executor.py)."""
        self.log({"event": kind, "text": text, "time": time.time(), **more})

    def close(self) -> None:
        """Give the lock back."""
        self._lock.close()
        if self._copy is not None:
            self._copy.close()


def _end_line(path: Path) -> None:
    """Cut off half a line that a killed process left: the next one would be spoilt with it."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:  # from behind: thousands of matches make a large file
            start = max(0, end - TAIL_BYTES)
            file.seek(start)
            end = start + file.read(end - start).rfind(b"\n") + 1
            if end > start:
                break
        if end < size:
            file.truncate(end)


def _sweep(root: Path) -> None:
    """Remove files a killed process was writing. Only for the process that holds the run's lock."""
    for path in root.rglob(".*.part"):
        path.unlink(missing_ok=True)


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
        again = f"`tsdf-ray resume {shlex.quote(str(root))}`"
        raise UserError(f"{root}: is a run already; go on with {again}, or choose another --out")
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
