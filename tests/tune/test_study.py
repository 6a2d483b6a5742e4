"""The study beside the table: what is rebuilt equals what lived, and goes on as it would have."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from tiny_search import CHOICE, CONSTRAINTS, FRACTION, LR, OBJECTIVES, PAPER, RULE, STEPS, TAU, TWO, report, section

from tsdf_ray.scenario.search import SearchConfig
from tsdf_ray.scenario.search_trials import resolve_point
from tsdf_ray.store import trials
from tsdf_ray.store.trials import TrialsTable
from tune.study import GENERATION, STUDY, Study, distributions, frozen, make_sampler, open_storage, ordered

ROUNDS = 3
CONDITIONAL: dict[str, dict[str, Any]] = {
    LR: {"kind": "loguniform", "low": 1e-4, "high": 1e-1, "when": {RULE: "adam"}},
    RULE: {"kind": "choice", "values": ["sign", "adam"]},
    STEPS: {"kind": "int", "low": 4, "high": 48},
    FRACTION: {"kind": "uniform", "low": 0.0, "high": 1.0, "step": 0.25},
}
FINITE: dict[str, dict[str, Any]] = {
    FRACTION: {"kind": "uniform", "low": 0.0, "high": 1.0, "step": 0.1},
    STEPS: {"kind": "int", "low": 4, "high": 8, "step": 2},
    CHOICE: {"kind": "choice", "values": ["random", "weakest"]},
}
BOTH = {**CONSTRAINTS, "dim": {"metric": "ssim", "at_least": 0.9}}
SAMPLERS: dict[str, dict[str, Any]] = {
    "random": {"sampler": {"kind": "random"}},
    "tpe": {"sampler": {"kind": "tpe", "startup": 2}},
    "tpe, one at a time": {"sampler": {"kind": "tpe", "startup": 2}, "parallel": 1, "constraints": BOTH},
    "tpe with conditions": {"sampler": {"kind": "tpe", "startup": 2}, "parameters": CONDITIONAL, "start": {}},
    "motpe": {"sampler": {"kind": "motpe", "startup": 2}, "objectives": TWO},
    "nsga2": {"sampler": {"kind": "nsga2", "population": 3}, "objectives": TWO},
    "nsga2 with conditions": {
        "sampler": {"kind": "nsga2", "population": 2}, "parameters": CONDITIONAL, "start": {},
    },
    "grid": {"sampler": {"kind": "grid"}, "parameters": FINITE, "start": {}},
    "sobol": {"sampler": {"kind": "sobol"}},
}  # fmt: skip
SLOW_SAMPLERS: dict[str, dict[str, Any]] = {
    "gp": {"sampler": {"kind": "gp", "startup": 2}, "constraints": BOTH},
    "gp, several objectives": {"sampler": {"kind": "gp", "startup": 2}, "objectives": TWO},
}
POINTS = {"points": {"paper": PAPER, "half": {FRACTION: 0.5}}}
DRAWN = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def searching(**changes: Any) -> SearchConfig:
    return SearchConfig.model_validate(section(**{"start": POINTS, **changes}))


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing every line of a made-up table to disk would take most of the time."""
    monkeypatch.setattr(trials.os, "fsync", lambda file: None)


class Played:
    """A search as its driver plays it: the table first, then the study."""

    def __init__(self, search: SearchConfig, path: Path, earlier: list[FrozenTrial] | None = None) -> None:
        self.search, self.path, self.earlier = search, path, earlier
        self.table = TrialsTable(path)
        self.live = Study(search, [], InMemoryStorage(), earlier)

    def ask(self) -> None:
        number = len(self.table.trials)
        params, notes = asked(self.live, self.search, number)
        points = list(self.search.start.points)
        self.table.asked(params, points[number] if number < len(points) else None, notes)

    def report(self, number: int, value: float, violation: float) -> None:
        rounds = len(self.table.trials[number].rounds)
        # Not in the order of their names, in which they are read back.
        violations = {name: violation + 0.1 * i for i, name in enumerate(reversed(self.search.constraints))}
        told = report(self.search, rounds + 1, value, violations, psnr=30 - value)
        self.table.reported(number, told)
        self.live.report(number, told)

    def end(self, number: int, state: Any) -> None:
        self.table.ended(number, state)
        self.live.tell(number, state, self.table.trials[number].last)

    def at_random(self, rng: np.random.Generator, steps: int, most: int) -> None:
        """Trials side by side, which end in any order and way."""
        for _ in range(steps):
            running = self.table.of("running")
            if len(self.table.trials) < most and (not running or rng.random() < 0.4):
                self.ask()
                continue
            if not running:
                return
            trial = running[rng.integers(len(running))]
            if len(trial.rounds) < ROUNDS and rng.random() < 0.9:
                self.report(trial.number, float(rng.normal()), float(rng.normal() - 0.5))
                if len(trial.rounds) == ROUNDS and rng.random() < 0.8:
                    self.end(trial.number, "complete")
            elif len(trial.rounds) == ROUNDS:
                self.end(trial.number, "complete")
            else:
                self.end(trial.number, "pruned" if rng.random() < 0.6 else "failed")

    def rebuilt(self) -> Study:
        return Study(self.search, TrialsTable(self.path).trials, InMemoryStorage(), self.earlier)


