"""Mistakes before a race: one message, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_scenario import tiny_scenario
from typer.testing import CliRunner

from tsdf_ray import race
from tsdf_ray.cli import app
from tsdf_ray.errors import MatchFailed
from tsdf_ray.game.match import play_match
from tsdf_ray.scenario import Scenario
from tsdf_ray.store import rundir
from tsdf_ray.store.run import Run
from tsdf_ray.store.rundir import RunDirectory


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    """A good one."""
    return tiny_scenario(tmp_path, "{a: {kind: none}, c: {kind: noise}}", steps=1, rounds=1)


def play(scenario: Path | str, out: Path, *more: str) -> Any:
    return CliRunner().invoke(app, ["play", str(scenario), "--out", str(out), "--executor", "inprocess", *more])


def snapshot(root: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in root.rglob("*")}


def test_a_match_that_fails_does_not_stop_the_others(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of this file as well: without a mistake the scenario is played."""

    def fragile(match: Any, materials: Any, table: Any) -> None:
        if match.defender == "a":
            raise MatchFailed("round 1: loss is not finite")
        play_match(match, materials, table)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(race, "play_match", fragile)
        result = play(scenario, out, "--no-report")
    assert result.exit_code == 1, result.output
    assert "a-vs-b-s0: round 1: loss is not finite" in result.stderr
    assert f"tsdf-ray resume {out}" in result.stderr
    assert "c-vs-b-s0: round 1/1" in result.stderr
    assert "c/b" in result.stdout
    assert Run(out).status == "failed"
    again = CliRunner().invoke(app, ["resume", str(out), "--executor", "inprocess", "--no-report"])
    assert again.exit_code == 0, again.output
    assert "a-vs-b-s0: round 1/1" in again.stderr
    assert "c-vs-b-s0" not in again.stderr, "what is finished is not played again"
    assert Run(out).status == "complete"
    assert Run(out).info["failed"] == {}


def test_when_all_matches_fail_in_the_first_round_they_are_named(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(match: Any, materials: Any, table: Any) -> None:
        raise MatchFailed("round 1: loss is not finite")

    monkeypatch.setattr(race, "play_match", broken)
    result = play(scenario, tmp_path / "run")
    assert result.exit_code == 1, result.output
    for match in ("a-vs-b-s0", "c-vs-b-s0"):
        assert f"{match}: round 1: loss is not finite" in result.stderr


MISTAKES = {
    "unknown key": (["--set", "roundz=2"], ["--set roundz=2: roundz: unknown key", "Did you mean 'rounds'"]),
    "wrong type": (["--set", "rounds=many"], ["rounds", "integer", "'many'"]),
    "out of range": (["--set", "rounds=0"], ["rounds", "greater than or equal to 1"]),
    "unknown defender": (["--set", "defenders.a.kind=shield"], ["defenders.a.kind", "'shield'", "found"]),
    "unknown detector": (["--set", "evaluation.detectors=[yolo]"], ["evaluation.detectors", "'yolo'", "mtcnn"]),
    "detector without weights": (
        ["--set", "evaluation.detectors=[retinaface, s3fd]"],
        ["s3fd: its weights are not packaged", "sfd_face.pth"],
    ),
    "weights of a detector nobody uses": (
        ["--set", "detector_weights.dsfd=mine.pth"],
        ["detector_weights.dsfd", "no player and no evaluation names this detector"],
    ),
    "detector weights that are not there": (
        ["--set", "detector_weights.retinaface=/nowhere/mine.pth"],
        ["/nowhere/mine.pth"],
    ),
    "negative epsilon": (["--set", "defenders.a.epsilon=-0.05"], ["defenders.a.epsilon", "-0.05"]),
    "more GPUs than exist": (["--set", "resources.gpus_per_match=64"], ["gpus_per_match", "64 asked for", "lower it"]),
    "more CPUs than exist": (["--set", "resources.cpus_per_match=1024"], ["cpus_per_match", "1024", "lower it"]),
    "more photos than exist": (["--set", "faces.counts.attacker=500"], ["photos asked for", "lower faces.counts"]),
    "size the generator cannot take": (["--set", "faces.size=70"], ["faces.size: 70", "multiple of 8", "try 72"]),
    "unknown generator": (["--set", "generator=no-such-weights"], ["no-such-weights"]),
    "too few photos": (["--set", "rounds=3"], ["attackers.b.collect.photos", "need 12", "lower"]),
    "unknown judge": (["--set", "judge=no-such-weights"], ["no-such-weights"]),
    "unknown executor": (["--executor", "slurm"], ["slurm", "inprocess"]),
    "address without a cluster": (["--address", "10.0.0.1:6379"], ["--address", "--executor ray"]),
    "no such photos": (["--set", "faces.path=/nowhere/at/all"], ["/nowhere/at/all"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(mistake: str, scenario: Path, tmp_path: Path) -> None:
    more, words = MISTAKES[mistake]
    before = snapshot(tmp_path)
    result = play(scenario, tmp_path / "run", *more)
    assert result.exit_code == 2, result.output
    for word in words:
        assert word in result.stderr
    assert result.stdout == ""
    assert snapshot(tmp_path) == before


def test_duplicate_key_and_empty_file(scenario: Path, tmp_path: Path) -> None:
    scenario.write_text(scenario.read_text() + "name: again\n")
    result = play(scenario, tmp_path / "run")
    assert result.exit_code == 2
    last = len(scenario.read_text().splitlines())
    assert f"{scenario}:{last}: key 'name' is given twice" in result.stderr
    scenario.write_text("")
    result = play(scenario, tmp_path / "run")
    assert result.exit_code == 2
    assert f"{scenario}: is empty" in result.stderr
    assert not (tmp_path / "run").exists()


def test_attribute_the_photos_do_not_have(scenario: Path, tmp_path: Path) -> None:
    labels = tmp_path / "photos" / "labels.csv"
    labels.write_text(labels.read_text().replace("Male", "Smiling", 1))
    result = play(scenario, tmp_path / "run")
    assert result.exit_code == 2
    assert "unknown attribute 'Male'" in result.stderr
    assert "Smiling" in result.stderr
    assert not (tmp_path / "run").exists()


def test_out_is_a_run_already(scenario: Path, tmp_path: Path) -> None:
    out = tmp_path / "a run"
    RunDirectory.create(out, Scenario.load(scenario)).close()
    before = snapshot(out)
    result = play(scenario, out)
    assert result.exit_code == 2
    assert f"`tsdf-ray resume '{out}'`" in result.stderr
    assert snapshot(out) == before


def test_out_that_cannot_be_written(scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert "is a file" in play(scenario, file).stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    assert "is not empty" in play(scenario, tmp_path / "full").stderr
    # Tests may run as root, whom no mode stops.
    monkeypatch.setattr(rundir.os, "access", lambda path, mode: False)
    result = play(scenario, tmp_path / "run")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert "choose another --out" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["resume", "report"])
def test_a_folder_that_is_no_run(command: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [command, str(tmp_path)])
    assert result.exit_code == 2
    assert "not a run directory" in result.stderr
    assert list(tmp_path.iterdir()) == []
