"""All matches of a run, from the executor's start to the summary."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from typing import Any

from tsdf_ray.errors import MatchFailed, NotStored, Stopped, TakenOver, UserError
from tsdf_ray.game.control import Progress, Quiet
from tsdf_ray.game.executor import Executor, StepEvent, make_executor
from tsdf_ray.game.match import Table, play_match
from tsdf_ray.game.materials import Materials, load_materials
from tsdf_ray.game.plan import plan
from tsdf_ray.game.spec import MatchSpec, all_matches
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.finish import finish_run
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.recorder import Recorder
from tsdf_ray.store.run import Run
from tsdf_ray.store.rundir import RunDirectory

MOST_THREADS = 1024
"""Matches side by side at most: each has a thread of this process, which waits."""


def play_all(
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
    try:
        manifest = _manifest(run)
    except UserError:
        run.close()
        raise
    recorder = Recorder(run.root, manifest, run, control.note)
    failed: dict[str, str] = {}
    status: str | None = "failed"
    try:
        for note in run.notes:
            control.note(note)
        run.update(status="running", failed={})
        control.begin(game, {match.id: len(manifest.of(match.id)) for match in all_matches(game)})
        executor = make_executor(executor_name, _Journal(run, control), layout, address, partial(plan, game))
        run.log({"event": "executor ready", "start": began, "end": time.time()})
        try:
            table = Table(executor, recorder, control)
            failed = play_matches(game, table, materials, run)
        finally:
            executor.close()
        status = "failed" if failed else "complete"
    except (Stopped, NotStored):
        status = "stopped"
        raise
    except TakenOver:
        status = None  # the other process writes run.json, tables and the report
        raise
    finally:
        control.end()
        # Closing comes whatever happens: a full disk fails these writes as well.
        with closing(run):
            if status is not None:
                _end(run, game, manifest, status, failed, earlier + time.time() - began, report)
    return Run(run.root, run.place)


def _end(
    run: RunDirectory,
    game: Scenario,
    manifest: Manifest,
    status: str,
    failed: dict[str, str],
    seconds: float,
    report: bool,
) -> None:
    """What is written when a run ends, however it does. Raises TakenOver when it is another process's by now."""
    run.check()
    run.update(failed=failed)
    if status != "stopped":
        finish_run(run, game, manifest, status, seconds)
        if report and manifest.entries:
            Run(run.root).report()
    else:
        run.update(status=status, seconds=seconds)
    run.finished()


def _manifest(run: RunDirectory) -> Manifest:
    """Its finished rounds, without a torn last line. Raises UserError when it is damaged, or gone from a whole run."""
    path = run.root / "manifest.jsonl"
    if run.info()["status"] == "complete" and not path.exists():
        raise UserError(f"{path}: is missing; restore the file from a copy, or play into a new folder")
    manifest = Manifest(path)
    manifest.repair()
    return manifest


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


def play_matches(game: Scenario, table: Table, materials: dict[int, Materials], run: RunDirectory) -> dict[str, str]:
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
