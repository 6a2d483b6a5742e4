"""What Ray Tune asks for settings and tells of results: a thin skin over the trials table and the study beside it.

The table is written first, then Optuna is told. Whatever is asked twice is answered once.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

from ray.tune.search import Searcher

from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search_trials import resolve_point
from tsdf_ray.store.trials import State, TrialsTable
from tune.outcome import Outcome
from tune.scheduler import NUMBER, POINT
from tune.study import Study


class Watcher(Protocol):
    """Wants to know when the table has changed."""

    def changed(self) -> None: ...


class TableSearcher(Searcher):  # type: ignore[misc]  # Ray has no types
    """Unfinished trials of the table first, then the start points, then what the sampler says, up to `trials`."""

    def __init__(self, scenario: Scenario, table: TrialsTable, study: Study, watcher: Watcher) -> None:
        super().__init__()
        assert scenario.search is not None, "only a scenario with a search can be searched"
        self._search = scenario.search
        self._rounds = scenario.rounds
        self._table = table
        self._study = study
        self._watcher = watcher
        self._unfinished = [trial.number for trial in table.of("running")]
        self._numbers: dict[str, int] = {}
        self._guard = threading.RLock()

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Everything is in the scenario; Tune has nothing to add."""
        return not config

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The config of one more trial, or FINISHED."""
        with self._guard:
            if self._unfinished:
                trial = self._table.trials[self._unfinished.pop(0)]
            elif len(self._table.trials) < self._search.trials:
                number = len(self._table.trials)
                points = list(self._search.start.points.items())
                point, values = points[number] if number < len(points) else (None, {})
                params, notes = self._study.ask(number, resolve_point(self._search, values))
                trial = self._table.asked(params, point, notes)
            else:
                return str(Searcher.FINISHED)
            self._numbers[trial_id] = trial.number
            self._watcher.changed()
            known = {"params": trial.params, "reported": len(trial.rounds)}
            return {NUMBER: trial.number, POINT: trial.point is not None, **known}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A round of a trial that goes on."""
        with self._guard:
            self._take(self._numbers[trial_id], Outcome.of(result))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial: played to the end, stopped by the scheduler, failed, or its process died too often."""
        with self._guard:
            number = self._numbers[trial_id]
            if error or result is None:
                reason = "its process died again and again; see its folder" if error else "it was never started"
                self._end(number, "failed", reason)
                return
            outcome = Outcome.of(result)
            self._take(number, outcome)
            if outcome.failed is not None:
                self._end(number, "failed", outcome.failed)
            elif self._table.trials[number].rounds and len(self._table.trials[number].rounds) == self._rounds:
                self._end(number, "complete", None)
            else:
                self._end(number, "pruned", f"stopped by {self._search.scheduler.kind} after round {outcome.round}")

    def _take(self, number: int, outcome: Outcome) -> None:
        if outcome.report is not None and self._table.reported(number, outcome.report):
            self._study.report(number, outcome.report)
            self._watcher.changed()

    def _end(self, number: int, state: State, reason: str | None) -> None:
        if self._table.ended(number, state, reason):
            self._study.tell(number, state, self._table.trials[number].last)
            self._watcher.changed()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its tuner for a restore that never comes."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the table is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on from the table."""
