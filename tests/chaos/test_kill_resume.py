"""Kill -9 of the driver at random moments, then `resume`: the tables equal those of an unbroken run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

STAGE = Path(__file__).with_name("stage.py")


def play_and_kill(executor: str, folder: Path, when: list[str]) -> None:
    command = [sys.executable, str(STAGE), executor, str(folder), *when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2600, check=False)
    trials = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(trials) == 1 + len(when), done.stderr[-2000:]
    assert trials[0]["code"] == 0, done.stderr[-2000:]
    unbroken = folder / "unbroken"
    for trial in trials[1:]:
        assert trial["code"] == 0, f"{trial}\n{done.stderr[-2000:]}"
        resumed = folder / trial["trial"]
        for name in ("images", "metrics"):
            assert pq.read_table(resumed / f"tables/{name}.parquet").equals(
                pq.read_table(unbroken / f"tables/{name}.parquet")
            ), f"{trial}: {name} differs"
        assert digests(resumed) == digests(unbroken)
    # A kill that never interrupted anything would prove nothing.
    assert any(trial["killed"] == -9 for trial in trials[1:])


def digests(run: Path) -> list[tuple[str, int, dict[str, str]]]:
    lines = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    return sorted((line["match"], line["round"], line["digests"]) for line in lines)


def moments(seed: int, count: int, lines: int = 15) -> list[str]:
    """Drawn uniformly over the events of the race (14 steps, a line for the start), and within half a second after one.

    Under Ray each of three roles also says where it sits."""
    rng = np.random.default_rng(seed)
    return [f"{rng.integers(0, lines)}+{rng.uniform(0.0, 0.5):.3f}" for _ in range(count)]


@pytest.mark.timeout(600)
def test_in_process_at_a_random_moment(tmp_path: Path) -> None:
    play_and_kill("inprocess", tmp_path, moments(1, 1))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_in_process_at_ten_random_moments(tmp_path: Path) -> None:
    play_and_kill("inprocess", tmp_path, moments(2, 10))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_at_a_random_moment(tmp_path: Path) -> None:
    play_and_kill("ray", tmp_path, moments(4, 1, 18))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2700)
def test_ray_at_twenty_random_moments(tmp_path: Path) -> None:
    play_and_kill("ray", tmp_path, moments(3, 20, 18))
