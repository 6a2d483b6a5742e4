"""The program as Python calls; the command line is a thin skin over this file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tsdf_ray.address import cluster_address
from tsdf_ray.begun import begun_run
from tsdf_ray.errors import UserError
from tsdf_ray.files import is_uri, without_secrets
from tsdf_ray.game.control import Progress
from tsdf_ray.game.materials import load_materials
from tsdf_ray.game.needs import ready
from tsdf_ray.game.networks import networks
from tsdf_ray.game.plan import plan
from tsdf_ray.game.supply import supply_of
from tsdf_ray.generators import load_family
from tsdf_ray.judges import attackers_judge
from tsdf_ray.race import play_all
from tsdf_ray.registry import look_up
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.places import NewPlace, take_up
from tsdf_ray.store.run import Run
from tsdf_ray.store.rundir import RunDirectory


def play(
    scenario: str | Path | Scenario,
    out: str | Path | None = None,
    *,
    changes: tuple[str, ...] = (),
    executor: str = "ray",
    address: str | None = None,
    progress: Progress | None = None,
    report: bool = True,
    go_on: bool = False,
) -> Run:
    """Play every defender of a scenario against every attacker, once per seed, and report.

    `scenario` is a packaged name, a file, or a `Scenario`; `out` a folder that does not exist yet (default:
    runs/NAME-TIME), or a URI (s3://BUCKET/FOLDER, gs://, abfs://, hdfs://, file://): then the run is played in a local
    folder and copied there round by round. `changes` are `dotted.key=value`; `address` a Ray cluster (default:
    RAY_ADDRESS, else a local one). With `go_on`, `out` may be a run of the same scenario: what it lacks is played, and
    a complete one is returned as it is.

    Raises UserError before anything is written, NotStored when the disk is full or the storage fails (`resume` goes
    on), and Stopped after SIGINT or SIGTERM (when the command line's handlers are set). Matches that fail are named in
    `run.info["failed"]`.
    """
    game = _game(scenario, changes)
    if go_on:
        earlier = begun_run(game, out)
        if earlier is not None and out is not None:
            if earlier.status == "complete":
                return earlier
            resources = json.loads(game.as_json())["resources"]
            now = tuple(f"resources.{key}={json.dumps(value)}" for key, value in resources.items())
            return resume(out, changes=now, executor=executor, address=address, progress=progress, report=report)
    address = cluster_address(address, executor)
    place = NewPlace.of(out, game)
    layout = ready(game, supply_of(executor, address), plan)
    first = load_materials(game, game.seeds[0])
    # A missing or damaged file must show before anything is written.
    attackers_judge(game.judge, load_family(game.generator).attributes)
    networks(game.evaluation)
    run = place.create(game)
    return play_all(run, game, executor, address, layout, progress, report, {game.seeds[0]: first})


def tune(
    scenario: str | Path | Scenario,
    out: str | Path | None = None,
    *,
    changes: tuple[str, ...] = (),
    address: str | None = None,
    progress: Any = None,
    report: bool = True,
    loggers: Sequence[str] = (),
    go_on: bool = False,
) -> Run:
    """Search what the section `search` of a scenario says, and play the best again on people the search never saw.

    As `play`, but that with `go_on` the resources must be the same too; `loggers` are `mlflow=URI` and `wandb=PROJECT`,
    beside TensorBoard in DIR/tune. The run's `info["status"]` is `failed` when no trial could be completed.
    `progress`: see `cli/search_progress.py`.
    """
    address = cluster_address(address)
    if out is not None and is_uri(out):
        name = without_secrets(str(out))
        raise UserError(f"--out {name}: a search is written to a folder (of shared storage, where machines share it)")
    game = _game(scenario, changes)
    if go_on:
        earlier = begun_run(game, out, "search")
        if earlier is not None and out is not None:
            if _told(earlier, report):
                return earlier
            return resume(out, address=address, progress=progress, report=report, loggers=loggers)
    root = NewPlace.of(out, game).root
    engine = _engine()
    needed = engine.ready(game, address, loggers)
    run = RunDirectory.create(root, game, kind="search")
    engine.go(run, game, needed, address=address, progress=progress, report=report, loggers=loggers)
    return Run(run.root)


def _told(search: Run, report: bool) -> bool:
    """Is a search complete, and its tables and page written since? A kill may have come between."""
    written = (search.path / "search.json").exists() and search.search["status"] == search.status == "complete"
    return written and (not report or (search.path / "report.html").exists())


class _Engine(Protocol):
    """What the package `tune` offers (tune/search.py)."""

    def ready(self, game: Scenario, address: str | None, loggers: Sequence[str]) -> Any: ...
    def go(self, run: RunDirectory, game: Scenario, needed: Any, **options: Any) -> None: ...
    def report(self, root: Path) -> Path: ...


def write_report(path: str | Path) -> Path:
    """Write report.html and figures/ of a run or a search anew; returns the page. Raises UserError: no such run."""
    run = Run(path)
    if run.info.get("kind") == "search" and is_uri(path):
        raise UserError(f"{without_secrets(str(path))}: is a search; its report is made from a folder")
    return _engine().report(run.path) if run.info.get("kind") == "search" else run.report()


def _engine() -> _Engine:
    none: dict[str, _Engine] = {}
    return look_up("searches", "tune", none)


def _game(scenario: str | Path | Scenario, changes: tuple[str, ...]) -> Scenario:
    return scenario if isinstance(scenario, Scenario) else Scenario.load(scenario, changes)


def resume(
    path: str | Path,
    *,
    changes: tuple[str, ...] = (),
    executor: str = "ray",
    address: str | None = None,
    progress: Any = None,
    report: bool = True,
    loggers: Sequence[str] = (),
) -> Run:
    """Go on with a stopped, killed or failed run or search: what is finished is kept, the rest is played.

    `path` is what `play` was given as `out`. Rounds whose files were damaged are played again. The tables of a run
    equal those of an unbroken one. Raises UserError when `path` is no run, is held by another process, or its scenario
    was changed. `changes` are `resources.KEY=VALUE`, for a run that goes on on another machine: they decide no result.
    `executor` and `changes` are for runs, `loggers` for searches.
    """
    for change in changes:
        if not change.startswith("resources."):
            raise UserError(f"--set {change}: a run goes on as it began; only resources.* may change")
    address = cluster_address(address, executor)
    run, game = take_up(path)
    if run.info().get("kind") == "search":
        if changes:
            run.close()
            raise UserError(f"--set {changes[0]}: a search goes on with what it began with")
        engine = _engine()
        try:
            needed = engine.ready(game, address, loggers)
        except UserError:
            run.close()
            raise
        engine.go(run, game, needed, address=address, progress=progress, report=report, loggers=loggers)
        return Run(run.root)
    try:
        if changes:
            game = Scenario.load(run.root / "scenario.yaml", changes)
        layout = ready(game, supply_of(executor, address), plan)
    except UserError:
        run.close()
        raise
    return play_all(run, game, executor, address, layout, progress, report, {})
