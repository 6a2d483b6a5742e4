"""How a search tells where it is, and how the wish to stop reaches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tsdf_ray.game.control import Progress, Quiet, StopFlag
from tsdf_ray.scenario import Scenario

if TYPE_CHECKING:
    from tsdf_ray.store.trials import TrialsTable

STOPPED = "stopped as asked; finished trials and rounds are saved, `tsdf-ray resume` goes on"


class SearchProgress(Protocol):
    """What shows the state of a search. Calls come from several threads."""

    def begin_search(
        self, scenario: Scenario, table: TrialsTable, standing: Callable[[], str], parallel: int
    ) -> None: ...
    def changed(self) -> None: ...
    def note(self, text: str) -> None: ...
    def matches(self) -> Progress: ...
    def ask(self) -> None: ...
    def check(self) -> None: ...
    def end(self) -> None: ...


class SearchBoard(StopFlag):
    """Shows nothing, can be stopped; others show what it holds. Thread-safe."""

    def __init__(self) -> None:
        super().__init__(STOPPED)

    def begin_search(self, scenario: Scenario, table: TrialsTable, standing: Callable[[], str], parallel: int) -> None:
        """A search begins, or goes on; `standing` says in a few words what is best, `parallel` trials play at once."""

    def changed(self) -> None:
        """The table has changed."""

    def note(self, text: str) -> None:
        """Something else that people want to know."""

    def matches(self) -> Progress:
        """What the matches of baselines and replay tell where they are; it stops with the search."""
        return _Linked(self)

    def end(self) -> None:
        """Nothing to take down."""


class _Linked(Quiet):
    """Stops when the search is asked to."""

    def __init__(self, board: SearchBoard) -> None:
        super().__init__()
        self._board = board

    def check(self) -> None:
        super().check()
        self._board.check()

    def note(self, text: str) -> None:
        self._board.note(text)
