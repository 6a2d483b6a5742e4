"""Kill -9 of a real search while it plays its baselines, and again while it plays the best once more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tsdf_ray.store.rundir import read_info
from tsdf_ray.store.trials import TrialsTable

SCENARIO = """
name: killed-search
seeds: [0]
precision: bfloat16
rounds: 2
faces: {source: sample, size: 64, counts: {defender: 8, attacker: 16, evaluation: 6}}
defenders:
  found: {kind: found, epsilon: 0.08}
  noise: {kind: noise, epsilon: 0.05}
attackers:
  mtcnn:
    collect: {photos: 8}
    prepare: {detectors: [mtcnn], crop: none, on_miss: drop}
    retrain: {mode: finetune, train: {steps: 4, batch: 4}}
evaluation: {detectors: [retinaface], decay: [0.0, 1.0], references: [], resamples: 200, samples: 2}
search:
  parameters: {defenders.noise.epsilon: {kind: uniform, low: 0.03, high: 0.08}}
  objectives: {protection: {metric: protection}, psnr: {metric: psnr}}
  trials: 2
  storage: journal
"""
RUN = "import sys; from tsdf_ray.cli import main; sys.exit(main())"


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def command(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill_when(process: subprocess.Popen[str], path: Path) -> None:
    """As soon as a round of that race is on disk."""
    while not lines(path) and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_in_its_baselines_and_in_its_replay(tmp_path: Path) -> None:
    path, out = tmp_path / "search.yaml", tmp_path / "out"
    path.write_text(SCENARIO)
    kill_when(command("tune", str(path), "--out", str(out), "--no-report"), out / "baselines" / "manifest.jsonl")
    assert read_info(out / "baselines")["status"] == "running"
    assert not (out / "trials.jsonl").exists()

    kill_when(command("resume", str(out), "--no-report"), out / "replay" / "manifest.jsonl")
    assert read_info(out / "replay")["status"] == "running"
    table, played = (out / "trials.jsonl").read_bytes(), lines(out / "replay" / "manifest.jsonl")
    assert [trial.state for trial in TrialsTable(out / "trials.jsonl").trials] == ["complete"] * 2

    process = command("resume", str(out), "--no-report")
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 0, said
    assert (out / "trials.jsonl").read_bytes() == table
    for race in ("baselines", "replay"):
        assert read_info(out / race)["status"] == "complete"
        rounds = [(line["match"], line["round"]) for line in map(json.loads, lines(out / race / "manifest.jsonl"))]
        assert len(rounds) == len(set(rounds)), "a round was played twice"
    assert lines(out / "replay" / "manifest.jsonl")[: len(played)] == played
    assert read_info(out)["status"] == "complete"