def asked(study: Study, search: SearchConfig, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    points = list(search.start.points.values())
    return study.ask(number, resolve_point(search, points[number] if number < len(points) else {}))


def facts(study: Study) -> list[Any]:
    """Everything a sampler or a dashboard may look at."""
    return [
        (
            trial.number,
            trial.state,
            trial.values,
            trial.params,
            trial.distributions,
            trial.intermediate_values,
            list(trial.constraints.items()),
            trial.user_attrs if "from" in trial.user_attrs else trial.user_attrs["trial"],
            {name: value for name, value in trial.system_attrs.items() if name != "fixed_params"},
        )
        for trial in study.study.get_trials(deepcopy=False)
    ]


def equal_and_goes_on_alike(played: Played, asks: int) -> None:
    rebuilt = played.rebuilt()
    assert facts(rebuilt) == facts(played.live)
    first = len(played.table.trials)
    for number in range(first, first + asks):
        assert asked(rebuilt, played.search, number) == asked(played.live, played.search, number)


files = itertools.count()


@pytest.mark.parametrize("name", SAMPLERS)
@DRAWN
@given(seed=st.integers(0, 2**32 - 1), most=st.integers(0, 14))
def test_the_rebuilt_study_equals_the_live_one(tmp_path: Path, name: str, seed: int, most: int) -> None:
    played = Played(searching(**SAMPLERS[name]), tmp_path / f"{next(files)}.jsonl")
    played.at_random(np.random.default_rng(seed), 60, most)
    equal_and_goes_on_alike(played, 3)


@pytest.mark.parametrize("name", SLOW_SAMPLERS)
def test_the_same_with_a_gaussian_process(tmp_path: Path, name: str) -> None:
    played = Played(searching(**SLOW_SAMPLERS[name]), tmp_path / "trials.jsonl")
    played.at_random(np.random.default_rng(4), 90, 9)
    assert len(played.table.of("complete")) > 2, "else it is random search"
    equal_and_goes_on_alike(played, 1)


@pytest.mark.parametrize("kind", ["tpe", "nsga2"])
def test_the_same_after_an_earlier_search(tmp_path: Path, kind: str) -> None:
    search = searching(sampler={"kind": kind, "startup": 2, "population": 3})
    earlier = [
        create_trial(
            values=[float(i)],
            params={FRACTION: i / 10, TAU: 0.02, CHOICE: "weakest"},
            distributions=distributions(search),
            constraints={"visible": -1.0},
            user_attrs={"from": "elsewhere"},
            system_attrs={GENERATION: 0},
        )
        for i in range(5)
    ]
    played = Played(search, tmp_path / "trials.jsonl", earlier)
    played.at_random(np.random.default_rng(1), 80, 9)
    if kind == "nsga2":
        notes = [trial.notes for trial in played.table.trials]
        assert min(note[GENERATION] for note in notes) == 1, "what was known before is generation 0"
        assert any(number < 0 for note in notes for number in note["parents"]), "and somebody descends from it"
    equal_and_goes_on_alike(played, 3)


def test_generations_go_on(tmp_path: Path) -> None:
    """Late trials of a generation that has had its children change nothing, before and after a restart."""
    played = Played(searching(sampler={"kind": "nsga2", "population": 2}, start={}), tmp_path / "trials.jsonl")
    for _ in range(3):
        played.ask()
    for number in (0, 1):
        for _ in range(ROUNDS):
            played.report(number, 0.1 * number, -1.0)
        played.end(number, "complete")
    played.ask()
    assert played.table.trials[3].notes == {GENERATION: 1, "parents": [0, 1]}
    for _ in range(ROUNDS):
        played.report(2, 9.0, -1.0)
    played.end(2, "complete")
    equal_and_goes_on_alike(played, 1)
    assert asked(played.rebuilt(), played.search, 4)[1]["parents"] == [0, 1]


def test_a_start_point_has_descendants(tmp_path: Path) -> None:
    search = searching(sampler={"kind": "nsga2", "population": 2}, start={"points": {"paper": PAPER}})
    played = Played(search, tmp_path / "trials.jsonl")
    for number in range(2):
        played.ask()
        for _ in range(ROUNDS):
            played.report(number, 1.0 - number, -1.0)
        played.end(number, "complete")
    played.ask()
    assert played.table.trials[0].notes == {GENERATION: 0}
    assert 0 in played.table.trials[2].notes["parents"]


def test_distributions() -> None:
    search = searching(parameters={**CONDITIONAL, TAU: {"kind": "uniform", "low": 0.01, "high": 0.08}}, start={})
    wanted: dict[str, BaseDistribution] = {
        LR: FloatDistribution(1e-4, 1e-1, log=True),
        RULE: CategoricalDistribution(("sign", "adam")),
        STEPS: IntDistribution(4, 48),
        FRACTION: FloatDistribution(0.0, 1.0, step=0.25),
        TAU: FloatDistribution(0.01, 0.08),
    }
    assert distributions(search) == wanted
    named = {"kind": "choice", "named": {"gentle": {"steps": 4}, "rough": {"steps": 50}}}
    lists = {"kind": "choice", "values": [None, 3, [0.1, 0.2]]}
    logs = {"kind": "int", "low": 1, "high": 64, "log": True}
    other = distributions(searching(parameters={"defenders.a": named, "defenders.b": lists, "c": logs}, start={}))
    assert other["defenders.a"] == CategoricalDistribution(("gentle", "rough"))
    assert other["defenders.b"] == CategoricalDistribution((None, 3, "[0.1, 0.2]"))
    assert other["c"] == IntDistribution(1, 64, log=True)


def test_a_parameter_comes_after_its_condition() -> None:
    chain = {
        "c": {"kind": "int", "low": 1, "high": 2, "when": {"b": 1}},
        "b": {"kind": "choice", "values": [1, 2], "when": {"a": ["x"]}},
        "a": {"kind": "choice", "values": ["x", "y"]},
    }
    assert list(ordered(searching(parameters=chain, start={}))) == ["a", "b", "c"]


def test_start_points_come_first_and_are_filled_in() -> None:
    search = searching()
    study = Study(search, [], InMemoryStorage())
    paper, half, third = (asked(study, search, number)[0] for number in range(3))
    assert paper == PAPER
    assert half[FRACTION] == 0.5
    assert set(half) == set(PAPER), "what a point leaves out is the sampler's"
    assert distributions(search)[TAU]._contains(half[TAU])
    assert third[FRACTION] not in {0.0, 0.5}


@pytest.mark.parametrize("kind", ["random", "tpe", "nsga2"])
def test_parameters_whose_condition_fails_are_absent(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    search = searching(
        parameters=CONDITIONAL, start={}, sampler={"kind": kind, "startup": 3, "population": 3}, constraints={}
    )
    played = Played(search, tmp_path / "trials.jsonl")
    known, rules = distributions(search), set[object]()
    optuna.logging.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING):
            for number in range(14):
                played.ask()
                params = played.table.trials[number].params
                rules.add(params[RULE])
                assert (LR in params) == (params[RULE] == "adam")
                assert all(known[name]._contains(known[name].to_internal_repr(v)) for name, v in params.items())
                for _ in range(ROUNDS):
                    played.report(number, float(params[STEPS] or 0), 0.0)
                played.end(number, "complete")
    finally:
        optuna.logging.disable_propagation()
    assert rules == {"sign", "adam"}
    assert caplog.records == [], "a warning per trial would drown the board"


def told(search: SearchConfig, xs: list[float], violations: list[float] | None = None) -> Study:
    """A study of complete trials whose value is their share of pixels."""
    study = Study(search, [], InMemoryStorage())
    for number, x in enumerate(xs):
        study.ask(number, {FRACTION: x, TAU: 0.05, CHOICE: "random"})
        violation = dict.fromkeys(search.constraints, violations[number]) if violations else {}
        study.tell(number, "complete", report(search, 1, x, violation))
    return study


def test_what_breaks_a_constraint_is_never_best() -> None:
    xs = [(i + 0.5) / 20 for i in range(20)]
    bounded = searching(start={}, parallel=1, sampler={"kind": "tpe", "startup": 5})
    free = searching(start={}, parallel=1, sampler={"kind": "tpe", "startup": 5}, constraints={})
    study = told(bounded, xs, [x - 0.5 for x in xs])
    assert study.study.best_trial.params[FRACTION] == max(x for x in xs if x <= 0.5)
    assert told(free, xs).study.best_trial.params[FRACTION] == max(xs)

    def next_shares(study: Study) -> list[Any]:
        return [study.ask(number, {})[0][FRACTION] for number in range(20, 40)]

    # The sampler looks where it was good: near the top without the constraint, near the bound with it.
    assert float(np.median(next_shares(told(free, xs)))) > 0.75
    assert 0.3 < float(np.median(next_shares(study))) < 0.6


def test_a_pruned_trial_keeps_what_it_said(tmp_path: Path) -> None:
    played = Played(searching(), tmp_path / "trials.jsonl")
    played.ask()
    for value in (0.25, 0.5):
        played.report(0, value, 0.75)
    played.end(0, "pruned")
    for study in (played.live, played.rebuilt()):
        trial = study.study.trials[0]
        assert trial.state == TrialState.PRUNED
        assert trial.intermediate_values == {1: 0.25, 2: 0.5}
        assert trial.values == [0.5]
        assert trial.constraints == {"visible": 0.75}


def test_several_objectives_can_be_pruned(tmp_path: Path) -> None:
    """Optuna's TPE cannot rank pruned trials of several objectives that have intermediate values."""
    played = Played(searching(objectives=TWO, sampler={"kind": "motpe", "startup": 1}), tmp_path / "trials.jsonl")
    for number in range(6):
        played.ask()
        played.report(number, 0.1 * number, -1.0)
        played.end(number, "pruned")
    equal_and_goes_on_alike(played, 2)
    assert {trial.state for trial in played.live.study.trials[:6]} == {TrialState.PRUNED}


def test_a_failed_trial_tells_the_sampler_nothing(tmp_path: Path) -> None:
    played = Played(searching(), tmp_path / "trials.jsonl")
    played.ask()
    played.report(0, 99.0, -1.0)
    played.end(0, "failed")
    for study in (played.live, played.rebuilt()):
        assert study.study.trials[0].state == TrialState.FAIL
        assert study.study.trials[0].values is None
        with pytest.raises(ValueError, match="No trials are completed"):
            _ = study.study.best_trial


def test_a_value_outside_its_distribution_is_refused(tmp_path: Path) -> None:
    table = TrialsTable(tmp_path / "trials.jsonl")
    trial = table.asked({FRACTION: 1.5}, None)
    with pytest.raises(ValueError, match=FRACTION):
        frozen(searching(), trial)


@pytest.fixture
def finished(tmp_path: Path) -> Played:
    played = Played(searching(), tmp_path / "trials.jsonl")
    played.at_random(np.random.default_rng(3), 25, 4)
    return played


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_stored_study_is_made_anew_each_time(tmp_path: Path, finished: Played, kind: str) -> None:
    """Whatever a killed process left in the storage: each trial is there once, as the table has it."""
    search = searching(storage=kind)
    study = Study(search, TrialsTable(finished.path).trials, open_storage(search, tmp_path))
    # Killed between the storage and the table: this trial is not in the table.
    asked(study, search, len(finished.table.trials))
    study = Study(search, TrialsTable(finished.path).trials, open_storage(search, tmp_path))
    assert facts(study) == facts(finished.live)
    file = tmp_path / f"optuna.{'db' if kind == 'sqlite' else 'journal'}"
    storage = RDBStorage(f"sqlite:///{file}") if kind == "sqlite" else JournalStorage(JournalFileBackend(str(file)))
    seen = optuna.load_study(study_name=STUDY, storage=storage)
    assert [t.user_attrs["trial"] for t in seen.trials] == [t.number for t in finished.table.trials]
    assert [t.state for t in seen.trials] == [t.state for t in finished.live.study.trials]
    assert seen.metric_names == list(OBJECTIVES)


def test_a_study_in_memory_leaves_no_file(tmp_path: Path) -> None:
    open_storage(searching(storage="memory"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["random", "tpe", "nsga2", "gp"])
def test_a_sampler_is_named_by_seed_and_number(kind: str) -> None:
    """Not by what was drawn before: then a search that goes on would need to draw again what it has drawn."""

    def first(seed: int, number: int) -> float:
        search = searching(sampler={"kind": kind, "seed": seed}, start={})
        study = optuna.create_study(sampler=make_sampler(search, number))
        return study.ask().suggest_float("x", 0, 1)

    assert first(0, 5) == first(0, 5)
    assert len({first(0, 5), first(0, 6), first(1, 5)}) == 3
