"""The program as Python calls; the command line is a thin skin over this file."""

from __future__ import annotations

import datetime
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tsdf_ray.errors import MatchFailed, Stopped, UserError
from tsdf_ray.game.control import Progress, Quiet
from tsdf_ray.game.executor import Executor, StepEvent, make_executor
from tsdf_ray.game.match import Table, play_match
from tsdf_ray.game.materials import Materials, load_materials
from tsdf_ray.game.needs import ready
from tsdf_ray.game.networks import networks
from tsdf_ray.game.plan import plan
from tsdf_ray.game.spec import MatchSpec, all_matches
from tsdf_ray.game.supply import supply_of
from tsdf_ray.generators import load_family
from tsdf_ray.judges import attackers_judge
from tsdf_ray.registry import look_up
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.finish import finish_run
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.recorder import Recorder
from tsdf_ray.store.run import Run
from tsdf_ray.store.rundir import RunDirectory, check_new

MOST_THREADS = 1024
"""Matches side by side at most: each has a thread of this process, which waits."""


def play(
    scenario: str | Path | Scenario,
    out: str | Path | None = None,
    *,
    changes: tuple[str, ...] = (),
    executor: str = "ray",
    address: str | None = None,
    progress: Progress | None = None,
    report: bool = True,
) -> Run:
    """Play every defender of a scenario against every attacker, once per seed, and report.

    `scenario` is a packaged name, a file, or a `Scenario`; `out` a folder that does not exist yet (default:
    runs/NAME-TIME); `changes` are `dotted.key=value`. Raises UserError before anything is written, and Stopped after
    SIGINT or SIGTERM (when the command line's handlers are set). Matches that fail are named in `run.info["failed"]`.
    """
    game, root = _begin(scenario, out, changes)
    layout = ready(game, supply_of(executor, address), plan)
    first = load_materials(game, game.seeds[0])
    # A missing or damaged file must show before anything is written.
    attackers_judge(game.judge, load_family(game.generator).attributes)
    networks(game.evaluation)
    run = RunDirectory.create(root, game)
    return _play_all(run, game, executor, address, layout, progress, report, {game.seeds[0]: first})


def tune(
    scenario: str | Path | Scenario,
    out: str | Path | None = None,
    *,
    changes: tuple[str, ...] = (),
    address: str | None = None,
    progress: Any = None,
    report: bool = True,
    loggers: Sequence[str] = (),
) -> Run:
    """Search what the section `search` of a scenario says, and play the best again on people the search never saw.

    As `play`; `loggers` are `mlflow=URI` and `wandb=PROJECT`, beside TensorBoard in DIR/tune. The run's
    `info["status"]` is `failed` when no trial could be completed. `progress`: see `cli/search_progress.py`.
    """
    game, root = _begin(scenario, out, changes)
    engine = _engine()
    needed = engine.ready(game, address, loggers)
    run = RunDirectory.create(root, game, kind="search")
    engine.go(run, game, needed, address=address, progress=progress, report=report, loggers=loggers)
    return Run(run.root)


class _Engine(Protocol):
    """What the package `tune` offers (tune/search.py)."""

    def ready(self, game: Scenario, address: str | None, loggers: Sequence[str]) -> Any: ...
    def go(self, run: RunDirectory, game: Scenario, needed: Any, **options: Any) -> None: ...
    def report(self, root: Path) -> Path: ...


def write_report(path: str | Path) -> Path:
    """Write report.html and figures/ of a run or a search anew; returns the page. Raises UserError: no such run."""
    run = Run(path)
    return _engine().report(run.path) if run.info.get("kind") == "search" else run.report()


def _engine() -> _Engine:
    none: dict[str, _Engine] = {}
    return look_up("searches", "tune", none)


def _begin(scenario: str | Path | Scenario, out: str | Path | None, changes: tuple[str, ...]) -> tuple[Scenario, Path]:
    """The scenario, and the folder where nothing lies yet."""
    game = scenario if isinstance(scenario, Scenario) else Scenario.load(scenario, changes)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    root = Path(out) if out is not None else Path("runs") / f"{Path(game.name).name}-{stamp}"
    check_new(root)
    return game, root


