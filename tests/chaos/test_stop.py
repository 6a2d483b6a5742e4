"""SIGTERM, as a scheduler sends it before it takes a machine away: exit code 143 soon after, nothing half written, and
`resume` goes on to the tables of an undisturbed run."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from chaos_commands import assert_equal, ended, half_written, play, resume, resume_here, status, steps, wait_until

from tsdf_ray.store.fetch import remote_lines
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.mirror import Mirror

SECONDS = 120.0
"""A step of this race takes about one on a free machine."""


def check_stopped(root: Path, code: int, said: str, began: float) -> None:
    assert code == 143, said
    assert time.monotonic() - began < SECONDS
    assert "Traceback" not in said
    assert "tsdf-ray resume" in said
    assert status(root) == "stopped"
    assert half_written(root) == []
    assert not [
        path.name
        for entry in Manifest(root / "manifest.jsonl").entries
        for path in (root / name for name in entry.files)
        if not path.exists() and "checkpoints" not in path.parts
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("after", [pytest.param(2, marks=pytest.mark.slow), 9])
def test_in_the_middle_of_a_step(whole: Path, tmp_path: Path, after: int) -> None:
    root = tmp_path / "run"
    process = play(root)
    wait_until(process, lambda: steps(root) >= after)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    check_stopped(root, *ended(process), began)
    resume_here(root)
    assert_equal(root, whole)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("after", [3, 8])
def test_in_the_middle_of_a_step_of_ray(whole: Path, tmp_path: Path, after: int) -> None:
    root = tmp_path / "run"
    process = play(root, "ray")
    wait_until(process, lambda: steps(root) >= after)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    check_stopped(root, *ended(process), began)
    code, said = ended(resume(root, "ray"))
    assert code == 0, said
    assert_equal(root, whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_while_a_round_is_recorded_and_copied(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes as soon as the first file of a round is in the copy; the copy is whole all the same."""
    monkeypatch.setenv("TSDF_RAY_CACHE", str(tmp_path / "cache"))
    there, uri = tmp_path / "there", f"file://{tmp_path}/there"
    process = play(uri)
    wait_until(process, (there / "parts").exists)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, said = ended(process)
    assert code == 143, said
    assert time.monotonic() - began < SECONDS
    assert half_written(tmp_path) == []
    assert len(remote_lines(Mirror(uri))) == 1, "the round was recorded to its end"
    (tmp_path / "cache").rename(tmp_path / "lost")  # and this machine goes
    resume_here(uri)
    assert_equal(there, whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_taken_up_by_two_at_once(whole: Path, tmp_path: Path) -> None:
    """The lock of a process killed with -9 is no obstacle; of two that follow exactly one plays."""
    root = tmp_path / "run"
    process = play(root)
    wait_until(process, lambda: len(Manifest(root / "manifest.jsonl").entries) == 1)
    process.kill()
    process.communicate()
    both = [resume(root), resume(root)]
    results = sorted((ended(each) for each in both), key=lambda result: result[0])
    assert [code for code, _ in results] == [0, 2], results
    assert f"taken over from process {process.pid}" in results[0][1]
    assert f"error: {root}: another process" in results[1][1]
    rounds = [entry.round for entry in Manifest(root / "manifest.jsonl").entries]
    assert rounds == [1, 2], "no round was played twice"
    assert_equal(root, whole)
