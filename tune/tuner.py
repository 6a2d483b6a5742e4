"""The trials of a search under Ray Tune. Tune runs and restarts processes; what is known is in the trials table."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray import tune as ray_tune
from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.stopper import Stopper

from tsdf_ray.errors import Stopped, TakenOver
from tsdf_ray.game.search_control import SearchProgress
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.store.trials import TrialsTable
from tune.loggers import make_loggers
from tune.scheduler import make_scheduler
from tune.searcher import TableSearcher
from tune.study import Study
from tune.trainable import TrialTrainable
from tune.trial import PlayFactory

if TYPE_CHECKING:
    from tune.search import Ready

RESTARTS = 3
"""How often a trial whose process died is taken up again; a setting that kills its process every time must end."""
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # ours are named in tune/loggers.py
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the command line has its own
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of a scenario mean the same everywhere
    "RAY_AIR_NEW_OUTPUT": "0",
    # A failed trial, or an objective of a later round, has nothing for the rungs: no reason to end the search.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


class Deadline(Stopper):  # type: ignore[misc]  # Ray has no types
    """Ends everything when the user asks, when another process has taken the search over, or when the time is up."""

    def __init__(self, run: RunDirectory, progress: SearchProgress, seconds: float | None) -> None:
        self._run, self._progress = run, progress
        self._end = None if seconds is None else time.monotonic() + seconds

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """A single trial is the scheduler's to stop."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its tuner for a restore that never comes."""
        return {}

    def stop_all(self) -> bool:
        """Asked after every event."""
        try:
            self._progress.check()
            self._run.check()
        except (Stopped, TakenOver):
            return True
        return self._end is not None and time.monotonic() > self._end


def run_trials(
    run: RunDirectory,
    game: Scenario,
    needed: Ready,
    table: TrialsTable,
    study: Study,
    progress: SearchProgress,
    seconds: float | None,
    loggers: Sequence[str],
    play: PlayFactory,
) -> None:
    """Play the trials that are unfinished or not yet asked for; returns when there are none, or when it has to stop."""
    search = game.search
    assert search is not None, "only a scenario with a search has trials"
    count = len(table.of("running")) + max(0, search.trials - len(table.trials))
    if count == 0 or (seconds is not None and seconds <= 0):
        return
    shared = {"root": str(run.root.resolve()), "scenario_json": game.as_json(), "materials": needed.materials}
    trainable: Any = ray_tune.with_parameters(TrialTrainable, **shared, roles=needed.plan.roles, play=play)
    bundles = [dict(bundle) for bundle in needed.plan.bundles]
    attempts = len(list((run.root / "tune").glob("attempt-*")))
    with _quiet():
        tuner = Tuner(
            ray_tune.with_resources(trainable, ray_tune.PlacementGroupFactory(bundles, strategy=needed.plan.strategy)),
            tune_config=TuneConfig(
                search_alg=TableSearcher(game, table, study, progress),
                scheduler=make_scheduler(game, table.trials),
                num_samples=count,
                max_concurrent_trials=needed.plan.parallel,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"trial-{trial.config['trial']:04d}",
            ),
            run_config=RunConfig(
                name=f"attempt-{attempts + 1}",
                storage_path=str((run.root / "tune").resolve()),
                failure_config=FailureConfig(max_failures=RESTARTS),
                callbacks=make_loggers(loggers, game),
                stop=Deadline(run, progress, seconds),
                verbose=0,
            ),
        )
        tuner.fit()


@contextmanager
def _quiet() -> Iterator[None]:
    """Tune's own lines and handlers off: the board says what there is to say."""
    before = {name: os.environ.get(name) for name in QUIET}
    levels = {name: logging.getLogger(name).level for name in ("ray.tune", "ray.air", "ray.train")}
    os.environ.update(QUIET)
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
