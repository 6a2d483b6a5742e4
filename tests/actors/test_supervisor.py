"""The executor on the session's cluster with roles that do nothing but misbehave: memory, groups, deadlines, slots."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray.exceptions import OwnerDiedError

from actors.executor import RayExecutor
from actors.slots import Group
from tsdf_ray.errors import MatchFailed, Stopped, UserError
from tsdf_ray.game.control import Quiet
from tsdf_ray.game.executor import InProcessExecutor, Journal, StepEvent
from tsdf_ray.game.match import Cast, Table, play_match
from tsdf_ray.game.plan import Plan, Supply, Worker
from tsdf_ray.game.spec import MatchSpec, all_matches
from tsdf_ray.game.steps import Learned
from tsdf_ray.game.supply import supply_of
from tsdf_ray.generators import Tensors
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.recorder import Recorder
from tsdf_ray.testing import null_roles
from tsdf_ray.testing.null_roles import NULL_CAST, null_materials

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]
# Actors cannot import this module: its classes travel by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Told(Journal):
    """Keeps everything."""

    def __init__(self) -> None:
        self.events: list[StepEvent] = []
        self.notes: list[str] = []
        self.placed: list[Mapping[str, Any]] = []

    def event(self, event: StepEvent) -> None:
        self.events.append(event)

    def note(self, kind: str, text: str, **more: Any) -> None:
        self.notes.append(text)

    def log(self, line: Mapping[str, Any]) -> None:
        self.placed.append(line)


def matches(*changes: str) -> list[MatchSpec]:
    return all_matches(Scenario.load("smoke", ("rounds=2", *changes)))


def small_plan(workers: int = 1, **more: Any) -> Plan:
    """One slot of one CPU, shared by three roles."""
    share = 0.2
    roles = {"defender": (Worker(share, 0.0),) * workers, "attacker": (Worker(share, 0.0),)}
    return Plan(roles | {"evaluator": (Worker(share, 0.0),)}, 1, ({"CPU": 1.0},), **more)


def play(folder: Path, executor: Any, defender: type, *changes: str) -> Manifest:
    """One match of null roles with this defender."""
    manifest = Manifest(folder / "manifest.jsonl")
    folder.mkdir(parents=True, exist_ok=True)
    cast = replace(NULL_CAST, defender=defender)
    try:
        play_match(matches(*changes)[0], null_materials(), Table(executor, Recorder(folder, manifest), Quiet(), cast))
    finally:
        executor.close()
    return manifest


class Hungry(null_roles.DefenderRole):
    """Wants more memory than there is, until micro-batches are halved."""

    enough = 1

    def __init__(self, match: MatchSpec, materials: Any, seat: Any) -> None:
        super().__init__(match, materials, seat)
        self._seat = seat

    def learn(self, round: int, generator: Tensors | None) -> Learned:
        if self._seat.halvings < self.enough:
            raise MemoryError("cannot allocate")
        return super().learn(round, generator)


class Insatiable(Hungry):
    enough = 2


Hungry.__name__ = Insatiable.__name__ = "DefenderRole"


@pytest.mark.parametrize("kind", ["inprocess", "ray"])
def test_memory_that_runs_out_halves_micro_batches_once(tmp_path: Path, ray_cluster: None, kind: str) -> None:
    def executor(told: Told) -> Any:
        return InProcessExecutor(told) if kind == "inprocess" else RayExecutor(told, small_plan(), None)

    told = Told()
    assert len(play(tmp_path / "a", executor(told), Hungry).entries) == 2
    assert [note for note in told.notes if "micro-batches of half the size" in note] == told.notes
    assert len(told.notes) == 1, "the role keeps the smaller ones for the rest of the match"
    with pytest.raises(MatchFailed, match=r"out of memory.*also with halved micro-batches.*micro_batch"):
        play(tmp_path / "b", executor(Told()), Insatiable)


class Together(null_roles.DefenderRole):
    """Says who took part; the second worker dies in the first attempt of round 2."""

    def __init__(self, match: MatchSpec, materials: Any, seat: Any) -> None:
        super().__init__(match, materials, seat)
        self._seat, self._mark = seat, Path(match.scenario.title)

    def learn(self, round: int, generator: Tensors | None) -> Learned:
        crew = self._seat.crew
        ranks = crew.gather(crew.rank)
        if round == 2 and crew.rank == 1 and not self._mark.exists():
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        crew.gather(crew.rank)
        learned = super().learn(round, generator)
        return replace(learned, digest=f"{ranks} in round {round}")


Together.__name__ = "DefenderRole"


def test_a_group_fails_and_is_built_anew_as_a_whole(tmp_path: Path, ray_cluster: None) -> None:
    told = Told()
    mark = f"title={tmp_path / 'mark'}"
    manifest = play(tmp_path / "run", RayExecutor(told, small_plan(workers=2), None), Together, mark)
    assert [entry.digests["w"] for entry in manifest.entries] == ["[0, 1] in round 1", "[0, 1] in round 2"]
    assert len(told.notes) == 1
    assert "its process died (1 of 3)" in told.notes[0]
    pids = {(line["rank"], line["pid"]) for line in told.placed if line.get("role") == "defender"}
    assert len(pids) == 4, "both workers were replaced"
    assert all(event.attempt == 1 for event in told.events if event.round == 1)


def test_a_worker_that_dies_before_its_group_has_met(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other waits for it: what both sit behind is built anew, as after the meeting."""
    struck: list[Any] = []
    plainly = Group.become

    def become(self: Group, *part: Any) -> Any:
        settling = plainly(self, *part)
        if len(self.actors) > 1 and not struck:
            struck.append(self.actors[1])
            ray.kill(self.actors[1])
        return settling

    monkeypatch.setattr(Group, "become", become)
    (tmp_path / "mark").touch()
    told, mark = Told(), f"title={tmp_path / 'mark'}"
    manifest = play(tmp_path / "run", RayExecutor(told, small_plan(workers=2), None), Together, mark)
    assert len(struck) == 1
    assert [entry.digests["w"] for entry in manifest.entries] == ["[0, 1] in round 1", "[0, 1] in round 2"]
    assert len(told.notes) == 1
    assert "its process died (1 of 3)" in told.notes[0]


