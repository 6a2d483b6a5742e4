"""Where a run stands, on the driver: live lines on a terminal, one line of text per round elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tsdf_ray.game.control import StopFlag
from tsdf_ray.game.spec import MatchSpec, all_matches
from tsdf_ray.scenario import Scenario

DONE, FAILED = "done", "failed"
DOING = {
    "learn": "defender learns",
    "publish": "photos are published",
    "study": "attacker studies them",
    "prepare": "attacker prepares",
    "before": "evaluation before",
    "retrain": "attacker retrains",
    "after": "evaluation after",
}


@dataclass
class Line:
    """One match."""

    rounds: int
    finished: int = 0
    round: int = 0
    phase: str = ""
    since: float | None = None
    """When the round in play began."""
    seconds: list[float] = field(default_factory=list)
    """How long the rounds played by this process took."""


class Board(StopFlag):
    """State of all matches and the time left. Thread-safe: matches report from threads of their own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._guard = threading.Lock()
        self.lines: dict[str, Line] = {}

    def begin(self, scenario: Scenario, finished_rounds: dict[str, int]) -> None:
        """All matches of the scenario, with the rounds that are on disk already."""
        with self._guard:
            for match in all_matches(scenario):
                finished = finished_rounds.get(match.id, 0)
                self.lines[match.id] = Line(scenario.rounds, finished, finished)

    def phase(self, match: MatchSpec, round: int, phase: str) -> None:
        """A match enters a phase of a round; `done`: the round is on disk; `failed`: the match has ended early."""
        with self._guard:
            line = self.lines[match.id]
            now = self._clock()
            if phase == DONE:
                if line.since is not None:
                    line.seconds.append(now - line.since)
                line.finished, line.since = round, None
            elif phase == FAILED:
                line.since = None
            elif line.since is None or round != line.round:
                line.since = now
            line.round, line.phase = round or line.round, phase
            self.changed(match.id, line)

    def changed(self, match: str, line: Line) -> None:
        """What a subclass shows at once; the lock is held."""

    def left(self, match: str) -> float | None:
        """Seconds until the match ends, from the mean round of this run so far; None before any round has ended."""
        line = self.lines[match]
        known = line.seconds or [s for other in self.lines.values() for s in other.seconds]
        if not known or line.phase == FAILED:
            return None
        spent = 0.0 if line.since is None else self._clock() - line.since
        mean = sum(known) / len(known)
        return max(0.0, mean * (line.rounds - line.finished) - min(spent, mean))

    def total_left(self) -> float | None:
        """Seconds until the run ends: what all matches need, shared by those that run now."""
        lefts = [self.left(match) for match in self.lines if self.lines[match].phase != FAILED]
        if not lefts or None in lefts:
            return None
        running = sum(line.since is not None for line in self.lines.values())
        return max(*(left or 0.0 for left in lefts), sum(left or 0.0 for left in lefts) / max(running, 1))

    def note(self, text: str) -> None:
        """Something else that people want to know."""

    def end(self) -> None:
        """Nothing to take down."""


class PlainProgress(Board):
    """One line of text whenever a round ends: for logs and pipes."""

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._out = out or sys.stderr

    def changed(self, match: str, line: Line) -> None:
        """Say what ended."""
        if line.phase == DONE:
            took = f"{line.seconds[-1]:.1f} s" if line.seconds else "done"
            print(
                f"{match}: round {line.round}/{line.rounds}: {took}, left: {short(self.left(match))}",
                file=self._out,
                flush=True,
            )
        elif line.phase == FAILED:
            print(f"{match}: failed in round {line.finished + 1}/{line.rounds}", file=self._out, flush=True)

    def note(self, text: str) -> None:
        """A line of its own."""
        print(text, file=self._out, flush=True)


class LiveProgress(Board):
    """Live lines on a terminal: one per running match, and one for the whole run."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._console = console or Console(stderr=True)
        # Twice a second: more would cost CPU time the matches need.
        self._live = Live(console=self._console, get_renderable=self.table, refresh_per_second=2, transient=True)

    def begin(self, scenario: Scenario, finished_rounds: dict[str, int]) -> None:
        """Show the lines."""
        super().begin(scenario, finished_rounds)
        self._live.start()

    def table(self) -> Table:
        """The lines as they are now."""
        with self._guard:
            table = Table.grid(padding=(0, 2))
            ended = 0
            for name, line in self.lines.items():
                if line.finished == line.rounds or line.phase == FAILED:
                    ended += 1
                elif line.since is not None:
                    doing = DOING.get(line.phase, line.phase)
                    table.add_row(name, f"round {line.round}/{line.rounds}", doing, f"left {short(self.left(name))}")
            table.add_row(f"{ended} of {len(self.lines)} matches ended", "", "", f"left {short(self.total_left())}")
            return table

    def note(self, text: str) -> None:
        """Above the live lines."""
        self._console.print(text, markup=False, highlight=False)

    def end(self) -> None:
        """Take the lines down."""
        self._live.stop()


def make_progress() -> Board:
    """Live lines when stderr is a terminal, else plain text."""
    console = Console(stderr=True)
    return LiveProgress(console) if console.is_terminal else PlainProgress()


def short(seconds: float | None) -> str:
    """A duration in two units at most: 45 s, 3 min 20 s, 2 h 05 min; unknown is `?`."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
