"""How a match tells where it is, and how the wish to stop reaches it."""

from __future__ import annotations

import threading
from typing import Protocol

from tsdf_ray.errors import Stopped
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.scenario import Scenario


class Progress(Protocol):
    """What shows the state of a run. Calls come from several threads."""

    def begin(self, scenario: Scenario, finished_rounds: dict[str, int]) -> None: ...
    def phase(self, match: MatchSpec, round: int, phase: str) -> None: ...
    def note(self, text: str) -> None: ...
    def ask(self) -> None: ...
    def check(self) -> None: ...
    def end(self) -> None: ...


class StopFlag:
    """A wish to stop that every match looks at between its steps."""

    def __init__(self, message: str = "stopped as asked; finished rounds are saved, `tsdf-ray resume` goes on") -> None:
        self._asked = threading.Event()
        self._message = message

    def ask(self) -> None:
        """Ask all matches to stop at their next step."""
        self._asked.set()

    def check(self) -> None:
        """Raises Stopped when someone asked."""
        if self._asked.is_set():
            raise Stopped(self._message)


class Quiet(StopFlag):
    """Shows nothing; can be stopped."""

    def begin(self, scenario: Scenario, finished_rounds: dict[str, int]) -> None:
        """Nothing to show."""

    def phase(self, match: MatchSpec, round: int, phase: str) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        """Nothing to show."""

    def end(self) -> None:
        """Nothing to show."""
