"""The searcher: who is next, and what becomes of what is told twice, badly or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from ray.tune.search import Searcher
from tiny_search import CHOICE, FRACTION, PAPER, STEPS, content, report, search_of, section

from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search_trials import resolve_point
from tsdf_ray.store.trials import TrialsTable
from tune.outcome import Outcome
from tune.searcher import TableSearcher
from tune.study import Study

ASHA = {"kind": "asha"}


class Seen:
    """Counts how often the table is said to have changed."""

    times = 0

    def changed(self) -> None:
        self.times += 1


class Search:
    """A searcher with its table and study."""

    def __init__(self, path: Path, **changes: Any) -> None:
        start = {"points": {"paper": PAPER, "half": {FRACTION: 0.5}}}
        search = section(**{"trials": 5, "start": start, "sampler": {"kind": "random"}, "scheduler": ASHA} | changes)
        self.scenario = Scenario.model_validate(content(search=search))
        self.search, self.seen = search_of(self.scenario), Seen()
        self.table = TrialsTable(path / "trials.jsonl")
        self.study = Study(self.search, self.table.trials, InMemoryStorage())
        self.searcher = TableSearcher(self.scenario, self.table, self.study, self.seen)

    def suggest(self, name: str) -> dict[str, Any]:
        config = self.searcher.suggest(name)
        assert isinstance(config, dict)
        return config

    def result(self, round: int, value: float, failed: str | None = None, **violations: float) -> dict[str, Any]:
        made = report(self.search, round, value, violations)
        return Outcome(round, made, failed).result(done=round == self.scenario.rounds, rung=value)

    def optuna_state(self, number: int) -> TrialState:
        return self.study.study.trials[number].state


@pytest.fixture
def fresh(tmp_path: Path) -> Search:
    return Search(tmp_path)


def test_start_points_then_the_sampler_then_the_end(fresh: Search) -> None:
    configs = [fresh.suggest(f"tune-{i}") for i in range(5)]
    assert [config["trial"] for config in configs] == [0, 1, 2, 3, 4]
    assert [config["reported"] for config in configs] == [0] * 5
    assert configs[0]["params"] == PAPER
    assert configs[1]["params"][FRACTION] == 0.5
    assert len({config["params"][FRACTION] for config in configs}) == 5
    assert fresh.searcher.suggest("tune-5") == Searcher.FINISHED
    assert [trial.point for trial in fresh.table.trials] == ["paper", "half", None, None, None]
    assert [trial.params for trial in fresh.table.trials] == [config["params"] for config in configs]
    assert fresh.seen.times == 5


def test_unfinished_trials_come_first(tmp_path: Path) -> None:
    before = Search(tmp_path)
    for i in range(4):
        before.suggest(f"a{i}")
    before.searcher.on_trial_result("a1", before.result(1, 0.5))
    before.searcher.on_trial_complete("a2", error=True)
    after = Search(tmp_path)
    configs = [after.suggest(f"b{i}") for i in range(4)]
    assert [(config["trial"], config["reported"]) for config in configs] == [(0, 0), (1, 1), (3, 0), (4, 0)]
    assert configs[1]["params"] == before.table.trials[1].params
    assert after.searcher.suggest("b4") == Searcher.FINISHED
    assert len(after.table.trials) == 5


def test_a_grid_begins_after_the_start_points(tmp_path: Path) -> None:
    parameters = {
        STEPS: {"kind": "int", "low": 4, "high": 5},
        CHOICE: {"kind": "choice", "values": ["random", "weakest"]},
    }
    start = {"points": {"five": {STEPS: 5}}}
    search = Search(tmp_path, parameters=parameters, start=start, sampler={"kind": "grid"}, trials=5)
    params = [search.suggest(str(i))["params"] for i in range(5)]
    assert params[0][STEPS] == 5
    assert len({tuple(sorted(p.items())) for p in params[1:]}) == 4


def test_a_complete_trial(fresh: Search) -> None:
    fresh.suggest("a")
    fresh.searcher.on_trial_result("a", fresh.result(1, 0.25))
    fresh.searcher.on_trial_complete("a", fresh.result(2, 0.5, visible=-2.0))
    trial = fresh.table.trials[0]
    assert (trial.state, trial.reason) == ("complete", None)
    assert [made.values["protection"] for made in trial.rounds] == [0.25, 0.5]
    told = fresh.study.study.trials[0]
    assert (told.state, told.values, told.constraints) == (TrialState.COMPLETE, [0.5], {"visible": -2.0})
    assert told.intermediate_values == {1: 0.25, 2: 0.5}


def test_a_trial_that_the_scheduler_stopped(fresh: Search) -> None:
    fresh.suggest("a")
    fresh.searcher.on_trial_complete("a", fresh.result(1, 0.125, visible=3.0) | {"done": True})
    trial = fresh.table.trials[0]
    assert (trial.state, trial.reason) == ("pruned", "stopped by asha after round 1")
    assert len(trial.rounds) == 1
    told = fresh.study.study.trials[0]
    assert (told.state, told.intermediate_values) == (TrialState.PRUNED, {1: 0.125})


def test_what_is_told_twice_counts_once(fresh: Search) -> None:
    """As after a restart of a trial's process."""
    fresh.suggest("a")
    for value in (0.25, 0.75):
        fresh.searcher.on_trial_result("a", fresh.result(1, value))
    for value in (0.5, 0.9):
        fresh.searcher.on_trial_complete("a", fresh.result(2, value))
    fresh.searcher.on_trial_complete("a", error=True)
    trial = fresh.table.trials[0]
    assert trial.state == "complete"
    assert [made.values["protection"] for made in trial.rounds] == [0.25, 0.5]
    assert fresh.study.study.trials[0].values == [0.5]
    lines = (fresh.table._path).read_text().splitlines()
    assert len(lines) == 4


