"""What the search costs over its matches: 32 trials of a null match under the whole engine, and where the time goes.

A null match takes no time at all, so all that is measured is the engine: Ray Tune, the processes of the trials, the
trials table, Optuna and its storage. Beside it the same questions in one process without Ray, as `study.optimize` would
ask them, and one real trial of the packaged smoke scenario's size, to which the engine's seconds are compared.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.tune.execution.tune_controller import TuneController
from ray.tune.logger import TBXLoggerCallback

from actors.cluster import Connection
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.store.trials import Report, TrialsTable
from tune import search as engine
from tune.outcome import Outcome
from tune.study import Study, open_storage
from tune.trainable import trial_folder, trial_scenario
from tune.trial import MatchTrial, Setting

TRIALS = 32
STORAGES = ("memory", "sqlite", "journal")
SCENARIO = """
name: bench-search
seeds: [0]
rounds: 2
faces: {source: sample, size: 64, counts: {defender: 8, attacker: 16, evaluation: 6}}
defenders:
  tsdf: {kind: tsdf, epsilon: 0.08, detectors: [retinaface], share: {fraction: 0.5, choice: random}, poison: {steps: 4}}
attackers:
  mtcnn:
    collect: {photos: 8}
    prepare: {detectors: [mtcnn], crop: none, on_miss: drop}
    retrain: {mode: finetune, train: {steps: 4, batch: 4}}
evaluation: {detectors: [retinaface], decay: [0.0, 1.0], references: [], resamples: 200, samples: 2}
search:
  parameters:
    defenders.tsdf.share.fraction: {kind: uniform, low: 0.0, high: 1.0}
    defenders.tsdf.tau: {kind: uniform, low: 0.01, high: 0.081}
    defenders.tsdf.share.choice: {kind: choice, values: [random, weakest]}
  objectives: {protection: {metric: protection}, psnr: {metric: psnr}}
  constraints: {visible: {metric: psnr, at_least: 25}}
  replay: {seeds: []}
  start: {points: {paper: {defenders.tsdf.share.fraction: 0.5}}}
