"""`play --resume` begins a run, goes on with it, leaves it when it is complete, and touches nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tsdf_ray
from tsdf_ray.begun import begun_run
from tsdf_ray.errors import TakenOver, UserError
from tsdf_ray.scenario import Resources, Scenario
from tsdf_ray.store import lease
from tsdf_ray.store.rundir import RunDirectory, take_lock

GAME = Scenario.load("smoke", ("rounds=1", "faces.counts={defender: 8, attacker: 16, evaluation: 6}",
                               "attackers.mtcnn.collect={photos: 8, pool: cumulative}",
                               "attackers.mtcnn.retrain.train={steps: 4, batch: 4}"))  # fmt: skip


def test_begin_go_on_and_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    first = tsdf_ray.play(GAME, out, executor="inprocess", report=False, go_on=True)
    assert first.status == "complete"

    def never(*words: object, **options: object) -> None:
        raise AssertionError("a complete run is left as it is")

    monkeypatch.setattr("tsdf_ray.api.resume", never)
    assert tsdf_ray.play(GAME, out, executor="inprocess", report=False, go_on=True).info == first.info
    # As a killed driver leaves it.
    (out / "run.json").write_text(json.dumps(first.info | {"status": "running"}))
    with pytest.raises(AssertionError, match="left as it is"):
        tsdf_ray.play(GAME, out, executor="inprocess", report=False, go_on=True)
    monkeypatch.undo()
    before = (out / "tables" / "metrics.parquet").read_bytes()
    again = tsdf_ray.play(GAME, out, executor="inprocess", report=False, go_on=True)
    assert again.status == "complete"
    assert (out / "tables" / "metrics.parquet").read_bytes() == before
    other = Scenario.load("smoke", ("rounds=2",))
    with pytest.raises(UserError, match="is a run of another scenario"):
        tsdf_ray.play(other, out, executor="inprocess", go_on=True)
    with pytest.raises(UserError, match="is a run already"):
        tsdf_ray.play(GAME, out, executor="inprocess")


def test_other_resources_are_the_same_race(tmp_path: Path) -> None:
    """On another cluster a run goes on with what that has; nothing else may change."""
    out = tmp_path / "run"
    first = tsdf_ray.play(GAME, out, executor="inprocess", report=False)
    before = (out / "tables" / "metrics.parquet").read_bytes()
    (out / "run.json").write_text(json.dumps(first.info | {"status": "running"}))
    too_much = "resources.cpus_per_match=1000"
    with pytest.raises(UserError, match=r"resources.cpus_per_match: 1000"):
        tsdf_ray.resume(out, changes=(too_much,), executor="inprocess", report=False)
    with pytest.raises(UserError, match=r"rounds=2: a run goes on as it began; only resources"):
        tsdf_ray.resume(out, changes=("rounds=2",), executor="inprocess", report=False)
    smaller = GAME.model_copy(update={"resources": Resources(cpus_per_match=0.5)})
    again = tsdf_ray.play(smaller, out, executor="inprocess", report=False, go_on=True)
    assert again.status == "complete"
    assert (out / "tables" / "metrics.parquet").read_bytes() == before


def test_who_was_overtaken_leaves_the_end_to_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, check = tmp_path / "run", RunDirectory.check

    def overtaken(self: RunDirectory) -> None:
        (out / "lock").write_text(json.dumps(lease.identity() | {"host": "node-3", "pid": 5}))
        check(self)

    monkeypatch.setattr(RunDirectory, "check", overtaken)
    with pytest.raises(TakenOver, match=r"another process \(pid 5 on node-3\)"):
        tsdf_ray.play(GAME, out, executor="inprocess", report=False)
    assert json.loads((out / "run.json").read_text())["status"] == "running"
    assert not (out / "summary.json").exists()
    assert json.loads((out / "lock").read_text())["pid"] == 5


@pytest.mark.parametrize(
    ("manifest", "status", "words"),
    [("damaged\n", "stopped", "line 1 is damaged"), (None, "complete", "manifest.jsonl: is missing; restore the file")],
)
def test_a_damaged_manifest_is_named_every_time(tmp_path: Path, manifest: str | None, status: str, words: str) -> None:
    run = RunDirectory.create(tmp_path / "run", GAME)
    run.update(status=status)
    run.close()
    if manifest is not None:
        (tmp_path / "run" / "manifest.jsonl").write_text(manifest)
    for _ in range(2):  # the lock of the first try is given back
        with pytest.raises(UserError, match=words):
            tsdf_ray.resume(tmp_path / "run", executor="inprocess")


def test_a_damaged_record_is_no_new_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json"):
        begun_run(GAME, tmp_path)


def test_out_is_needed() -> None:
    with pytest.raises(UserError, match="--out: is empty"):
        tsdf_ray.play(GAME, "")
    with pytest.raises(UserError, match="--resume needs --out"):
        tsdf_ray.play(GAME, go_on=True)


def test_a_search_is_no_race(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"kind": "search", "digest": GAME.digest}))
    with pytest.raises(UserError, match="is a search"):
        begun_run(GAME, tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"kind": "race", "digest": GAME.digest}))
    with pytest.raises(UserError, match="is a run; go on with"):
        begun_run(GAME, tmp_path, "search")


def test_options_of_a_uri_are_not_shown(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", GAME).close()
    with pytest.raises(UserError, match=f"^file://{tmp_path}/run: is a run of another scenario"):
        begun_run(Scenario.load("smoke", ("rounds=1",)), f"file://{tmp_path}/run?key=hidden")


def test_a_search_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    game = Scenario.load("sweep/separation-small")
    RunDirectory.create(tmp_path / "run", game, kind="search").close()
    found = begun_run(game, tmp_path / "run", "search")
    assert found is not None
    assert found.info["kind"] == "search"
    for change in ("search.trials=7", "resources.cpus_per_match=0.5"):
        with pytest.raises(UserError, match="is a search of another scenario"):
            begun_run(Scenario.load("sweep/separation-small", (change,)), tmp_path / "run", "search")
    with pytest.raises(UserError, match="a search goes on with what it began with"):
        tsdf_ray.resume(tmp_path / "run", changes=("resources.cpus_per_match=0.5",))


def test_what_a_kill_left_before_there_was_a_run_is_cleared(tmp_path: Path) -> None:
    for name in ("lock", "scenario.yaml", "events.jsonl", ".run.json.123.part"):
        (tmp_path / name).write_text("")
    assert begun_run(GAME, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_anything_else_is_left_alone(tmp_path: Path) -> None:
    for name in ("lock", "scenario.yaml", "thesis.tex"):
        (tmp_path / name).write_text("")
    assert begun_run(GAME, tmp_path) is None
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / "thesis.tex").unlink()
    (tmp_path / "lock").unlink()
    assert begun_run(GAME, tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["scenario.yaml"]


def test_a_run_that_is_being_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text("")
    with take_lock(tmp_path), pytest.raises(UserError, match="another process"):
        begun_run(GAME, tmp_path)
    assert (tmp_path / "scenario.yaml").exists()
