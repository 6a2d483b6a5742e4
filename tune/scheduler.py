"""Stopping trials that do badly: Ray's ASHA on rounds, with what earlier processes saw of the same search."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from tsdf_ray.scenario import Scenario
from tsdf_ray.store.trials import Trial

RUNG = "rung"
"""Result key of what the scheduler compares; larger is better."""
ROUND = "round"
POINT = "point"
"""Key of a trial's config: is it a start point?"""
NUMBER = "trial"
"""Key of a trial's number in the config that Tune hands to the trainable."""


class ResumedAsha(AsyncHyperBandScheduler):  # type: ignore[misc]  # Ray has no types
    """Asynchronous successive halving whose rungs hold the rounds that are in the table already."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Start points are played to the end: the report compares with them. Their rounds count on the rungs."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP and trial.config[POINT] and result[ROUND] < self._max_t:
            self._num_stopped -= 1
            return str(TrialScheduler.CONTINUE)
        return decision

    def remember(self, trials: list[Trial], objective: str, sign: float) -> None:
        """Put the rounds of `trials` on the rungs."""
        for trial in trials:
            for report in trial.rounds:
                if objective in report.values:
                    known = SimpleNamespace(trial_id=_earlier(trial.number))
                    self._brackets[0].on_result(known, report.round, sign * report.values[objective])

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial that goes on takes its places on the rungs over: what was decided about it is not decided again."""
        super().on_trial_add(tune_controller, trial)
        before = _earlier(trial.config[NUMBER])
        for _, recorded in self._brackets[0]._rungs:
            if before in recorded:
                recorded[trial.trial_id] = recorded.pop(before)


def _earlier(number: int) -> str:
    return f"earlier {number}"


def make_scheduler(scenario: Scenario, trials: list[Trial]) -> TrialScheduler:
    """The scheduler of a scenario's search, knowing the rounds of `trials`."""
    search = scenario.search
    assert search is not None, "only a scenario with a search has a scheduler"
    if search.scheduler.kind == "none":
        return FIFOScheduler()
    asha = ResumedAsha(
        time_attr=ROUND,
        metric=RUNG,
        mode="max",
        max_t=scenario.rounds,
        grace_period=search.scheduler.grace,
        reduction_factor=search.scheduler.reduction,
    )
    asha.remember(trials, search.rung_objective, rung_sign(scenario))
    return asha


def rung_sign(scenario: Scenario) -> float:
    """1 where the objective on the rungs is maximised, -1 where it is minimised."""
    assert scenario.search is not None, "only a scenario with a search has rungs"
    objective = scenario.search.objectives[scenario.search.rung_objective]
    return 1.0 if objective.direction == "maximize" else -1.0
