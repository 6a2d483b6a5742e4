"""Where a search stands, on the driver: one live table on a terminal, one line per ended trial elsewhere."""

from __future__ import annotations

import math
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tsdf_ray.cli.progress import short
from tsdf_ray.game.search_control import SearchBoard
from tsdf_ray.scenario import Scenario

if TYPE_CHECKING:
    from tsdf_ray.store.trials import TrialsTable

STATES = ("complete", "running", "pruned", "failed")


class ShownSearch(SearchBoard):
    """Counts and time left of a search."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._guard = threading.Lock()
        self._table: TrialsTable | None = None
        self._trials = 0
        self._parallel = 1
        self._began = 0.0
        self._until: float | None = None
        self._standing: Callable[[], str] = str

    def begin_search(self, scenario: Scenario, table: TrialsTable, standing: Callable[[], str], parallel: int) -> None:
        """See `SearchBoard`."""
        assert scenario.search is not None, "only a scenario with a search is searched"
        with self._guard:
            self._table, self._standing, self._parallel = table, standing, parallel
            self._trials = scenario.search.trials
            self._began = self._clock()
            if scenario.search.seconds is not None:
                self._until = self._clock() + scenario.search.seconds

    def counts(self) -> dict[str, int]:
        """State -> trials."""
        table = self._table
        return {state: len(table.of(state)) if table else 0 for state in STATES}  # type: ignore[arg-type]

    def left(self) -> float | None:
        """Seconds until the last trial ends, by the mean of those that ended; None before any has."""
        if self._table is None:
            return None
        ended = self._table.of("complete", "pruned", "failed")
        # A trial of an earlier process may have lain between its rounds.
        took = [
            trial.seconds if trial.started < self._began else trial.ended - trial.started
            for trial in ended
            if trial.ended is not None
        ]
        if not took:
            return None
        turns = math.ceil((self._trials - len(ended)) / self._parallel)
        left = statistics.fmean(took) * turns
        return left if self._until is None else max(0.0, min(left, self._until - self._clock()))

    def standing(self) -> str:
        """Best so far, or the size of the front."""
        return self._standing()


class PlainSearch(ShownSearch):
    """One line of text whenever a trial ends: for logs and pipes."""

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self._out = out or sys.stderr
        self._said: set[int] = set()

    def begin_search(self, scenario: Scenario, table: TrialsTable, standing: Callable[[], str], parallel: int) -> None:
        """Trials that had ended before are not told again."""
        super().begin_search(scenario, table, standing, parallel)
        self._said = {trial.number for trial in table.of("complete", "pruned", "failed")}

    def changed(self) -> None:
        """Say what ended."""
        assert self._table is not None, "a search has begun"
        with self._guard:
            for trial in self._table.of("complete", "pruned", "failed"):
                if trial.number in self._said:
                    continue
                self._said.add(trial.number)
                why = f" ({trial.reason})" if trial.state == "failed" else ""
                ended = f"{len(self._said)}/{self._trials}"
                self._say(f"{ended} {trial.label}: {trial.state}{why}; {self.standing()}; left: {short(self.left())}")

    def note(self, text: str) -> None:
        """Say it."""
        self._say(text)

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class LiveSearch(ShownSearch):
    """A live table on a terminal."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self._console = console or Console(stderr=True)
        self._note = ""
        # Once a second: more would cost CPU time the trials need.
        self._live = Live(console=self._console, get_renderable=self.table, refresh_per_second=1, transient=True)

    def begin_search(self, scenario: Scenario, table: TrialsTable, standing: Callable[[], str], parallel: int) -> None:
        """Show the table."""
        super().begin_search(scenario, table, standing, parallel)
        self._live.start()

    def note(self, text: str) -> None:
        """Under the table until the next one."""
        self._note = text

    def table(self) -> Table:
        """The table as it is now."""
        counts = self.counts()
        table = Table.grid(padding=(0, 2))
        ended = sum(counts.values()) - counts["running"]
        states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        table.add_row(f"{ended} of {self._trials} trials ended", states, self.standing(), f"left {short(self.left())}")
        if self._note:
            table.add_row(self._note)
        return table

    def end(self) -> None:
        """Take the table down."""
        self._live.stop()


def make_search_progress() -> ShownSearch:
    """A live table when stderr is a terminal, else plain text."""
    console = Console(stderr=True)
    return LiveSearch(console) if console.is_terminal else PlainSearch()
