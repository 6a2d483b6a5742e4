"""Plays a small race in child processes and kills them: run by the chaos tests as a script of its own.

    python stage.py EXECUTOR FOLDER MOMENT [MOMENT ...]

Plays FOLDER/unbroken to its end, then for each moment a race that is killed with SIGKILL then, and resumed. A moment is
EVENTS+SECONDS: so long after so many lines of events.jsonl, which finds the same places on a fast and a slow machine.
Imports are made once here and forked: a trial costs a race, not a start. Prints one JSON line per trial.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import tsdf_ray.api as api
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.manifest import Manifest

CHANGES = ("faces.counts={defender: 8, attacker: 16, evaluation: 6}",
           "attackers.mtcnn.collect={photos: 8, pool: cumulative}",
           "attackers.mtcnn.retrain.train={steps: 4, batch: 4}")  # fmt: skip


def child(action: Callable[[], object]) -> int:
    """Run `action` in a forked process with a session of its own."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    try:
        action()
    except BaseException as error:  # noqa: BLE001 - a forked child must end here, whatever happened
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def count(path: Path) -> int:
    """Lines of a file, 0 when it is not there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main() -> None:
    """See the module."""
    executor, folder = sys.argv[1], Path(sys.argv[2])
    game = Scenario.load("smoke", CHANGES)

    def play(out: Path) -> int:
        return child(lambda: api.play(game, out, executor=executor, report=False))

    def code(pid: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    print(json.dumps({"trial": "unbroken", "code": code(play(folder / "unbroken"))}), flush=True)
    for i, (events, seconds) in enumerate(text.split("+") for text in sys.argv[3:]):
        out = folder / f"killed-{i}"
        pid = play(out)
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT  # look, without taking the exit code away
        while count(out / "events.jsonl") < int(events) and os.waitid(os.P_PID, pid, ended) is None:
            time.sleep(0.01)
        time.sleep(float(seconds))
        os.kill(pid, signal.SIGKILL)
        killed = code(pid)
        rounds = len(Manifest(out / "manifest.jsonl").entries) if out.exists() else 0
        # Before the folder exists there is nothing to resume: the user plays again.
        exists = (out / "run.json").exists()
        again = child(lambda out=out: api.resume(out, executor=executor, report=False)) if exists else play(out)
        print(json.dumps({"trial": out.name, "killed": killed, "rounds": rounds, "code": code(again)}), flush=True)


if __name__ == "__main__":
    main()
