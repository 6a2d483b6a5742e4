"""What decides: a parameter that alone makes the value is found; a surface is shown only where it says something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest

from tsdf_ray.scenario.search import SearchConfig
from tsdf_ray.store.trials import Report, State, Trial
from tune.importance import importance, study_of
from tune.separation_map import REACH, map_parameters, separation_map, to_unit

T = "defenders.tsdf."
SPACE: dict[str, Any] = {
    f"{T}tau": {"kind": "uniform", "low": 0.0, "high": 0.2},
    f"{T}share.fraction": {"kind": "uniform", "low": 0.0, "high": 1.0},
    f"{T}beta": {"kind": "loguniform", "low": 0.1, "high": 10.0},
    f"{T}rule": {"kind": "choice", "values": ["sign", "adam"]},
    f"{T}lr": {"kind": "loguniform", "low": 1e-4, "high": 1e-1, "when": {f"{T}rule": "adam"}},
}


def _search(direction: str = "maximize", space: dict[str, Any] = SPACE, **more: Any) -> SearchConfig:
    objectives = {"protection": {"metric": "protection", "direction": direction}, "psnr": {"metric": "psnr"}}
    return SearchConfig.model_validate({"parameters": space, "objectives": objectives} | more)


def _trials(
    value: Callable[[dict[str, Any]], float], count: int = 40, psnr: float | None = None, state: State = "complete"
) -> list[Trial]:
    rng = np.random.default_rng(3)
    trials = []
    for number in range(count):
        params: dict[str, Any] = {
            f"{T}tau": float(rng.uniform(0, 0.2)),
            f"{T}share.fraction": float(rng.uniform(0, 1)),
            f"{T}beta": float(10 ** rng.uniform(-1, 1)),
            f"{T}rule": ["sign", "adam"][number % 2],
        }
        if number % 2:
            params[f"{T}lr"] = float(10 ** rng.uniform(-4, -1))
        seen = float(rng.uniform(30, 40)) if psnr is None else psnr
        report = Report(1, {"protection": value(params), "psnr": seen}, {}, {"tsdf/a": {"psnr": seen}}, 1.0)
        trials.append(Trial(number, params, None, 0.0, state, [report], None, 1.0))
    return trials


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("key", ["tau", "beta"])
def test_the_parameter_that_makes_the_value_is_most_important(direction: str, key: str) -> None:
    found = importance(_search(direction), _trials(lambda p: -((np.log(p[T + key]) + 1.8) ** 2)), "protection")
    assert found.shares is not None
    assert next(iter(found.shares)) == T + key
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert set(found.shares) == set(SPACE)
    assert (found.trials, found.top) == (40, 10)


def test_a_conditional_parameter_can_be_the_most_important() -> None:
    found = importance(_search(), _trials(lambda p: -abs(np.log10(p.get(f"{T}lr", 1e3)) + 3.5)), "protection")
    assert found.shares is not None
    assert next(iter(found.shares)) == f"{T}lr"


def test_no_importance_without_trials_or_differences() -> None:
    few = importance(_search(), _trials(lambda p: p[f"{T}tau"], count=7), "protection")
    assert few.shares is None
    assert few.reason == "7 complete trials; at least 8 are needed"
    pruned = importance(_search(), _trials(lambda p: p[f"{T}tau"], state="pruned"), "protection")
    assert pruned.shares is None
    same = importance(_search(), _trials(lambda _: 0.5), "protection")
    assert same.shares is None
    assert same.reason == "protection is the same in every trial"


def test_the_study_has_every_ended_trial() -> None:
    trials = _trials(lambda p: p[f"{T}tau"], count=6)
    trials[1].state, trials[2].state, trials[3].state = "pruned", "failed", "running"
    before = optuna.logging.get_verbosity()
    study = study_of(_search(), trials)
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE", "COMPLETE"]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MAXIMIZE"]
    assert study.trials[0].params == trials[0].params
    assert optuna.logging.get_verbosity() == before


def test_map_parameters() -> None:
    trials = _trials(lambda p: p[f"{T}beta"] + 0.1 * p.get(f"{T}lr", 0))
    assert map_parameters(_search(), trials) == (f"{T}tau", f"{T}share.fraction")
    without = {name: kind for name, kind in SPACE.items() if not name.endswith(".tau")}
    chosen = map_parameters(_search(space=without), [_without_tau(trial) for trial in trials])
    assert chosen is not None
    assert chosen[0] == f"{T}beta"
    one = {name: SPACE[name] for name in (f"{T}tau", f"{T}rule")}
    assert map_parameters(_search(space=one), []) is None
    assert separation_map(_search(space=one), []) == (None, "a map needs two numeric parameters; the search has fewer")


def _without_tau(trial: Trial) -> Trial:
    params = {name: value for name, value in trial.params.items() if name != f"{T}tau"}
    return Trial(trial.number, params, None, 0.0, "complete", trial.rounds, None, 1.0)


def _hill(p: dict[str, Any]) -> float:
    return float(np.exp(-(((p[f"{T}tau"] - 0.1) / 0.08) ** 2) - ((p[f"{T}share.fraction"] - 0.5) / 0.4) ** 2))


def test_the_surface_follows_a_hill_and_stays_near_trials() -> None:
    trials = _trials(_hill, count=60, psnr=35.0)
    found, reason = separation_map(_search(), trials)
    assert reason is None
    assert found is not None
    assert found.psnr is None  # all alike
    assert found.surface is not None
    assert found.foretold is not None
    assert found.foretold > 0.8
    xs, ys = np.meshgrid(found.xs, found.ys)
    truth = np.exp(-(((xs - 0.1) / 0.08) ** 2) - ((ys - 0.5) / 0.4) ** 2)
    drawn = ~np.isnan(found.surface)
    assert drawn.mean() > 0.5
    assert np.abs(found.surface - truth)[drawn].mean() < 0.1
    search = _search()
    points = np.stack([to_unit(search.parameters[n], [t.params[n] for t in trials]) for n in found.parameters], 1)
    far = [
        np.hypot(x / 0.2 - points[:, 0], y - points[:, 1]).min() > REACH for x, y in zip(xs.flat, ys.flat, strict=True)
    ]
    assert (np.array(far) == ~drawn.ravel()).all()


def test_the_map_is_cut_at_the_visibility_that_is_asked_for() -> None:
    search = _search(constraints={"visible": {"metric": "psnr", "at_least": 36.0}})
    trials = _trials(_hill, count=60)
    for trial in trials:
        # What is more visible protects better.
        report = trial.rounds[0]
        report.values["protection"] += 0.2 * (40 - report.values["psnr"]) / 10
    found, _ = separation_map(search, trials)
    assert found is not None
    assert found.psnr == 36.0
    median, _ = separation_map(_search(), trials)
    assert median is not None
    assert median.psnr == pytest.approx(np.median([t.rounds[0].values["psnr"] for t in trials]))
    far, _ = separation_map(_search(constraints={"visible": {"metric": "psnr", "at_least": 60.0}}), trials)
    assert far is not None
    assert far.surface is None
    assert far.reason == "no trial is near PSNR 60.0 dB"


def test_no_surface_of_noise_of_few_trials_or_of_a_line() -> None:
    rng = np.random.default_rng(0)
    noise, _ = separation_map(_search(), _trials(lambda _: float(rng.random()), count=30))
    assert noise is not None
    assert noise.surface is None
    assert noise.reason == "it hardly foretells trials better than their mean does"
    few, _ = separation_map(_search(), _trials(_hill, count=9))
    assert few is not None
    assert few.reason == "9 trials; a surface needs 10"
    assert len(few.trials) == 9
    line = _trials(_hill, count=20)
    for trial in line:
        trial.params[f"{T}share.fraction"] = 5.0 * float(trial.params[f"{T}tau"] or 0)
        trial.rounds[0].metrics.clear()
    along, _ = separation_map(_search(), line)
    assert along is not None
    assert along.surface is None
    assert along.reason is not None
    assert separation_map(_search(), _trials(_hill, state="pruned"))[0] is None


def test_units_of_a_log_axis() -> None:
    search = _search()
    assert to_unit(search.parameters[f"{T}beta"], [0.1, 1.0, 10.0]) == pytest.approx([0.0, 0.5, 1.0])
    assert to_unit(search.parameters[f"{T}tau"], [0.0, 0.1, 0.2]) == pytest.approx([0.0, 0.5, 1.0])
