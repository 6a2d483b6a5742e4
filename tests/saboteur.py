"""Something that strikes a role's process at a chosen moment of a match, and the match it strikes."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tsdf_ray.game.control import Quiet
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.scenario import Scenario

CHANGES = ("faces.counts={defender: 16, attacker: 16, evaluation: 8}",
           "defenders.tsdf.epochs=2",
           "attackers.mtcnn.collect={photos: 8, pool: cumulative}",
           "attackers.mtcnn.retrain.train={steps: 6, batch: 4}")  # fmt: skip
"""A real match of `smoke`, two rounds, a few seconds: long enough steps to be hit in the middle."""


def small_game(*changes: str) -> Scenario:
    """The match."""
    return Scenario.load("smoke", (*CHANGES, *changes))


def kill(pid: int) -> None:
    """As the kernel does it when memory runs out."""
    os.kill(pid, signal.SIGKILL)


@dataclass
class Blow:
    """One strike: against a worker of `role`, `seconds` after the match waits for `step` of `round`."""

    role: str
    step: str
    round: int
    seconds: float = 0.05
    rank: int = 0
    times: int = 1
    strike: Callable[[int], None] = kill
    match: str = ""
    """Of this match alone; empty: of any."""


class Saboteur(Quiet):
    """Shows nothing; strikes. `struck` are the pids it hit."""

    def __init__(self, run: Path, *blows: Blow) -> None:
        super().__init__()
        self._events, self._blows = run / "events.jsonl", list(blows)
        self._waited: dict[tuple[str, int, str], int] = {}
        self.struck: list[int] = []
        self.times: list[float] = []
        self.notes: list[str] = []

    def phase(self, match: MatchSpec, round: int, phase: str) -> None:
        """The second time a step is named, the match waits for it."""
        key = match.id, round, phase
        self._waited[key] = self._waited.get(key, 0) + 1
        for blow in self._blows:
            if (blow.match or match.id, blow.round, blow.step) == key and self._waited[key] == 2:
                threading.Thread(target=self._strike, args=(match.id, blow), daemon=True).start()

    def note(self, text: str) -> None:
        """Kept."""
        self.notes.append(text)

    def _strike(self, match: str, blow: Blow) -> None:
        for _ in range(blow.times):
            pid = self._new_pid(match, blow)
            time.sleep(blow.seconds)
            self.struck.append(pid)
            self.times.append(time.time())
            blow.strike(pid)

    def _new_pid(self, match: str, blow: Blow) -> int:
        """Of the worker as it was placed last, once that is one that was not struck yet."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            placed = [
                line["pid"]
                for line in events(self._events)
                if line.get("event") == "role placed"
                and (line["match"], line["role"], line["rank"]) == (match, blow.role, blow.rank)
            ]
            if placed and placed[-1] not in self.struck:
                return int(placed[-1])
            time.sleep(0.02)
        raise AssertionError(f"{blow} found nobody to strike")


def figures(saboteur: Saboteur, run: Path) -> list[tuple[float | None, float | None]]:
    """Seconds from each blow until it was noticed, and until a step issued again had ended."""
    lines = events(run / "events.jsonl")
    found = []
    for blow in saboteur.times:
        noticed = [line["time"] for line in lines if line.get("event") == "role built anew" and line["time"] > blow]
        back = [line["end"] for line in lines if line.get("attempt", 1) > 1 and line["end"] > blow]
        found.append((min(noticed) - blow if noticed else None, min(back) - blow if back else None))
    return found


def tell(case: str, saboteur: Saboteur, run: Path) -> None:
    """Print how long after each blow it was noticed, and when a step issued again had ended (`-s` shows it)."""
    for noticed, back in figures(saboteur, run):
        seconds = ["-" if time is None else f"{time:.1f} s" for time in (noticed, back)]
        print(f"{case}: noticed after {seconds[0]}, back after {seconds[1]}")


def events(path: Path) -> list[dict[str, Any]]:
    """Whole lines of events.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


def same_result(run: Path, unbroken: Path) -> None:
    """Assert that two runs have equal tables and digests."""
    for name in ("images", "metrics"):
        assert pq.read_table(run / f"tables/{name}.parquet").equals(pq.read_table(unbroken / f"tables/{name}.parquet"))
    assert digests(run) == digests(unbroken)


def digests(run: Path) -> list[tuple[str, int, dict[str, str]]]:
    """Of w, of what was published and of the generator, by match and round."""
    lines = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    return sorted((line["match"], line["round"], line["digests"]) for line in lines)