"""
PAIR = "tsdf/mtcnn"


class NullMatch:
    """Takes no time; its report says when it was made, and by which process."""

    def __init__(self, setting: Setting) -> None:
        self._round = setting.reported
        self._tsdf = setting.scenario.model_dump()["defenders"]["tsdf"]

    def step(self) -> Outcome:
        """One round."""
        began, self._round = time.time(), self._round + 1
        return Outcome(self._round, report(self._tsdf["share"]["fraction"], self._tsdf["tau"], self._round, began))

    def close(self) -> None:
        """Nothing is held."""


def report(share: float, tau: float, round: int, began: float) -> Report:
    """Any values that depend on the parameters."""
    psnr = 36 - 200 * tau
    stamps = {"began": began, "ended": time.time(), "process": float(os.getpid())}
    return Report(round, {"protection": share - tau, "psnr": psnr}, {"visible": 25 - psnr}, {PAIR: stamps}, 0.0)


class Clock:
    """Seconds by name; a call inside another is the inner one's alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]

    @contextmanager
    def on(self, owner: Any, method: str, name: str) -> Iterator[None]:
        """Time every call of `owner.method`."""
        before = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            began = time.perf_counter()
            try:
                return before(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                self.seconds[name] += took - self._inner.pop()
                self._inner[-1] += took

        setattr(owner, method, timed)
        try:
            yield
        finally:
            setattr(owner, method, before)


def timed_calls(clock: Clock) -> ExitStack:
    """All that the driver does during the trials, by name."""
    stack = ExitStack()
    calls = [
        (engine, "ready", "photos and weights"),
        (engine, "connect", "Ray: start"),
        (Connection, "close", "Ray: stop"),
        (engine, "run_trials", "Tune: begin and end"),
        (engine, "open_storage", "Optuna: open storage"),
        (engine, "write_tables", "tables at the end"),
        (Study, "__init__", "Optuna: study"),
        (Study, "ask", "Optuna: ask"),
        (Study, "report", "Optuna: report, tell"),
        (Study, "tell", "Optuna: report, tell"),
        (TrialsTable, "_append", "trials table"),
        (TuneController, "step", "Tune: bookkeeping"),
        (TuneController, "checkpoint", "Tune: snapshots"),
        (TuneController, "cleanup", "Tune: stop processes"),
        (RayActorManager, "next", "waiting for processes"),
        *((TBXLoggerCallback, f"log_trial_{what}", "TensorBoard") for what in ("start", "result", "end")),
    ]
    for owner, method, name in calls:
        stack.enter_context(clock.on(owner, method, name))
    return stack


def under_the_engine(game: Scenario, folder: Path) -> None:
    """32 null trials, and where their time went."""
    clock = Clock()
    began = time.time()
    with timed_calls(clock):
        needed = engine.ready(game, None)
        run = RunDirectory.create(folder, game, kind="search")
        engine.go(run, game, needed, address=None, report=False, play=NullMatch)
    wall = time.time() - began
    trials = TrialsTable(folder / "trials.jsonl").trials
    assert [trial.state for trial in trials] == ["complete"] * TRIALS
    steps = [[report.metrics[PAIR] for report in trial.rounds] for trial in trials]
    first = min(own[0]["began"] for own in steps)
    last = max(trial.ended or 0.0 for trial in trials)
    processes = len({own[0]["process"] for own in steps})
    assert game.search is not None
    print(f"{game.search.storage}: {wall:.1f} s in all, {TRIALS / wall:.2f} trials/s")
    print(f"  before the first step {first - began:.2f} s, after the last {began + wall - last:.2f} s")
    print(
        f"  between: {last - first:.2f} s, {TRIALS / (last - first):.1f} trials/s by {processes} processes, "
        f"{(last - first) * processes / TRIALS:.3f} s per trial and process"
    )
    later = [(trial, own) for trial, own in zip(trials, steps, strict=True) if own[0]["began"] > first + 0.5]
    gaps = {
        "asked to first step": [own[0]["began"] - trial.started for trial, own in later],
        "round to round": [b["began"] - a["ended"] for own in steps for a, b in pairwise(own)],
        "last step to its line in the table": [
            (t.ended or 0) - o[-1]["ended"] for t, o in zip(trials, steps, strict=True)
        ],
    }
    for name, seconds in gaps.items():
        print(f"  {name}: median {1000 * statistics.median(seconds or [0.0]):.1f} ms")
    for name, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        print(f"    {name:<24}{seconds:7.2f} s {1000 * seconds / TRIALS:8.1f} ms per trial")
    print(f"    {'the rest':<24}{wall - sum(clock.seconds.values()):7.2f} s")
    SECONDS[game.search.storage] = (last - first) * processes / TRIALS


SECONDS: dict[str, float] = {}
"""Storage -> seconds of the engine per trial and process."""


def in_process(game: Scenario, root: Path) -> None:
    """The same questions and answers without Ray and without a table."""
    assert game.search is not None
    root.mkdir()
    study = Study(game.search, [], open_storage(game.search, root))
    began = time.perf_counter()
    for number in range(TRIALS):
        params, _ = study.ask(number, {})
        share, tau = params["defenders.tsdf.share.fraction"], params["defenders.tsdf.tau"]
        assert isinstance(share, float)
        assert isinstance(tau, float)
        for round in range(1, game.rounds + 1):
            last = report(share, tau, round, 0.0)
            study.report(number, last)
        study.tell(number, "complete", last)
    took = time.perf_counter() - began
    print(f"  in one process, ask and tell alone: {TRIALS / took:.1f} trials/s, {1000 * took / TRIALS:.1f} ms each")


def real_trial(game: Scenario, root: Path) -> float:
    """Seconds of a real trial's rounds; the second of two, when files and code are warm."""
    assert game.search is not None
    materials = engine.ready(game, None).materials
    seconds = 0.0
    for number in range(2):
        scenario = trial_scenario(game, number, {})
        trial = MatchTrial(Setting(trial_folder(root, number), scenario, game.search, materials))
        began = time.perf_counter()
        for _ in range(scenario.rounds):
            outcome = trial.step()
            assert outcome.failed is None, outcome.failed
        seconds = time.perf_counter() - began
        trial.close()
    return seconds


def main(argv: Sequence[str] = ()) -> None:
    """Print the table."""
    # The trials' processes need not find this module.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bench.yaml").write_text(SCENARIO)
        print(f"{TRIALS} trials of a null match, 2 rounds each, 2 at a time")
        for storage in STORAGES:
            changes = (f"search.storage={storage}", f"search.trials={TRIALS}", "search.parallel=2")
            game = Scenario.load(folder / "bench.yaml", changes)
            under_the_engine(game, folder / storage)
            in_process(game, folder / f"{storage}-in-process")
        seconds = real_trial(game, folder / "real")
    print(f"a real trial of the smallest size, 2 rounds: {seconds:.2f} s in its process; the engine on top of it:")
    for storage, own in SECONDS.items():
        print(f"  {storage}: {own:.3f} s, {100 * own / seconds:.1f} %")


if __name__ == "__main__":
    main()