def resume(
    path: str | Path,
    *,
    executor: str = "ray",
    address: str | None = None,
    progress: Any = None,
    report: bool = True,
    loggers: Sequence[str] = (),
) -> Run:
    """Go on with a stopped, killed or failed run or search: what is finished is kept, the rest is played.

    The tables of a run equal those of an unbroken one. Raises UserError when `path` is no run, is held by another
    process, or a file it needs was changed. `executor` is for runs, `loggers` for searches.
    """
    run, game = RunDirectory.open(Path(path))
    if run.info().get("kind") == "search":
        engine = _engine()
        try:
            needed = engine.ready(game, address, loggers)
        except UserError:
            run.close()
            raise
        engine.go(run, game, needed, address=address, progress=progress, report=report, loggers=loggers)
        return Run(run.root)
    try:
        layout = ready(game, supply_of(executor, address), plan)
    except UserError:
        run.close()
        raise
    return _play_all(run, game, executor, address, layout, progress, report, {})


def _play_all(
    run: RunDirectory,
    game: Scenario,
    executor_name: str,
    address: str | None,
    layout: object,
    progress: Progress | None,
    report: bool,
    materials: dict[int, Materials],
) -> Run:
    began, earlier = time.time(), float(run.info().get("seconds", 0.0))
    control = progress or Quiet()
    manifest = Manifest(run.root / "manifest.jsonl")
    manifest.repair()
    recorder = Recorder(run.root, manifest)
    failed: dict[str, str] = {}
    status = "failed"
    try:
        run.update(status="running", failed={})
        control.begin(game, {match.id: len(manifest.of(match.id)) for match in all_matches(game)})
        executor = make_executor(executor_name, _Journal(run, control), layout, address, partial(plan, game))
        run.log({"event": "executor ready", "start": began, "end": time.time()})
        try:
            table = Table(executor, recorder, control)
            failed = _play_matches(game, table, materials, run)
        finally:
            executor.close()
        status = "failed" if failed else "complete"
    except Stopped:
        status = "stopped"
        raise
    finally:
        control.end()
        run.update(failed=failed)
        if status == "stopped":
            run.update(status=status, seconds=earlier + time.time() - began)
        elif manifest.entries or status == "complete":
            finish_run(run, game, manifest, status, earlier + time.time() - began)
            if report:
                Run(run.root).report()
        else:
            run.update(status=status, seconds=earlier + time.time() - began)
        run.close()
    return Run(run.root)


class _Journal:
    """What an executor tells: into events.jsonl, and what people want to know to the screen too."""

    def __init__(self, run: RunDirectory, control: Progress) -> None:
        self._run, self._control = run, control

    def event(self, event: StepEvent) -> None:
        self._run.event(event)

    def log(self, line: Mapping[str, Any]) -> None:
        self._run.log(line)

    def note(self, kind: str, text: str, **more: Any) -> None:
        self._run.note(kind, text, **more)
        self._control.note(text)


def _play_matches(game: Scenario, table: Table, materials: dict[int, Materials], run: RunDirectory) -> dict[str, str]:
    """All matches, `executor.parallel` at a time; a match that fails does not stop the others. Failed id -> reason."""
    failed: dict[str, str] = {}
    guard = threading.Lock()

    def materials_of(seed: int) -> Materials:
        with guard:
            if seed not in materials:
                materials.clear()
                materials[seed] = load_materials(game, seed)
                run.update(skipped=sorted({*run.info()["skipped"], *materials[seed].splits.skipped}))
            return materials[seed]

    def one(match: MatchSpec) -> None:
        try:
            play_match(match, materials_of(match.seed), table)
        except MatchFailed as error:
            failed[match.id] = str(error)
            table.control.phase(match, 0, "failed")
            run.log({"event": "match failed", "match": match.id, "reason": str(error)})

    executor: Executor = table.executor
    waiting = deque(all_matches(game))
    running: set[Future[None]] = set()
    # Threads are made as they are needed: a cluster may grow.
    with ThreadPoolExecutor(min(len(waiting), MOST_THREADS), thread_name_prefix="match") as threads:
        try:
            while waiting or running:
                while waiting and len(running) < min(executor.parallel, MOST_THREADS):
                    running.add(threads.submit(one, waiting.popleft()))
                done, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException:
            # The other matches stop at their next step; what they finished is on disk.
            table.control.ask()
            raise
    return failed
