"""Fronts against brute force, and which trials may be best."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsdf_ray.scenario.search import Constraint, Objective, SearchConfig
from tsdf_ray.store.trials import Report, State, Trial
from tune.front import best_trials, front_of, non_dominated


def _search(directions: dict[str, str], constrained: bool = True) -> SearchConfig:
    return SearchConfig(
        parameters={"defenders.tsdf.tau": {"kind": "uniform", "low": 0, "high": 1}},
        objectives={name: Objective(metric=name, direction=way) for name, way in directions.items()},
        constraints={"psnr": Constraint(metric="psnr", at_least=32.0)} if constrained else {},
    )


def _trial(number: int, values: dict[str, float], violated: float | None = -1.0, state: State = "complete") -> Trial:
    violations = {} if violated is None else {"psnr": violated}
    last = Report(1, values, violations, {}, 1.0)
    return Trial(number, {"defenders.tsdf.tau": 0.5}, None, 0.0, state, [last], None, 1.0)


@given(
    st.integers(1, 3).flatmap(
        lambda k: st.lists(st.tuples(*[st.integers(0, 4)] * k), max_size=25).map(lambda r: (k, r))
    )
)
def test_front_against_brute_force(given_rows: tuple[int, list[tuple[int, ...]]]) -> None:
    width, rows = given_rows
    expected = {
        i
        for i, own in enumerate(rows)
        if not any(other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in rows)
    }
    front = non_dominated(np.array(rows, dtype=np.float64).reshape(len(rows), width))
    assert set(front) == expected
    assert len(front) == len(expected)
    assert [rows[i] for i in front] == sorted(rows[i] for i in front)


def test_directions_turn_the_front() -> None:
    values = [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (2.0, 3.0)]
    trials = [_trial(i, {"a": a, "b": b}) for i, (a, b) in enumerate(values)]
    both = {"a": "maximize", "b": "maximize"}
    assert [t.number for t in front_of(_search(both), trials)] == [2]
    trade = {"a": "maximize", "b": "minimize"}
    # Best first objective first.
    assert [t.number for t in front_of(_search(trade), trials)] == [2, 1, 0]


def test_only_feasible_complete_finite_trials_are_best() -> None:
    trials = [
        _trial(0, {"a": 9.0}, violated=0.5),
        _trial(1, {"a": 8.0}, violated=None),
        _trial(2, {"a": float("nan")}),
        _trial(3, {"a": float("inf")}),
        _trial(4, {}),
        _trial(5, {"a": 7.0}, state="pruned"),
        _trial(6, {"a": 7.0}, state="failed"),
        _trial(7, {"a": 7.0}, state="running"),
        Trial(8, {}, None, 0.0, "complete"),
        _trial(9, {"a": 1.0}, violated=0.0),
        _trial(10, {"a": 2.0}),
        _trial(11, {"a": 2.0}),
    ]
    best, reason = best_trials(_search({"a": "maximize"}), trials, 5)
    assert [t.number for t in best] == [10, 11, 9]
    assert reason is None
    assert [t.number for t in best_trials(_search({"a": "minimize"}), trials, 1)[0]] == [9]


@pytest.mark.parametrize(
    ("n", "expected"), [(1, [9]), (2, [9, 0]), (3, [9, 5, 0]), (4, [9, 6, 3, 0]), (50, list(range(9, -1, -1)))]
)
def test_a_front_is_thinned_evenly_with_both_ends(n: int, expected: list[int]) -> None:
    trials = [_trial(i, {"a": float(i), "b": float(-i)}) for i in range(10)]
    best, _ = best_trials(_search({"a": "maximize", "b": "maximize"}), trials, n)
    assert [t.number for t in best] == expected


def test_why_there_is_no_best() -> None:
    search = _search({"a": "maximize"})
    cases: list[tuple[list[Trial], str]] = [
        ([], "none was begun"),
        ([_trial(0, {"a": 1.0}, state="pruned"), _trial(1, {}, state="failed")], "1 pruned, 1 failed"),
        ([_trial(0, {})], "none of the 1 complete trials has a value"),
        ([_trial(0, {"a": 1.0}, 4.0), _trial(1, {"a": 0.5}, 1.5)], "nearest is trial 1 (psnr at least 32: 30.5)"),
        ([_trial(0, {"a": 1.0}, None)], "psnr at least 32: not measured"),
    ]
    for trials, words in cases:
        best, reason = best_trials(search, trials, 3)
        assert best == []
        assert reason is not None
        assert words in reason


def test_without_constraints_every_complete_trial_may_be_best() -> None:
    trials: list[Any] = [_trial(0, {"a": 1.0}, None)]
    assert best_trials(_search({"a": "maximize"}, constrained=False), trials, 1)[0] == trials
