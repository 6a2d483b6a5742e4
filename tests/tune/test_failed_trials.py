"""Trials that fail: the reason is kept, the others go on, and a search without any complete trial ends with 1; and a
search that another process took over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_scenario import tiny_scenario
from typer.testing import CliRunner

from tsdf_ray.cli import app
from tsdf_ray.store import lease
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.store.trials import TrialsTable

NOTHING = 0.0005
"""An intensity that 8 bits per channel round away: the photos stay as they are, and PSNR is infinite."""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    """A search of intensity of noise, and of the attacker's learning rate."""
    search = f"""\
search:
  parameters:
    defenders.c.epsilon: {{kind: choice, values: [{NOTHING}, 0.05]}}
    attackers.b.retrain.train.learning_rate: {{kind: choice, values: [0.001, 1.0]}}
  objectives: {{psnr: {{metric: psnr}}}}
  scheduler: {{kind: asha, reduction: 2}}
  sampler: {{kind: random}}
  trials: 2
  replay: {{seeds: []}}
"""
    return tiny_scenario(tmp_path, "{c: {kind: noise}}", steps=2, rounds=2, more=search)


def tune(scenario: Path, out: Path, points: list[tuple[float, float]]) -> Any:
    """The command, playing these intensities and learning rates."""
    start = {f"p{i}": f"{{defenders.c.epsilon: {a}, {RATE}: {b}}}" for i, (a, b) in enumerate(points)}
    text = "{" + ", ".join(f"{name}: {point}" for name, point in start.items()) + "}"
    changes = [f"search.start.points={text}", f"search.trials={len(points)}"]
    options = [part for change in changes for part in ("--set", change)]
    return CliRunner().invoke(app, ["tune", str(scenario), "--out", str(out), "--no-report", *options])


RATE = "attackers.b.retrain.train.learning_rate"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(240)
def test_every_trial_fails(scenario: Path, tmp_path: Path) -> None:
    result = tune(scenario, tmp_path / "out", [(NOTHING, 0.001), (NOTHING, 1.0)])
    assert result.exit_code == 1, result.output
    assert "no trial could be completed" in result.stderr
    assert "the images are identical: PSNR is infinite" in result.stderr
    assert "Traceback" not in result.stderr
    table = TrialsTable(tmp_path / "out" / "trials.jsonl")
    assert [trial.state for trial in table.trials] == ["failed", "failed"]
    assert all(len(trial.rounds) == 2 for trial in table.trials), "what could be measured is kept"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(240)
def test_the_others_go_on(scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tune(scenario, tmp_path / "out", [(NOTHING, 0.001), (0.05, 0.001)])
    assert result.exit_code == 0, result.output
    failed, complete = TrialsTable(tmp_path / "out" / "trials.jsonl").trials
    assert failed.state == "failed"
    assert failed.reason is not None
    assert failed.reason.startswith("not measured: psnr: c/b: ")
    assert complete.state == "complete"
    assert complete.last is not None
    assert complete.last.values["psnr"] > 20


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(240)
def test_who_was_overtaken_leaves_the_search_to_the_other(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, check = tmp_path / "out", RunDirectory.check

    def overtaken(self: RunDirectory) -> None:
        if self.root == out and TrialsTable(out / "trials.jsonl").trials:
            (out / "lock").write_text(json.dumps(lease.identity() | {"host": "node-3", "pid": 5}))
        check(self)

    monkeypatch.setattr(RunDirectory, "check", overtaken)
    result = tune(scenario, out, [(0.05, 0.001), (NOTHING, 0.001)])
    assert result.exit_code == 2
    assert "another process (pid 5 on node-3)" in result.output
    assert json.loads((out / "run.json").read_text())["status"] == "running"
    assert not (out / "tables").exists()
    assert json.loads((out / "lock").read_text())["pid"] == 5
