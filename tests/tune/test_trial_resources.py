"""What Ray is asked for: everything a trial will ever need, before it starts; and that it is enough."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_gpu import scenario as gpu_scenario
from ray import tune as ray_tune
from tiny_search import content, search_of, section

from tsdf_ray.game.materials import load_materials
from tsdf_ray.game.plan import Supply, trial_plan
from tsdf_ray.game.search_control import SearchBoard
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.store.trials import TrialsTable
from tune import tuner
from tune.search import Ready
from tune.study import Study, open_storage
from tune.trainable import trial_scenario
from tune.trial import MatchTrial, Setting

SCRIPT = Path(__file__).with_name("fake_gpu.py")


class NoTuner:
    """Keeps what it was made with, and runs nothing."""

    made: Any = None

    def __init__(self, trainable: Any, **options: Any) -> None:
        type(self).made = (trainable, options)

    def fit(self) -> None:
        """Nothing."""


def tuned(root: Path, monkeypatch: pytest.MonkeyPatch, resources: dict[str, float], supply: Supply) -> Any:
    """The trainable and the options that Tune gets."""
    search = section(trials=9, parallel=4, scheduler={"kind": "asha"})
    game = Scenario.model_validate(content(search=search, resources=resources))
    monkeypatch.setattr(tuner, "Tuner", NoTuner)
    run, table = RunDirectory.create(root, game, kind="search"), TrialsTable(root / "trials.jsonl")
    study = Study(search_of(game), [], open_storage(search_of(game), root))
    ready = Ready(trial_plan(game, supply), {})
    before = {name: os.environ.get(name) for name in tuner.QUIET}
    tuner.run_trials(run, game, ready, table, study, SearchBoard(), None, (), MatchTrial)
    run.close()
    assert {name: os.environ.get(name) for name in tuner.QUIET} == before, "the host's environment is its own"
    return NoTuner.made


def test_a_trial_on_cpus_is_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainable, options = tuned(tmp_path / "s", monkeypatch, {"cpus_per_match": 2}, Supply(6, 0))
    asked = trainable.default_resource_request({})
    assert asked == ray_tune.PlacementGroupFactory([{"CPU": 2.0}])
    assert options["tune_config"].max_concurrent_trials == 3
    assert options["tune_config"].num_samples == 9
    assert options["tune_config"].reuse_actors
    assert options["run_config"].failure_config.max_failures == tuner.RESTARTS


def test_a_trial_on_a_gpu_takes_its_roles_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"cpus_per_match": 1, "gpus_per_match": 0.5}
    trainable, options = tuned(tmp_path / "s", monkeypatch, wanted, Supply(16, 4))
    asked = trainable.default_resource_request({})
    assert asked.head_bundle_is_empty, "its own process needs nothing that a role could miss"
    assert asked.bundles == [{"CPU": 1.0, "GPU": 0.5}]
    assert asked.strategy == "PACK"
    assert options["tune_config"].max_concurrent_trials == 4, "as search.parallel says; eight would fit"


def test_nothing_is_asked_when_all_trials_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    game = Scenario.model_validate(content(search=section(trials=1)))
    monkeypatch.setattr(tuner, "Tuner", NoTuner)
    NoTuner.made = None
    run, table = RunDirectory.create(tmp_path / "s", game, kind="search"), TrialsTable(tmp_path / "s/trials.jsonl")
    study = Study(search_of(game), [], open_storage(search_of(game), tmp_path))
    ready = Ready(trial_plan(game, Supply(2, 0)), {})
    for seconds in (0.0, -5.0):
        tuner.run_trials(run, game, ready, table, study, SearchBoard(), seconds, (), MatchTrial)
    table.asked({}, None)
    table.ended(0, "failed", "no luck")
    tuner.run_trials(run, game, ready, table, study, SearchBoard(), None, (), MatchTrial)
    run.close()
    assert NoTuner.made is None


def search_on_a_gpu(folder: Path, gpus: float, trials: int, seeds: list[int]) -> Path:
    """The search of fake_gpu.py; a trial that waits for its own actors would run into the time limit."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), *sys.path])}
    command = [sys.executable, str(SCRIPT), str(folder), str(gpus), str(trials), *map(str, seeds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["status"] == "complete"
    return folder / "search"


def says_the_same_in_process(root: Path, folder: Path, gpus: float, trials: int, seeds: list[int]) -> None:
    game = gpu_scenario(gpus, trials, seeds)
    first = trial_scenario(game, 0, {})
    materials = {seed: load_materials(first, seed) for seed in first.seeds}
    table = TrialsTable(root / "trials.jsonl")
    assert [trial.state for trial in table.trials] == ["complete"] * trials
    for trial in table.trials:
        scenario = trial_scenario(game, trial.number, trial.params)
        playing = MatchTrial(Setting(folder / f"{trial.number}", scenario, search_of(game), materials))
        for told in trial.rounds:
            report = playing.step().report
            assert report is not None
            assert replace(report, seconds=0.0) == replace(told, seconds=0.0)
        playing.close()


def roles_of(root: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for path in root.glob("trials/*/events.jsonl") for line in path.read_text().splitlines()]
    return [line for line in lines if "step" in line]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_with_roles_as_actors(tmp_path: Path) -> None:
    """All of the one GPU for one match: nothing is left that a role could wait for."""
    root = search_on_a_gpu(tmp_path, 1, 1, [0])
    events = roles_of(root)
    assert {event["role"] for event in events} == {"defender", "attacker", "evaluator"}
    assert len({event["pid"] for event in events}) == 3, "each in a process of its own"
    says_the_same_in_process(root, tmp_path, 1, 1, [0])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_trials_with_two_seeds_side_by_side(tmp_path: Path) -> None:
    """The roles of one seed make room for those of the next; two trials share the GPU."""
    root = search_on_a_gpu(tmp_path, 0.5, 2, [0, 1])
    says_the_same_in_process(root, tmp_path, 0.5, 2, [0, 1])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_with_a_gpu_for_each_side(tmp_path: Path) -> None:
    """Every role in its own bundle: one in another's place would leave the attacker waiting for a whole GPU."""
    root = search_on_a_gpu(tmp_path, 2, 1, [0])
    assert {event["role"] for event in roles_of(root)} == {"defender", "attacker", "evaluator"}