@ray.remote(num_cpus=0)
def nowhere() -> None:
    raise OSError("no port is free")


def test_workers_that_cannot_meet_end_their_match(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them does the work alone."""
    plainly = Group._actor

    def astray(self: Group, worker: Worker) -> Any:
        actor = plainly(self, worker)
        actor.open = SimpleNamespace(remote=lambda size: nowhere.remote())
        return actor

    monkeypatch.setattr(Group, "_actor", astray)
    plan, told = small_plan(), Told()
    plan = replace(plan, roles=dict(plan.roles) | {"attacker": plan.roles["attacker"] * 2})
    with pytest.raises(MatchFailed, match=r"could not meet.*\(3 of 3\)"):
        play(tmp_path / "run", RayExecutor(told, plan, None), null_roles.DefenderRole)
    assert len(told.notes) == 2
    assert all(": attacker." in note for note in told.notes), "no other role is built anew for it"


class Slow(null_roles.DefenderRole):
    """Sleeps for ever in its first attempt."""

    def __init__(self, match: MatchSpec, materials: Any, seat: Any) -> None:
        super().__init__(match, materials, seat)
        self._mark = Path(match.scenario.title)

    def learn(self, round: int, generator: Tensors | None) -> Learned:
        if round == 1 and not self._mark.exists():
            self._mark.touch()
            time.sleep(1000)
        return super().learn(round, generator)


Slow.__name__ = "DefenderRole"


def test_a_step_has_a_deadline(tmp_path: Path, ray_cluster: None) -> None:
    told = Told()
    plan = small_plan(step_seconds=2.0)
    manifest = play(tmp_path / "run", RayExecutor(told, plan, None), Slow, f"title={tmp_path / 'mark'}")
    assert len(manifest.entries) == 2
    assert any("no answer in time (1 of 3)" in note for note in told.notes)
    assert [event.attempt for event in told.events if event.step == "learn"] == [2, 1]


class Reading(null_roles.EvaluatorRole):
    """Reads what it is given."""

    def read(self, round: int, given: Any) -> int:
        return len(given)

    def give(self, round: int) -> bytes:
        return b"0" * (1 << 20)


Reading.__name__ = "EvaluatorRole"


@ray.remote(num_cpus=0)
class Owner:
    """Objects die with the process that put them there."""

    def put(self, value: object) -> list[Any]:
        return [ray.put(value)]


def lost_object(value: object) -> Any:
    owner: Any = Owner.remote()  # type: ignore[attr-defined]
    (reference,) = ray.get(owner.put.remote(value))
    ray.kill(owner)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            ray.get(reference, timeout=20)
        except OwnerDiedError:
            return reference
        time.sleep(0.1)
    raise AssertionError("the owner still lives")


def test_arguments_that_are_lost_again_and_again_end_the_match(ray_cluster: None) -> None:
    told = Told()
    executor = RayExecutor(told, small_plan(), None)
    large = b"0" * (1 << 20)  # in the object store, not within the call
    given, lost = ray.put(large), lost_object(large)
    role = executor.start(Reading, matches()[0], null_materials(), lambda: None)
    assert executor.gather(executor.submit(role, "read", 1, given), lambda: None) == len(large)
    with pytest.raises(MatchFailed, match=r"evaluator\.read of round 1: its arguments were lost \(5 of 5\).*resume"):
        executor.gather(executor.submit(role, "read", 1, lost), lambda: None)
    assert [note.partition("(")[2][:6] for note in told.notes] == [f"{n} of 5" for n in range(1, 5)]
    assert executor.gather(executor.submit(role, "read", 2, given), lambda: None) == len(large), "nobody died of it"
    executor.stop(role)
    executor.close()


def test_a_result_that_is_lost_is_handed_on_from_here(ray_cluster: None) -> None:
    """Twice: the copy may be lost, too."""
    told = Told()
    executor = RayExecutor(told, small_plan(), None)
    role = executor.start(Reading, matches()[0], null_materials(), lambda: None)
    result = executor.submit(role, "give", 1)
    assert len(executor.gather(result, lambda: None)) == 1 << 20
    for losses in (1, 2):
        result.answers[0] = lost_object(b"0" * (1 << 20))
        assert executor.gather(executor.submit(role, "read", 1, result), lambda: None) == 1 << 20
        assert len(told.notes) == losses
    executor.stop(role)
    executor.close()


def test_what_is_not_there_is_waited_for_until_the_deadline(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.slots.TELL_SECONDS", 1.0)
    told = Told()
    plan = replace(small_plan(wait_seconds=2.0), bundles=({"CPU": 1.0, "GPU": 1.0},))
    with pytest.raises(UserError, match=r"wait_seconds.*1 GPU"):
        play(tmp_path / "run", RayExecutor(told, plan, None), null_roles.DefenderRole)
    assert any("waiting for resources" in note and "missing 1 GPU" in note for note in told.notes)


def test_a_wait_can_be_stopped(ray_cluster: None) -> None:
    def stop() -> None:
        raise Stopped("asked")

    executor = RayExecutor(Told(), replace(small_plan(), bundles=({"GPU": 1.0},)), None)
    with pytest.raises(Stopped):
        executor.start(null_roles.DefenderRole, matches()[0], None, stop)
    executor.close()


def test_actors_serve_match_after_match_and_nothing_stays_reserved(tmp_path: Path, ray_cluster: None) -> None:
    told = Told()
    executor = RayExecutor(told, small_plan(), None)
    manifest = Manifest(tmp_path / "manifest.jsonl")
    table = Table(executor, Recorder(tmp_path, manifest), Quiet(), Cast(*vars(NULL_CAST).values()))
    materials = null_materials()
    for match in matches("seeds=[0,1,2]"):
        play_match(match, materials, table)
    assert len(manifest.entries) == 6
    assert len({event.pid for event in told.events}) == 3, "one process per role, for all matches"
    executor.close()
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, "everything is given back"
        time.sleep(0.1)


def test_more_matches_side_by_side_once_the_cluster_has_grown(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.executor.LOOK_SECONDS", 0.0)
    asked: list[float] = []

    def replan(supply: Supply) -> Plan:
        asked.append(supply.cpus)
        if len(asked) == 3:
            raise UserError("a node has left")
        return replace(small_plan(), parallel_matches=len(asked) + 1)

    executor = RayExecutor(Told(), small_plan(), None, replan)
    assert [executor.parallel for _ in range(4)] == [2, 3, 3, 5]
    assert asked[0] == ray.cluster_resources()["CPU"]
    executor.close()


def test_a_plan_is_made_for_the_cluster_that_was_joined(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsdf_ray.game.supply.local_supply", lambda: Supply(1000.0, 8.0))
    found = supply_of("ray", None)
    assert found == Supply(2.0, 0.0, ((2.0, 0.0),))
    assert supply_of("inprocess", None).cpus == 1000
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    assert supply_of("ray", None).cpus == 1000, "one of this machine will be started"
