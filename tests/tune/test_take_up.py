"""Small steps of taking a search up again, each of which a kill at the wrong moment has once broken."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search import SearchConfig
from tsdf_ray.store.lock import take_lock
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.store.trials import Report, TrialsTable
from tune import trial as trials
from tune.search import settle
from tune.study import Study


def config(**changes: Any) -> SearchConfig:
    content = {
        "parameters": {"defenders.a.epsilon": {"kind": "uniform", "low": 0.0, "high": 1.0}},
        "objectives": {"protection": {"metric": "protection"}, "psnr": {"metric": "psnr"}},
        "constraints": {"visible": {"metric": "psnr", "at_least": 30}},
        "sampler": {"kind": "tpe", "startup": 1},
    }
    return SearchConfig.model_validate(content | changes)


def report(round: int, value: float, **changes: Any) -> Report:
    found = {"values": {"protection": value, "psnr": 31.0}, "violations": {"visible": -1.0}, "metrics": {}}
    return Report(round=round, seconds=1.0, **(found | changes))


def test_a_study_of_several_objectives_asks_on_after_pruned_trials(tmp_path: Path) -> None:
    """TPE raises when a pruned trial of several objectives has intermediate values."""
    table = TrialsTable(tmp_path / "trials.jsonl")
    for number in range(4):
        table.asked({"defenders.a.epsilon": 0.1 * number}, None)
        table.reported(number, report(1, 0.1 * number))
        table.ended(number, "pruned" if number else "complete")
    study = Study(config(), table.trials, InMemoryStorage())
    params, _ = study.ask(4, {})
    assert 0 <= float(params["defenders.a.epsilon"] or 0) <= 1
    states = [trial.state for trial in study.study.trials]
    assert states == [TrialState.COMPLETE, *[TrialState.PRUNED] * 3, TrialState.RUNNING]


@pytest.mark.parametrize(
    ("last", "state", "reason"),
    [
        (report(2, 0.5), "complete", None),
        (report(2, 0.5, values={"psnr": 31.0}), "failed", "not measured: protection"),
        (report(2, 0.5, violations={}), "failed", "not measured: visible"),
    ],
)
def test_a_trial_whose_last_round_is_known_has_ended(
    tmp_path: Path, last: Report, state: str, reason: str | None
) -> None:
    table = TrialsTable(tmp_path / "trials.jsonl")
    for number in range(2):
        table.asked({"defenders.a.epsilon": 0.5}, None)
        table.reported(number, report(1, 0.4))
    table.reported(1, last)
    settle(config(), 2, table)
    again = TrialsTable(tmp_path / "trials.jsonl").trials
    assert (again[0].state, again[0].reason) == ("running", None), "it has a round to play"
    assert (again[1].state, again[1].reason) == (state, reason)


def test_a_half_made_folder_is_cleared_only_when_its_maker_is_gone(tmp_path: Path) -> None:
    """Else both would hold a lock, each of a file of its own."""
    root, smoke = tmp_path / "0003", Scenario.load("smoke")
    root.mkdir()
    held = take_lock(root)
    (root / "scenario.yaml").write_text("cut sho")
    let_go: list[float] = []

    def die() -> None:
        time.sleep(0.5)
        let_go.append(time.monotonic())
        held.close()

    maker = threading.Thread(target=die)
    maker.start()
    run = trials.take(root, smoke)
    taken = time.monotonic()
    maker.join()
    assert taken >= let_go[0]
    run.close()
    again, scenario = RunDirectory.open(root)
    again.close()
    assert scenario == smoke
