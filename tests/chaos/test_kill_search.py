"""Kill -9 of a search's driver, of a trial's process, of Ray's node, at random moments; then `resume`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STAGE = Path(__file__).with_name("search_stage.py")


def search_and_kill(folder: Path, count: int, *options: str) -> list[dict[str, Any]]:
    """So many kills, each as it should be; one JSON line each."""
    command = [sys.executable, str(STAGE), str(folder), "--moments", str(count), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    kills = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(kills) == count, done.stderr[-2000:]
    assert [kill for kill in kills if kill["wrong"]] == []
    # A kill that never interrupted anything would prove nothing.
    assert sum(kill["hit"] for kill in kills) >= 0.6 * count, kills
    # ASHA must have had something to stop, or its trials' states were never put to the test.
    assert any("pruned" in kill["states"] for kill in kills)
    return kills


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_driver_trial_and_node(tmp_path: Path) -> None:
    kills = search_and_kill(tmp_path, 3, "--seed", "5", "--node-seconds", "0.1")
    assert {kill["kind"] for kill in kills} == {"driver", "actor", "node"}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_moments_in_memory(tmp_path: Path) -> None:
    search_and_kill(tmp_path, 20, "--seed", "1", "--storages", "memory")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_moments_in_files(tmp_path: Path) -> None:
    search_and_kill(tmp_path, 20, "--seed", "2", "--storages", "sqlite", "journal")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_rounds_that_outlast_their_node(tmp_path: Path) -> None:
    options = ("--kinds", "node", "--node-seconds", "6", "--storages", "sqlite", "journal")
    kills = search_and_kill(tmp_path, 4, "--seed", "8", *options)
    assert any(kill["resumed"] for kill in kills)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_killed_search_asks_what_an_unbroken_one_asks(tmp_path: Path) -> None:
    """One trial at a time: then all that the sampler knows is decided by the trials before."""
    search_and_kill(tmp_path, 6, "--seed", "3", "--parallel", "1")
