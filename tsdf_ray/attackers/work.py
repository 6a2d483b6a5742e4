"""What a step of the attacker did to how many photos, and what it cost: for the event log.

Seconds differ from run to run, so they stand in no table and no digest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """One piece of work."""

    what: str
    """For example `detect mtcnn`, `purify.train jpeg`, `retrain`."""
    photos: int
    """Photos that went through; in a training counted as often as they were seen."""
    seconds: float


class Worklog:
    """Collects pieces of work as they are done."""

    def __init__(self) -> None:
        self._done: list[Work] = []

    def timed(self, what: str, photos: int, do: Callable[[], T]) -> T:
        """The result of `do`, noted with the seconds it took."""
        start = time.monotonic()
        result = do()
        self._done.append(Work(what, photos, time.monotonic() - start))
        return result

    @property
    def done(self) -> tuple[Work, ...]:
        """All pieces so far, in order."""
        return tuple(self._done)