def test_a_process_that_died_too_often(fresh: Search) -> None:
    fresh.suggest("a")
    fresh.searcher.on_trial_result("a", fresh.result(1, 0.25))
    fresh.searcher.on_trial_complete("a", fresh.result(1, 0.25), error=True)
    trial = fresh.table.trials[0]
    assert trial.state == "failed"
    assert trial.reason is not None
    assert "its process died again and again" in trial.reason
    assert len(trial.rounds) == 1, "what it said before is kept"
    assert fresh.optuna_state(0) == TrialState.FAIL


def test_a_trial_that_failed_keeps_its_reason(fresh: Search) -> None:
    fresh.suggest("a")
    fresh.searcher.on_trial_complete("a", Outcome(1, failed="loss is not finite").result(done=True, rung=None))
    fresh.suggest("b")
    fresh.searcher.on_trial_result("b", fresh.result(1, 0.5))
    last = fresh.result(2, 0.5, failed="not measured: psnr: no value")
    fresh.searcher.on_trial_complete("b", last)
    first, second = fresh.table.trials
    assert (first.state, first.reason, first.rounds) == ("failed", "loss is not finite", [])
    assert (second.state, second.reason) == ("failed", "not measured: psnr: no value")
    assert len(second.rounds) == 2, "what could be measured is kept"
    assert fresh.optuna_state(1) == TrialState.FAIL


def test_a_trial_that_never_was(fresh: Search) -> None:
    fresh.suggest("a")
    fresh.searcher.on_trial_complete("a")
    assert fresh.table.trials[0].state == "failed"


def test_a_failed_trial_is_not_asked_for_again(tmp_path: Path) -> None:
    before = Search(tmp_path, trials=2)
    before.suggest("a")
    before.searcher.on_trial_complete("a", error=True)
    after = Search(tmp_path, trials=2)
    assert after.suggest("b")["trial"] == 1
    assert after.searcher.suggest("c") == Searcher.FINISHED


def test_what_tune_pickles_is_nothing(fresh: Search) -> None:
    assert pickle.loads(pickle.dumps(fresh.searcher)).__dict__ == {}
    assert fresh.searcher.set_search_properties(None, None, {})
    assert not fresh.searcher.set_search_properties(None, None, {"a": 1})


def test_an_outcome_travels_through_tune(fresh: Search) -> None:
    made = report(fresh.search, 2, 0.1 + 0.2, {"visible": -0.0})
    made.metrics["a.b/c"] = {"duq.mtcnn": 0.5, "psnr": None}
    for outcome in (Outcome(2, made), Outcome(2, made, "not measured: x"), Outcome(1, failed="loss is not finite")):
        result = outcome.result(done=False, rung=-0.5)
        assert result["done"] == (outcome.failed is not None)
        assert result["rung"] == -0.5
        assert Outcome.of(result) == outcome
    flat = Outcome(2, made).result(done=True, rung=None)
    assert "rung" not in flat
    assert flat["objective/protection"] == 0.1 + 0.2
    assert flat["violation/visible"] == 0.0
    assert all(isinstance(value, int | float | str | bool) for value in flat.values()), "Tune flattens what is nested"


def test_the_points_are_what_the_table_says(fresh: Search) -> None:
    assert resolve_point(fresh.search, fresh.search.start.points["paper"]) == fresh.suggest("a")["params"]
