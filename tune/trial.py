"""One trial: all matches of one setting in step, in a run directory of its own. No Ray here.

After every round the summary of all matches so far is measured. The run directory is the checkpoint: a trial that was
killed goes on after the last round that all its matches finished.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from tsdf_ray.errors import MatchFailed, UserError
from tsdf_ray.game.control import Quiet
from tsdf_ray.game.executor import make_executor
from tsdf_ray.game.match import Table, play_rounds
from tsdf_ray.game.materials import Materials
from tsdf_ray.game.plan import Plan
from tsdf_ray.game.spec import MatchSpec, all_matches
from tsdf_ray.metrics import aggregate, summarise
from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search import SearchConfig
from tsdf_ray.store.finish import finish_run
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.recorder import Recorder
from tsdf_ray.store.rundir import RunDirectory, take_lock
from tsdf_ray.store.trials import Report
from tune.analysis import report_values
from tune.outcome import Outcome

LOCK_SECONDS = 60.0
"""How long the process that held a trial before may take to die."""
BULKY = ("checkpoints", "perturbations", "samples")
"""Folders of a trial that only its own further rounds need; `best` plays the good ones again."""


class Play(Protocol):
    """One trial as its process sees it."""

    def step(self) -> Outcome:
        """Play one more round of every match, or only measure one that is on disk."""
        ...

    def close(self) -> None:
        """Leave the trial as it is."""
        ...


@dataclass(frozen=True)
class Setting:
    """What a trial is built from."""

    root: Path
    """Its run directory."""
    scenario: Scenario
    search: SearchConfig
    materials: dict[int, Materials]
    """By seed."""
    roles: Plan | None = None
    """Where the roles are Ray actors; None: they live here."""
    reported: int = 0
    """Rounds that are in the table already."""


class MatchTrial:
    """Plays the matches of a setting, one round of each at a time.

    `failed` outcomes carry the reason: a match that cannot go on, an objective that cannot be computed, or a bug, whose
    traceback is left in `error.txt`.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._reported = setting.reported
        self._run = take(setting.root, setting.scenario)
        self._manifest = Manifest(setting.root / "manifest.jsonl")
        self._manifest.repair()
        self._matches = all_matches(setting.scenario)
        self._playing: dict[str, Iterator[int]] = {}
        executor = "inprocess" if setting.roles is None else "ray"
        self._executor = make_executor(executor, self._run, setting.roles, None)
        self._table = Table(self._executor, Recorder(setting.root, self._manifest), Quiet())

    def step(self) -> Outcome:
        """See `Play`."""
        round, began = self._reported + 1, time.monotonic()
        try:
            for match in self._matches:
                # More than one round where the trial's folder has lost some that were reported.
                while len(self._manifest.of(match.id)) < round:
                    self._play_one(match)
            report, missing = self._report(round, time.monotonic() - began)
        except (MatchFailed, UserError) as error:
            return self._failed(round, str(error))
        except Exception as error:  # noqa: BLE001 - a bug ends this trial, with its traceback beside it
            (self._setting.root / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            return self._failed(round, f"{type(error).__name__}: {error} (see error.txt in its folder)")
        self._reported = round
        last = round == self._setting.scenario.rounds
        if last:
            self._finish("complete")
            if missing:
                reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
                return Outcome(round, report, f"not measured: {reasons}")
        return Outcome(round, report)

    def close(self) -> None:
        """See `Play`."""
        for playing in self._playing.values():
            playing.close()  # type: ignore[attr-defined]
        self._playing.clear()
        self._executor.close()
        self._run.close()

    def _play_one(self, match: MatchSpec) -> None:
        if match.id not in self._playing:
            self._playing[match.id] = play_rounds(match, self._setting.materials[match.seed], self._table)
        next(self._playing[match.id])
        # Actors hold what one match may take; the next match needs it.
        if self._setting.roles is not None and len(self._matches) > 1:
            self._playing.pop(match.id).close()  # type: ignore[attr-defined]

    def _report(self, round: int, seconds: float) -> tuple[Report, dict[str, str]]:
        """What is known after `round`, whether or not later rounds are on disk too."""
        scenario = self._setting.scenario
        parts = []
        for match in self._matches:
            for entry in self._manifest.of(match.id)[:round]:
                name = next(name for name in entry.files if name.startswith("parts/"))
                parts.append(pq.read_table(self._setting.root / name))
        # Values alone: intervals come with the replay.
        metrics = aggregate(pa.concat_tables(parts), 1, scenario.seeds[0])
        pairs = summarise(metrics, scenario)
        values, violations, missing = report_values(self._setting.search, pairs, round)
        return Report(round, values, violations, _latest(pairs, round), seconds), missing

    def _failed(self, round: int, reason: str) -> Outcome:
        self._finish("failed")
        return Outcome(round, failed=reason)

    def _finish(self, status: str) -> None:
        if self._manifest.entries:
            finish_run(self._run, self._setting.scenario, self._manifest, status, self._seconds())
        else:
            self._run.update(status=status)
        if status == "complete":
            for folder in BULKY:
                shutil.rmtree(self._setting.root / folder, ignore_errors=True)

    def _seconds(self) -> float:
        return time.time() - float(self._run.info().get("started", time.time()))


def _latest(pairs: dict[str, dict[str, Any]], round: int) -> dict[str, dict[str, float | None]]:
    """Every metric of every pair after a round; one per detector as `duq.NAME`."""
    found: dict[str, dict[str, float | None]] = {}
    for pair, metrics in pairs.items():
        flat: dict[str, Any] = {}
        for name, series in metrics.items():
            flat |= {f"{name}.{d}": own for d, own in series.items()} if isinstance(series, dict) else {name: series}
        cells = {name: series[round - 1] if round <= len(series) else None for name, series in flat.items()}
        found[pair] = {name: cell.get("value") if cell else None for name, cell in cells.items()}
    return found


def take(root: Path, scenario: Scenario) -> RunDirectory:
    """Make a trial's run directory, or take it up again when the process that had it is gone.

    A killed driver's processes live on for a moment; they hold what they play until they die. Raises UserError when
    that takes longer than `LOCK_SECONDS`.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            if (root / "run.json").exists():
                return RunDirectory.open(root)[0]
            if root.exists():
                # Killed while it was being made: nothing in it counts. Its maker may still be alive, so no file goes
                # before the lock is ours: two processes with a lock file each would both play.
                with take_lock(root):
                    if not (root / "run.json").exists():
                        shutil.rmtree(root)
                continue
            return RunDirectory.create(root, scenario)
        except (UserError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


PlayFactory = Callable[[Setting], Any]
"""Setting -> Play. The search plays `MatchTrial`; tests and benchmarks put another game in its place."""
