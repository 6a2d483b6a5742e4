"""Kill -9 of a role's process in the middle of a step: it is built anew, and the results are those of a quiet run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from saboteur import Blow, Saboteur, events, kill, same_result, small_game, tell

from tsdf_ray import api
from tsdf_ray.store import recorder

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def test_all_roles_die_in_one_match(tmp_path: Path, unbroken: Path, ray_cluster: None) -> None:
    """Each role in the middle of a step of its own, and the evaluator while the attacker retrains."""
    blows = (
        Blow("defender", "learn", 1),
        Blow("attacker", "retrain", 1, 0.1),
        Blow("evaluator", "before", 2),
        Blow("attacker", "retrain", 2, 0.0),
    )
    saboteur = Saboteur(tmp_path / "run", *blows)
    run = api.play(small_game(), tmp_path / "run", progress=saboteur, report=False)
    assert run.status == "complete"
    assert len(set(saboteur.struck)) == len(blows)
    tell("defender, attacker, evaluator, attacker", saboteur, tmp_path / "run")
    same_result(tmp_path / "run", unbroken)
    lines = events(tmp_path / "run" / "events.jsonl")
    mended = [(line["role"], line["step"]) for line in lines if line.get("event") == "role built anew"]
    assert {role for role, _ in mended} == {"defender", "attacker", "evaluator"}
    assert any(line.get("attempt", 1) > 1 for line in lines)


@pytest.mark.slow
def test_one_worker_of_a_group_dies(tmp_path: Path, ray_cluster: None) -> None:
    """Groups of two for every role: the attacker's is built anew as a whole; the bits are those of single workers."""
    alone, groups = tmp_path / "alone", "resources.workers={defender: 2, attacker: 2, evaluator: 2}"
    api.play(small_game("micro_batch=2"), alone, executor="inprocess", report=False)
    saboteur = Saboteur(tmp_path / "run", Blow("attacker", "retrain", 1, 0.1, rank=1))
    run = api.play(small_game("micro_batch=2", groups), tmp_path / "run", progress=saboteur, report=False)
    assert run.status == "complete"
    assert len(saboteur.struck) == 1
    assert any("attacker.retrain" in note and "built anew" in note for note in saboteur.notes)
    tell("one of the attacker's two", saboteur, tmp_path / "run")
    same_result(tmp_path / "run", alone)


@pytest.mark.slow
def test_while_the_round_is_written(
    tmp_path: Path, unbroken: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that writes is the driver: a role's death meanwhile is noticed in the next round."""
    saboteur = Saboteur(tmp_path / "run")
    plain = recorder.write_tensors

    def struck(path: Path, *args: object) -> None:
        plain(path, *args)
        if not saboteur.struck:
            placed = [line for line in events(tmp_path / "run" / "events.jsonl") if line.get("event") == "role placed"]
            for line in placed:
                saboteur.struck.append(line["pid"])
                saboteur.times.append(time.time())
                kill(line["pid"])

    monkeypatch.setattr(recorder, "write_tensors", struck)
    run = api.play(small_game(), tmp_path / "run", progress=saboteur, report=False)
    assert run.status == "complete"
    assert len(saboteur.struck) == 3
    tell("all three while the round is written", saboteur, tmp_path / "run")
    same_result(tmp_path / "run", unbroken)


@pytest.mark.slow
def test_a_step_that_always_kills_ends_its_match_alone(tmp_path: Path, ray_cluster: None) -> None:
    """Three deaths in one step: a poison pill. The other match goes on."""
    slow = "defenders={tsdf: {kind: tsdf, detectors: [mtcnn], epochs: 200}, none: {kind: none}}"
    game = small_game("defenders={tsdf: {kind: found}}", slow, "rounds=1")
    saboteur = Saboteur(tmp_path / "run", Blow("defender", "learn", 1, 0.0, times=3, match="tsdf-vs-mtcnn-s0"))
    run = api.play(game, tmp_path / "run", progress=saboteur, report=False)
    assert run.status == "failed"
    assert len(saboteur.struck) == 3
    assert list(run.info["failed"]) == ["tsdf-vs-mtcnn-s0"]
    assert "learn of round 1: its process died (3 of 3)" in run.info["failed"]["tsdf-vs-mtcnn-s0"]
    assert set(run.metrics.column("defender").to_pylist()) == {"none"}


@pytest.mark.slow
def test_a_hung_step_has_a_deadline(tmp_path: Path, unbroken: Path, ray_cluster: None) -> None:
    """SIGSTOP of the attacker's process: nothing dies, nothing answers."""
    blow = Blow("attacker", "retrain", 1, 0.1, strike=lambda pid: os.kill(pid, signal.SIGSTOP))
    saboteur = Saboteur(tmp_path / "run", blow)
    run = api.play(small_game("resources.step_seconds=10"), tmp_path / "run", progress=saboteur, report=False)
    assert run.status == "complete"
    assert any("no answer in time" in note for note in saboteur.notes)
    tell("attacker stopped, limit 10 s", saboteur, tmp_path / "run")
    same_result(tmp_path / "run", unbroken)
