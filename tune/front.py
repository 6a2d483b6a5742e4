"""Which trials are best: feasible and complete, and of several objectives those that no other beats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tsdf_ray.scenario.search import SearchConfig
from tsdf_ray.store.trials import Report, Trial
from tune.analysis import bound, constrained_value


def scored(search: SearchConfig, trials: Sequence[Trial]) -> list[Trial]:
    """Complete trials that have every objective, as a finite number; whether they keep to the constraints or not."""
    return [
        trial
        for trial in trials
        if trial.state == "complete"
        and trial.last is not None
        and all(math.isfinite(trial.last.values.get(name, math.nan)) for name in search.objectives)
    ]


def kept_to(search: SearchConfig, report: Report) -> bool:
    """Are all constraints measured and kept to? One that could not be measured is not."""
    return all(report.violations.get(name, math.inf) <= 0 for name in search.constraints)


def feasible(search: SearchConfig, trials: Sequence[Trial]) -> list[Trial]:
    """Scored trials that keep to every constraint: only these can be best."""
    return [trial for trial in scored(search, trials) if trial.last and kept_to(search, trial.last)]


def losses(search: SearchConfig, trials: Sequence[Trial]) -> npt.NDArray[np.float64]:
    """Objectives of scored trials, turned so that less is better: [trials, objectives]."""
    rows = [
        [
            -trial.last.values[name] if objective.direction == "maximize" else trial.last.values[name]
            for name, objective in search.objectives.items()
        ]
        for trial in trials
        if trial.last
    ]
    return np.array(rows, dtype=np.float64).reshape(len(trials), len(search.objectives))


def non_dominated(losses_NK: npt.NDArray[np.float64]) -> list[int]:
    """Rows that no other row beats (nowhere worse, somewhere better), least first column first. Equal rows all stay."""
    # In this order a row can be beaten by earlier ones alone, and then by one that is in the front.
    order = np.lexsort(losses_NK.T[::-1])
    front: list[int] = []
    for i in order:
        kept = losses_NK[front]
        beaten = (kept <= losses_NK[i]).all(1) & (kept < losses_NK[i]).any(1)
        if not beaten.any():
            front.append(int(i))
    return front


def front_of(search: SearchConfig, trials: Sequence[Trial]) -> list[Trial]:
    """The feasible front, best first objective first; of one objective its best trials."""
    able = feasible(search, trials)
    return [able[i] for i in non_dominated(losses(search, able))]


def best_trials(search: SearchConfig, trials: Sequence[Trial], n: int) -> tuple[list[Trial], str | None]:
    """At most `n` trials, and why there is none.

    One objective: the best, best first. Several: the front by the first objective, thinned evenly, both ends kept.
    """
    able = feasible(search, trials)
    if not able:
        return [], _why_none(search, trials)
    if len(search.objectives) == 1:
        order = np.argsort(losses(search, able)[:, 0], kind="stable")
        return [able[i] for i in order[:n]], None
    front = front_of(search, trials)
    places = np.round(np.linspace(0, len(front) - 1, min(n, len(front)))).astype(int)
    return [front[i] for i in places], None


def _why_none(search: SearchConfig, trials: Sequence[Trial]) -> str:
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        states = {state: sum(trial.state == state for trial in trials) for state in ("running", "pruned", "failed")}
        counted = ", ".join(f"{count} {state}" for state, count in states.items() if count)
        return f"no trial is complete ({counted or 'none was begun'})"
    measured = scored(search, trials)
    if not measured:
        return f"none of the {len(complete)} complete trials has a value of every objective"
    least = min(measured, key=lambda trial: _worst_violation(search, trial))
    wishes = []
    for name, constraint in search.constraints.items():
        word = "at least" if constraint.at_least is not None else "at most"
        violated = least.last.violations.get(name) if least.last else None
        got = "not measured" if violated is None else f"{constrained_value(constraint, violated):.4g}"
        wishes.append(f"{name} {word} {bound(constraint):g}: {got}")
    return (
        f"none of the {len(measured)} complete trials keeps to the constraints; "
        f"nearest is {least.label} ({', '.join(wishes)})"
    )


def _worst_violation(search: SearchConfig, trial: Trial) -> float:
    violations = trial.last.violations if trial.last else {}
    return max(violations.get(name, math.inf) for name in search.constraints)
