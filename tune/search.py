"""The search from beginning to end: baselines, trials under Ray Tune, the best again on unseen people, the report.

Registered as entry point `tsdf_ray.searches`, so that `tsdf_ray.api` can name it without importing it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial

from actors.cluster import connect
from tsdf_ray import api
from tsdf_ray.errors import Stopped, TakenOver, UserError
from tsdf_ray.game.control import Progress
from tsdf_ray.game.materials import Materials, load_materials
from tsdf_ray.game.needs import ready as enough
from tsdf_ray.game.plan import TrialPlan, trial_plan
from tsdf_ray.game.search_control import SearchBoard, SearchProgress
from tsdf_ray.game.supply import supply_of
from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search import SearchConfig
from tsdf_ray.scenario.search_trials import baseline_sides, setting_content, trial_content
from tsdf_ray.store.run import Run
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.store.trials import TrialsTable
from tune.best import replay, replay_seeds, write_best
from tune.loggers import check_loggers
from tune.report import write_search_report, write_tables
from tune.standing import standing
from tune.study import Study, open_storage
from tune.trainable import trial_scenario
from tune.trial import MatchTrial, PlayFactory
from tune.tuner import run_trials
from tune.warm import earlier_trials


@dataclass(frozen=True)
class Ready:
    """What a search needs before anything is written."""

    plan: TrialPlan
    materials: dict[int, Materials]
    """By seed of a trial."""
    earlier: tuple[FrozenTrial, ...] = ()
    """Trials of earlier searches to learn from."""


def ready(game: Scenario, address: str | None, loggers: Sequence[str] = ()) -> Ready:
    """Check all that can be checked, and load what all trials share.

    Raises UserError: no section `search`, weights or photos missing, resources that exist nowhere, an earlier search
    that cannot be read, a logger that is not installed.
    """
    if game.search is None:
        raise UserError(f"{game.name}: has no section `search`, so there is nothing to tune; see docs/search.md")
    layout = enough(game, supply_of("ray", address), trial_plan)
    check_loggers(loggers)
    earlier = tuple(earlier_trials(game.search))
    _check_replay(game)
    first = trial_scenario(game, 0, {})
    return Ready(layout, {seed: load_materials(first, seed) for seed in first.seeds}, earlier)


def _check_replay(game: Scenario) -> None:
    """Raises UserError when too few people are held out: better now than after the last trial."""
    seeds = replay_seeds(game)
    if seeds:
        scenario = setting_content(game, {}, name=f"{game.name}/replay", seeds=seeds, held_out_use="held")
        load_materials(scenario, seeds[0])


def go(
    run: RunDirectory,
    game: Scenario,
    needed: Ready,
    *,
    address: str | None,
    progress: SearchProgress | None = None,
    report: bool = True,
    loggers: Sequence[str] = (),
    play: PlayFactory = MatchTrial,
) -> None:
    """Begin a search, or go on with it, and close `run`. Raises Stopped when the user asked.

    Leaves `status` in run.json: complete, failed (no trial could be completed) or stopped.
    """
    search = game.search
    assert search is not None, "checked by ready()"
    progress = progress or SearchBoard()
    began, earlier = time.time(), float(run.info().get("seconds", 0.0))
    with closing(run):
        table = TrialsTable(run.root / "trials.jsonl")
        table.repair()
        settle(search, game.rounds, table)
        status: str | None = "failed"
        connection = None
        try:
            run.update(status="running")
            progress.begin_search(game, table, lambda: standing(search, table.trials), needed.plan.parallel)
            connection = connect(address)
            _baselines(run.root, game, address, progress, report)
            study = Study(search, table.trials, open_storage(search, run.root), list(needed.earlier))
            left = None if search.seconds is None else search.seconds - earlier
            run_trials(run, game, needed, table, study, progress, left, loggers, play)
            progress.check()
            run.check()
            for trial in table.of("running"):
                table.ended(trial.number, "pruned", "cut: search.seconds were over")
                study.tell(trial.number, "pruned", trial.last)
            if table.of("complete"):
                best = write_best(run.root, game, table)
                progress.note(f"{len(best)} best setting(s) are in {run.root / 'best'}")
                replay(run.root, game, table, address, progress.matches(), report)
                status = "complete"
        except Stopped:
            status = "stopped"
            raise
        except TakenOver:
            status = None  # the other process writes run.json, tables and the report
            raise
        finally:
            progress.end()
            # Before the figures: Ray's processes would take the processors from them.
            if connection is not None:
                connection.close()
            if status is not None:
                _end(run, table, status, earlier + time.time() - began, report)


def _end(run: RunDirectory, table: TrialsTable, status: str, seconds: float, report: bool) -> None:
    """What is written when a search ends, however it does. Raises TakenOver when it is another process's by now."""
    run.check()
    run.update(status=status, seconds=seconds, trials=_counts(table))
    if table.trials:
        write_tables(run.root)
        if report:
            write_search_report(run.root)


def settle(search: SearchConfig, rounds: int, table: TrialsTable) -> None:
    """End the trials whose last round is in the table, but not their end: the kill came between the two lines."""
    for trial in table.of("running"):
        if trial.last is not None and trial.last.round == rounds:
            names = [name for name in search.objectives if name not in trial.last.values]
            names += [name for name in search.constraints if name not in trial.last.violations]
            reason = f"not measured: {', '.join(names)}" if names else None
            table.ended(trial.number, "failed" if names else "complete", reason)


def report(root: Path) -> Path:
    """Write tables and report.html of a search anew; returns the page."""
    write_tables(root)
    return write_search_report(root)


def _counts(table: TrialsTable) -> dict[str, int]:
    return {state: len(table.of(state)) for state in ("complete", "pruned", "failed", "running")}


def _baselines(root: Path, game: Scenario, address: str | None, progress: SearchProgress, report: bool) -> None:
    """What no parameter touches, played once, beside the search and on the same photos."""
    search = game.search
    assert search is not None, "checked by ready()"
    for defenders, attackers in baseline_sides(game):
        scenario = trial_content(
            game,
            {},
            name=f"{game.name}/baselines",
            defenders=defenders,
            attackers=attackers,
            seeds=search.seeds or game.seeds,
            held_out_use="rest",
        )
        play_or_resume(scenario, root / "baselines", address, progress.matches(), report)


def play_or_resume(scenario: Scenario, root: Path, address: str | None, progress: Progress, report: bool) -> None:
    """Play a scenario into `root`, go on with it, or leave it when it is complete."""
    if not (root / "run.json").exists():
        # Killed while it was being made: nothing in it counts.
        shutil.rmtree(root, ignore_errors=True)
        api.play(scenario, root, address=address, progress=progress, report=report)
    elif Run(root).status != "complete":
        api.resume(root, address=address, progress=progress, report=report)
