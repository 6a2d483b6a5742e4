"""ASHA that remembers: it decides as one that was never interrupted, here computed in the plainest way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from tiny_search import TWO, content, report, search_of, section

from tsdf_ray.scenario import Scenario
from tsdf_ray.store.trials import Trial, TrialsTable
from tune.scheduler import NUMBER, POINT, ROUND, RUNG, ResumedAsha, make_scheduler, rung_sign


def racing(rounds: int = 9, direction: str = "maximize", **scheduler: Any) -> Scenario:
    objectives = {"protection": {"metric": "protection", "direction": direction}}
    faces = {"source": "sample", "size": 64, "counts": {"defender": 8, "attacker": 90, "evaluation": 6}}
    search = section(objectives=objectives, scheduler={"kind": "asha", **scheduler}, trials=50)
    return Scenario.model_validate(content(rounds=rounds, faces=faces, search=search))


@dataclass
class Halving:
    """Asynchronous successive halving: on each rung a trial stops that is not among the best 1 / reduction so far."""

    rounds: int
    grace: int
    reduction: float
    sign: float
    rungs: dict[int, list[float]] = field(default_factory=dict)
    reached: dict[int, int] = field(default_factory=dict)
    """Trial -> the highest rung it is on."""

    def stops(self, trial: int, round: int, value: float) -> bool:
        if round >= self.rounds:
            return True
        k = math.floor(math.log(round / self.grace) / math.log(self.reduction) + 1e-9) if round >= self.grace else -1
        if k < 0 or self.reached.get(trial, -1) >= k:
            return False
        self.reached[trial] = k
        others = sorted(self.rungs.setdefault(k, []))
        good = self.sign * value
        self.rungs[k].append(good)
        if not others:
            return False
        place = (1 - 1 / self.reduction) * (len(others) - 1)
        low, share = others[math.floor(place)], place - math.floor(place)
        return good < low + share * (others[math.ceil(place)] - low)


class Driver:
    """Tune's calls of a scheduler, for trials known by number."""

    def __init__(self, scenario: Scenario, trials: list[Trial], attempt: int, points: tuple[int, ...] = ()) -> None:
        self.scenario, self.attempt, self.points = scenario, attempt, points
        self.scheduler = make_scheduler(scenario, trials)
        self.known: dict[int, Any] = {}

    def stops(self, number: int, round: int, value: float | None) -> bool:
        if number not in self.known:
            config = {NUMBER: number, POINT: number in self.points}
            self.known[number] = SimpleNamespace(trial_id=f"{self.attempt}-{number}", config=config)
            self.scheduler.on_trial_add(None, self.known[number])
        trial, result = self.known[number], {ROUND: round}
        if value is not None:
            result[RUNG] = rung_sign(self.scenario) * value
        decision = self.scheduler.on_trial_result(None, trial, result)
        if decision == TrialScheduler.STOP:
            self.scheduler.on_trial_complete(None, trial, result)
        return bool(decision == TrialScheduler.STOP)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    grace=st.integers(1, 3),
    reduction=st.sampled_from([2.0, 2.5, 3.0, 4.0]),
    direction=st.sampled_from(["maximize", "minimize"]),
    kills=st.lists(st.integers(0, 60), max_size=3),
)
def test_it_decides_as_if_never_interrupted(
    seed: int, grace: int, reduction: float, direction: str, kills: list[int]
) -> None:
    scenario = racing(direction=direction, grace=grace, reduction=reduction)
    search, rng = search_of(scenario), np.random.default_rng(seed)
    trials: list[Trial] = []
    wanted = Halving(scenario.rounds, grace, reduction, 1.0 if direction == "maximize" else -1.0)
    driver = Driver(scenario, trials, 0)
    for event in range(80):
        if event in kills:
            driver = Driver(scenario, trials, event + 1)
        if sum(trial.state == "running" for trial in trials) < 4:
            trials.append(Trial(len(trials), {}, None, 0.0))
        running = [trial for trial in trials if trial.state == "running"]
        trial = running[rng.integers(len(running))]
        # Now and then two alike.
        round, value = len(trial.rounds) + 1, float(rng.integers(0, 12)) / 4
        stopped = driver.stops(trial.number, round, value)
        assert stopped == wanted.stops(trial.number, round, value), f"event {event}"
        trial.rounds.append(report(search, round, value))
        if stopped:
            trial.state = "complete" if round == scenario.rounds else "pruned"


def test_a_good_trial_that_goes_on_is_not_measured_again(tmp_path: Path) -> None:
    """After round 1 it was the best; its rounds 2 are the worst, but there is no rung."""
    scenario = racing(rounds=8, reduction=4.0)
    search, table = search_of(scenario), TrialsTable(tmp_path / "trials.jsonl")
    for value in (1.0, 2.0, 3.0):
        trial = table.asked({}, None)
        table.reported(trial.number, report(search, 1, value))
    driver = Driver(scenario, table.trials, 1)
    assert not driver.stops(2, 2, -5.0)
    assert not driver.stops(2, 3, -5.0)
    assert not driver.stops(3, 1, 3.0)
    assert driver.stops(4, 1, 2.0), "rung 1 holds 1, 2, 3, 3: not the -5 of later rounds"


def test_start_points_are_played_to_the_end_and_others_are_measured_by_them() -> None:
    driver = Driver(racing(rounds=4, reduction=2.0), [], 0, points=(1,))
    assert not driver.stops(0, 1, 5.0)
    assert not driver.stops(1, 1, 1.0), "worse, but a start point"
    assert not driver.stops(1, 2, 1.0)
    assert not driver.stops(1, 3, 1.0)
    assert driver.stops(1, 4, 1.0), "the last round"
    assert not driver.stops(2, 1, 3.0), "the median of 5 and the start point's 1"
    assert driver.stops(3, 1, 2.9)


def test_a_round_without_the_value_is_no_reason(tmp_path: Path) -> None:
    scenario = racing()
    table = TrialsTable(tmp_path / "trials.jsonl")
    trial = table.asked({}, None)
    made = report(search_of(scenario), 1, 1.0)
    made.values.clear()
    table.reported(trial.number, made)
    driver = Driver(scenario, table.trials, 1)
    assert not driver.stops(1, 1, None)
    assert not driver.stops(2, 1, -9.0), "nobody is on the rung yet"


def test_the_objective_that_decides() -> None:
    faces = {"source": "sample", "size": 64, "counts": {"defender": 8, "attacker": 90, "evaluation": 6}}
    objectives = {**TWO, "psnr": {"metric": "psnr", "direction": "minimize"}}
    search = section(objectives=objectives, scheduler={"kind": "asha", "objective": "psnr"})
    scenario = Scenario.model_validate(content(rounds=4, faces=faces, search=search))
    assert search_of(scenario).rung_objective == "psnr"
    assert rung_sign(scenario) == -1.0
    assert isinstance(make_scheduler(scenario, []), ResumedAsha)


def test_without_a_scheduler_every_trial_goes_on() -> None:
    scenario = Scenario.model_validate(content(search=section()))
    made = make_scheduler(scenario, [])
    assert type(made) is FIFOScheduler


@pytest.mark.parametrize("reduction", [2.0, 3.0])
def test_the_last_round_ends_a_trial(reduction: float) -> None:
    driver = Driver(racing(rounds=4, reduction=reduction), [], 0)
    assert [driver.stops(0, round, 1.0) for round in (1, 2, 3, 4)] == [False, False, False, True]
