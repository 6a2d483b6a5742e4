"""A run at a URI: another machine goes on from the copy alone, at any moment at which the first one may have died."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from bucket import Bucket
from pyarrow import fs

from tsdf_ray import storage, tries
from tsdf_ray.api import play
from tsdf_ray.begun import begun_run
from tsdf_ray.errors import NotStored, TakenOver, UserError
from tsdf_ray.game.spec import all_matches
from tsdf_ray.scenario import Scenario
from tsdf_ray.store import copy as copies
from tsdf_ray.store import lease
from tsdf_ray.store.copy import Copy
from tsdf_ray.store.fetch import remote_lines
from tsdf_ray.store.finish import finish_run
from tsdf_ray.store.manifest import Manifest, round_file
from tsdf_ray.store.mirror import Mirror
from tsdf_ray.store.places import NewPlace, take_up
from tsdf_ray.store.recorder import Recorder
from tsdf_ray.store.run import Run
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.testing.rounds import made_up_materials, made_up_round
from tsdf_ray.tries import TRIES

URI = "s3://photos/runs/one"
GAME = Scenario.load("smoke", ("rounds=4", "seeds=[0, 1]", "evaluation.resamples=100"))
FIRST, SECOND = all_matches(GAME)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tries, "PAUSE", 0.001)
    monkeypatch.setattr(lease, "SETTLE", 0.0)
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(lease, "LEASE", 5.0)
    monkeypatch.setenv("TSDF_RAY_CACHE", str(tmp_path / "machine-1"))


@pytest.fixture(autouse=True)
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    made = Bucket(tmp_path / "objects")
    made.root.mkdir()
    monkeypatch.setattr(storage, "OBJECT_STORES", {"py::bucket"})
    monkeypatch.setattr(storage, "open_uri", lambda uri: (fs.PyFileSystem(made), uri.partition("://")[2]))
    return made


@pytest.fixture
def other_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """From its call on, we are on a machine that has nothing yet."""
    return lambda: monkeypatch.setenv("TSDF_RAY_CACHE", str(tmp_path / "machine-2"))


def begin() -> RunDirectory:
    return NewPlace.of(URI, GAME).create(GAME)


def rounds(run: RunDirectory, match_number: int, until: int) -> int:
    """Play a match on; the round it stood at."""
    match = (FIRST, SECOND)[match_number]
    materials = made_up_materials(match.seed)
    recorder = Recorder(run.root, Manifest(run.root / "manifest.jsonl"), run)
    standing = recorder.standing(match, materials)
    for r in range(standing.round + 1, until + 1):
        recorder.record(match, made_up_round(match, r, materials))
    return standing.round


def finish(run: RunDirectory) -> None:
    finish_run(run, GAME, Manifest(run.root / "manifest.jsonl"), "complete", 1.0)
    run.finished()


def undisturbed(folder: Path) -> bytes:
    """tables/metrics.parquet of a run in a folder."""
    run = RunDirectory.create(folder, GAME)
    for number in (0, 1):
        rounds(run, number, 4)
    finish_run(run, GAME, Manifest(run.root / "manifest.jsonl"), "complete", 1.0)
    run.close()
    return (folder / "tables" / "metrics.parquet").read_bytes()


def test_another_machine_goes_on(tmp_path: Path, bucket: Bucket, other_machine: Callable[[], None]) -> None:
    run = begin()
    rounds(run, 0, 4)
    rounds(run, 1, 3)
    run.close()
    kept = {name for name in Mirror(URI).names("checkpoints") if SECOND.id in name}
    assert kept == {round_file("checkpoints", SECOND.id, r) for r in (2, 3)}, "old ones go there as well"

    other_machine()
    run, game = take_up(URI)
    assert game == GAME
    assert "machine-2" in str(run.root)
    assert run.place == URI
    fetched = {path.relative_to(run.root).as_posix() for path in run.root.rglob("*") if path.is_file()}
    assert round_file("parts", FIRST.id, 1) in fetched
    assert round_file("perturbations", SECOND.id, 1) in fetched
    assert round_file("perturbations", FIRST.id, 1) not in fetched, "nobody needs it: the match has ended"
    assert (rounds(run, 0, 4), rounds(run, 1, 4)) == (4, 3)
    finish(run)
    run.close()
    there = bucket.root / "photos" / "runs" / "one"
    assert (there / "tables" / "metrics.parquet").read_bytes() == undisturbed(tmp_path / "plain")
    assert json.loads((there / "run.json").read_text())["status"] == "complete"
    assert not Mirror(URI).names("lines")


@pytest.mark.parametrize("lost", [round_file("parts", FIRST.id, 2), round_file("samples", FIRST.id, 2), "00001.jsonl"])
def test_a_round_is_there_only_when_its_line_is(bucket: Bucket, other_machine: Callable[[], None], lost: str) -> None:
    run = begin()
    rounds(run, 0, 1)
    bucket.failing = {lost: TRIES}
    with pytest.raises(NotStored, match="tsdf-ray resume"):
        rounds(run, 0, 2)
    assert len(remote_lines(Mirror(URI))) == 1
    assert len(Manifest(run.root / "manifest.jsonl").of(FIRST.id)) == 2, "here nothing is lost"
    run.close()
    other_machine()
    run, _ = take_up(URI)
    assert rounds(run, 0, 2) == 1
    run.close()


def test_what_could_not_be_copied_is_when_the_machine_comes_back(
    bucket: Bucket, other_machine: Callable[[], None]
) -> None:
    run = begin()
    rounds(run, 0, 1)
    bucket.failing = {"lines/00000001.jsonl": TRIES}
    with pytest.raises(NotStored):
        rounds(run, 0, 2)
    run.close()
    run, _ = take_up(URI)
    assert run.notes == ["1 round(s) that were only on this machine are in the copy now"]
    assert len(remote_lines(Mirror(URI))) == 2
    assert rounds(run, 0, 3) == 2
    run.close()
    other_machine()
    run, _ = take_up(URI)
    assert rounds(run, 0, 3) == 3
    run.close()


def test_a_machine_that_was_overtaken_takes_the_copy(
    bucket: Bucket, other_machine: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = begin()
    rounds(run, 0, 1)
    run.close()
    other_machine()
    run, _ = take_up(URI)
    rounds(run, 0, 3)
    run.close()
    monkeypatch.setenv("TSDF_RAY_CACHE", str(tmp_path / "machine-1"))
    run, _ = take_up(URI)
    assert run.notes == []
    assert rounds(run, 0, 4) == 3
    run.close()


def test_another_story_is_set_aside(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin()
    rounds(run, 0, 2)
    run.close()
    shutil.rmtree(bucket.root / "photos")
    run = begin()
    assert "was moved to" in run.notes[0]
    aside = run.root.with_name(f"{run.root.name}.old-1")
    assert len(Manifest(aside / "manifest.jsonl").entries) == 2
    rounds(run, 0, 1)
    run.close()
    shutil.rmtree(run.root)
    shutil.copytree(aside, run.root)
    run, _ = take_up(URI)
    assert rounds(run, 0, 1) == 1
    assert len(Manifest(run.root / "manifest.jsonl").entries) == 1
    run.close()


@pytest.mark.parametrize("where", ["here", "there", "both"])
def test_damage_is_mended_from_the_other_side(bucket: Bucket, where: str) -> None:
    run = begin()
    rounds(run, 0, 3)
    run.close()
    name = round_file("checkpoints", FIRST.id, 3)
    for side, path in {"here": run.root / name, "there": bucket.root / "photos/runs/one" / name}.items():
        if where in {side, "both"}:
            path.write_bytes(b"spoilt")
    run, _ = take_up(URI)
    assert rounds(run, 0, 4) == (2 if where == "both" else 3)
    run.close()


def test_one_process_at_a_time(bucket: Bucket, other_machine: Callable[[], None]) -> None:
    run = begin()
    other_machine()
    with pytest.raises(UserError, match=rf"{URI}: another process \(pid {os.getpid()}\) is writing this run"):
        take_up(URI)
    run.close()
    take_up(URI)[0].close()


def test_who_was_overtaken_copies_no_more(bucket: Bucket) -> None:
    run = begin()
    rounds(run, 0, 1)
    Mirror(URI).write("lock", json.dumps(lease.identity() | {"host": "node-3", "pid": 5}).encode())
    with pytest.raises(UserError, match=r"another process \(pid 5 on node-3\)"):
        rounds(run, 0, 2)
    assert len(remote_lines(Mirror(URI))) == 1
    run.close()


def test_who_was_overtaken_does_not_end_the_run(bucket: Bucket) -> None:
    run = begin()
    before = Mirror(URI).read("run.json")
    Mirror(URI).write("lock", json.dumps(lease.identity() | {"host": "node-3", "pid": 5}).encode())
    for end in (lambda: run.update(status="failed"), run.finished):
        with pytest.raises(TakenOver, match=r"another process \(pid 5 on node-3\)"):
            end()
    assert Mirror(URI).read("run.json") == before
    run.close()


def test_who_is_overtaken_while_files_are_copied_writes_no_line(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin()
    rounds(run, 0, 1)
    put = Copy.put

    def slowly(self: Copy, names: Iterable[str]) -> None:
        put(self, names)
        self.mirror.write("lock", json.dumps(lease.identity() | {"host": "node-3", "pid": 5}).encode())

    monkeypatch.setattr(Copy, "put", slowly)
    with pytest.raises(TakenOver):
        rounds(run, 0, 2)
    assert len(remote_lines(Mirror(URI))) == 1
    run.close()


def test_a_copy_that_was_killed_before_it_was_a_run_begins_again(bucket: Bucket) -> None:
    gone = lease.identity() | {"pid": 2**22 + 1, "start": 1.0}
    Mirror(URI).write("lock", json.dumps(gone).encode())
    Mirror(URI).write("scenario.yaml", b"half a beginning")
    assert begun_run(GAME, URI) is None
    run = begin()
    assert (Mirror(URI).read("scenario.yaml") or b"").decode() == GAME.as_yaml()
    run.close()
    Mirror("s3://photos/mine").write("scenario.yaml", b"somebody's own")
    with pytest.raises(UserError, match="is not empty"):
        NewPlace.of("s3://photos/mine", GAME)


def test_a_storage_that_does_not_answer_is_not_taken_for_an_empty_one(bucket: Bucket) -> None:
    begin().close()
    bucket.failing = {"run.json": TRIES}
    with pytest.raises(NotStored, match=r"run.json: cannot be read"):
        begun_run(GAME, URI)
    assert begun_run(GAME, URI) is not None


def test_a_first_fetch_that_broke_off_is_made_up_for(bucket: Bucket, other_machine: Callable[[], None]) -> None:
    begin().close()
    other_machine()
    bucket.failing = {"scenario.yaml": TRIES}
    with pytest.raises(NotStored):
        take_up(URI)
    run, game = take_up(URI)
    assert game == GAME
    run.close()


def test_lines_that_are_gathered_while_they_are_read(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    run, mirror = begin(), Mirror(URI)
    rounds(run, 0, 3)
    lines, names = remote_lines(mirror), mirror.names("lines")
    assert len(lines) == len(names) == 3

    def gathered(self: Mirror, folder: str = "") -> list[str]:
        (bucket.root / "photos/runs/one/manifest.jsonl").write_text("".join(lines))
        for name in names:
            (bucket.root / "photos/runs/one" / name).unlink(missing_ok=True)
        return names

    monkeypatch.setattr(Mirror, "names", gathered)
    assert remote_lines(mirror) == lines
    run.close()


def test_what_was_fetched_of_an_earlier_run_is_not_shown(bucket: Bucket) -> None:
    run = begin()
    rounds(run, 0, 4)
    finish(run)
    run.close()
    assert Run(URI).images.num_rows > 0
    shutil.rmtree(bucket.root / "photos")
    begin().close()
    with pytest.raises(UserError, match="is not there yet"):
        _ = Run(URI).images


def test_lines_are_gathered_now_and_then(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "SETTLED", 3)
    run = begin()
    rounds(run, 0, 4)
    assert len(Mirror(URI).names("lines")) == 1
    assert len(remote_lines(Mirror(URI))) == 4
    # Killed between the new manifest and the end of the single lines: what is in both counts once.
    for number, line in enumerate(remote_lines(Mirror(URI))):
        Mirror(URI).write(f"lines/{number:08d}.jsonl", line.encode())
    assert len(remote_lines(Mirror(URI))) == 4
    run.close()


def test_a_place_that_is_taken_is_refused(bucket: Bucket) -> None:
    begin().close()
    with pytest.raises(UserError, match="is a run already; go on with `tsdf-ray resume s3://photos/runs/one`"):
        NewPlace.of(URI, GAME)
    Mirror("s3://photos/two").write("holiday.jpg", b"")
    with pytest.raises(UserError, match="is not empty"):
        NewPlace.of("s3://photos/two", GAME)


def test_a_place_without_a_run_stays_as_it_was(bucket: Bucket) -> None:
    with pytest.raises(UserError, match="s3://photos/none: is not a run"):
        take_up("s3://photos/none")
    with pytest.raises(UserError, match="s3://photos/none: is not a run"):
        Run("s3://photos/none")
    assert Mirror("s3://photos").names() == []


@pytest.mark.slow
def test_a_run_is_read_without_disturbing_its_player(bucket: Bucket) -> None:
    run = begin()
    rounds(run, 0, 4)
    finish(run)
    read = Run(URI)
    assert read.path != run.root
    assert (read.status, read.place) == ("complete", URI)
    assert read.metrics.num_rows > 0
    assert read.summary["pairs"]
    page = read.report()
    assert page.read_bytes() == Mirror(URI).read("report.html")
    assert "figures/protection.png" in Mirror(URI).names("figures")
    run.close()


def test_a_search_is_not_copied() -> None:
    from tsdf_ray.api import tune

    with pytest.raises(UserError, match="a search is written to a folder"):
        tune("sweep/separation-small", URI)


def test_a_mistake_in_the_scenario_writes_nothing_there(bucket: Bucket) -> None:
    with pytest.raises(UserError):
        play("smoke", URI, changes=("faces.counts={defender: 8, attacker: 16, evaluation: 100000}",))
    assert Mirror("s3://photos").names() == []
    assert not Copy(Mirror(URI)).root.exists()
