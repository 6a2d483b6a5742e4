"""`tsdf-ray tune` from beginning to end, taken up again, and its mistakes."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
import typer
import yaml
from typer.testing import CliRunner

from tsdf_ray.cli import app
from tsdf_ray.cli.outcome import show_search
from tsdf_ray.game.materials import load_materials
from tsdf_ray.jobs import SearchOutcome, outcome_in, plain_lines
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.run import Run
from tsdf_ray.store.trials import TrialsTable

TINY = """\
name: tiny
seeds: [0]
rounds: 2
precision: bfloat16
faces: {source: sample, size: 64, counts: {defender: 8, attacker: 16, evaluation: 6}}
defenders:
  tsdf:
    kind: tsdf
    epsilon: 0.08
    detectors: [retinaface]
    share: {fraction: 0.5, choice: random}
    poison: {steps: 4}
attackers:
  mtcnn:
    collect: {photos: 8}
    prepare: {detectors: [mtcnn], crop: none, on_miss: drop}
    retrain: {mode: finetune, train: {steps: 4, batch: 4}}
evaluation: {detectors: [retinaface], decay: [0.0, 1.0], references: [], resamples: 100, samples: 1}
"""
SEARCH = """\
search:
  parameters:
    defenders.tsdf.share.fraction: {kind: uniform, low: 0.0, high: 1.0}
    defenders.tsdf.tau: {kind: uniform, low: 0.01, high: 0.081}
  objectives:
    protection: {metric: protection, over: worst}
  constraints:
    visible: {metric: psnr, at_least: 20}
  sampler: {kind: random}
  trials: 2
  replay: {best: 1}
"""


# A whole search on a busy machine; alone it takes half a minute.
pytestmark = pytest.mark.timeout(600)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenario") / "tiny.yaml"
    path.write_text(TINY + SEARCH)
    return path


@pytest.fixture(scope="module")
def searched(tiny: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[Path, Any]:
    """Two trials and the replay of the better one; with the command's result."""
    out = tmp_path_factory.mktemp("tune") / "out"
    return out, invoke("tune", tiny, "--out", out)


@pytest.mark.ray
def test_a_search_from_beginning_to_end(searched: tuple[Path, Any]) -> None:
    out, result = searched
    assert result.exit_code == 0, result.output
    assert "trials: 2 complete" in result.stdout
    assert f"report: {out / 'report.html'}" in result.stdout
    # Two at once: whichever ends last.
    assert re.search(r"^2/2 trial [01]: complete; best protection: ", result.stderr, re.MULTILINE)
    assert "1 best setting(s) are in" in result.stderr
    run = Run(out)
    assert (run.status, run.info["kind"]) == ("complete", "search")
    trials = run.trials.to_pylist()
    assert [(row["number"], row["state"], row["rounds"]) for row in trials] == [(0, "complete", 2), (1, "complete", 2)]
    assert all(0 <= row["value.protection"] <= 1 for row in trials)
    assert all(row["metric.tsdf/mtcnn.psnr"] > 20 for row in trials)
    assert trials[0]["param.defenders.tsdf.tau"] != trials[1]["param.defenders.tsdf.tau"]
    assert list((out / "tune").rglob("events.out.tfevents*")), "TensorBoard by default"
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{out / 'optuna.db'}")
    assert [trial.values for trial in study.trials] == [[row["value.protection"]] for row in trials]
    assert "<html" in (out / "report.html").read_text()


@pytest.mark.ray
def test_the_best_setting_was_played_again(searched: tuple[Path, Any]) -> None:
    out, _ = searched
    trials = TrialsTable(out / "trials.jsonl").trials
    best = max(trials, key=lambda trial: trial.last.values["protection"] if trial.last else -1.0)
    (path,) = (out / "best").iterdir()
    assert path.name == f"trial_{best.number}.yaml"
    shared = Scenario.load(path).model_dump(mode="json")["defenders"]["tsdf"]
    assert shared["share"]["fraction"] == best.params["defenders.tsdf.share.fraction"]
    replay = Run(out / "replay")
    assert replay.status == "complete"
    assert replay.info["seeds"] == [1], "a fresh one"
    assert list(replay.summary["pairs"]) == [f"trial_{best.number}/mtcnn"]


@pytest.mark.ray
def test_nobody_held_out_was_seen_before_the_replay(searched: tuple[Path, Any]) -> None:
    out, _ = searched
    shown: dict[str, set[str]] = {}
    for name in ("replay", "trials/0000", "trials/0001"):
        scenario = Scenario.load(out / name / "scenario.yaml")
        splits = load_materials(scenario, scenario.seeds[0]).splits
        sets = {part: set(getattr(splits, part).ids) for part in ("defender", "attacker", "evaluation")}
        rows = pq.read_table(out / name / "tables/images.parquet")
        ids = set(filter(None, rows.column("photo").to_pylist()))
        assert ids, "rows name their photos"
        assert ids <= sets["evaluation"] | sets["attacker"], "that of the replay holds photos collected as well"
        shown[name] = sets["evaluation"] if name == "replay" else set().union(*sets.values()) | ids
    assert shown["replay"]
    assert not shown["replay"] & (shown["trials/0000"] | shown["trials/0001"])


@pytest.mark.ray
def test_a_finished_search_has_nothing_to_go_on_with(searched: tuple[Path, Any]) -> None:
    out, _ = searched
    before = (out / "trials.jsonl").read_bytes()
    rounds = {path: path.stat().st_mtime_ns for path in out.rglob("manifest.jsonl")}
    result = invoke("resume", out, "--no-report")
    assert result.exit_code == 0, result.output
    assert (out / "trials.jsonl").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("manifest.jsonl")} == rounds
    assert Run(out).status == "complete"


@pytest.mark.ray
def test_the_same_command_again_goes_on(tiny: Path, searched: tuple[Path, Any]) -> None:
    out, first = searched
    again = ("tune", tiny, "--out", out, "--no-report", "--resume", "--log-summary")
    before = (out / "run.json").read_bytes(), (out / "trials.jsonl").read_bytes()
    result = invoke(*again)
    assert result.exit_code == 0, result.output
    found = outcome_in(result.stdout)
    assert isinstance(found, SearchOutcome)
    assert found.trials == {"complete": 2}
    assert "\n".join(plain_lines(result.stdout)) == "\n".join(plain_lines(first.stdout))
    assert ((out / "run.json").read_bytes(), (out / "trials.jsonl").read_bytes()) == before, "it was complete"

    # Killed after the last trial, before anything was told.
    told = json.loads((out / "search.json").read_text())
    (out / "search.json").write_text(json.dumps(told | {"status": "stopped", "settings": []}))
    result = invoke(*again)
    assert result.exit_code == 0, result.output
    assert json.loads((out / "search.json").read_text()) == told
    assert (out / "trials.jsonl").read_bytes() == before[1]

    other = invoke(*again, "--set", "search.trials=3")
    assert other.exit_code == 2
    assert "is a search of another scenario" in other.stderr
    assert invoke("tune", tiny, "--resume").exit_code == 2, "where?"


@pytest.mark.ray
def test_the_report_can_be_written_again(searched: tuple[Path, Any]) -> None:
    out, _ = searched
    (out / "report.html").unlink()
    result = invoke("report", out)
    assert result.exit_code == 0, result.output
    assert (out / "report.html").exists()


@pytest.mark.ray
def test_a_changed_search_is_refused_with_the_difference(searched: tuple[Path, Any]) -> None:
    out, _ = searched
    path = out / "scenario.yaml"
    text = path.read_text()
    changed = yaml.safe_load(text)
    changed["search"]["trials"] = 7
    changed["search"]["parameters"]["defenders.tsdf.tau"]["high"] = 0.07
    try:
        path.write_text(yaml.safe_dump(changed))
        before = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.name != "lock"}
        result = invoke("resume", out)
        assert result.exit_code == 2
        assert "was changed since the run began" in result.stderr
        assert "search.trials: 2 -> 7" in result.stderr
        assert "search.parameters.defenders.tsdf.tau.high: 0.081 -> 0.07" in result.stderr
        assert {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.name != "lock"} == before
        changed["search"]["trials"] = 0
        path.write_text(yaml.safe_dump(changed))
        result = invoke("resume", out)
        assert result.exit_code == 2, "a change that is no scenario is a mistake too, not a bug"
        assert "search.trials" in result.stderr
    finally:
        path.write_text(text)
    assert invoke("resume", out, "--no-report").exit_code == 0, "and put back it is taken again"


def mistaken(tmp_path: Path, text: str, *more: object) -> str:
    """What is said of it; nothing is written."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    result = invoke("tune", path, "--out", tmp_path / "out", *more)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()
    return str(result.stderr)


def test_a_scenario_without_a_search(tmp_path: Path) -> None:
    said = mistaken(tmp_path, TINY)
    assert said == "error: tiny: has no section `search`, so there is nothing to tune; see docs/search.md\n"
    assert mistaken(tmp_path, TINY, "--set", "search.trials=8").startswith("error: ")


@pytest.mark.parametrize("given", ["mlflow", "mlflow=", "tensorboard=here", "=x"])
def test_a_logger_nobody_knows(tmp_path: Path, given: str) -> None:
    said = mistaken(tmp_path, TINY + SEARCH, "--log", given)
    assert said == f"error: --log {given}: write mlflow=TRACKING_URI or wandb=PROJECT\n"


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_logger_that_is_not_installed(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tune import loggers

    monkeypatch.setattr(loggers, "find_spec", lambda module: None)
    said = mistaken(tmp_path, TINY + SEARCH, "--log", f"{name}=x")
    assert said == f"error: --log {name}=x: {name} is not installed; pip install 'tsdf-ray[{name}]'\n"


MISTAKES = {
    "more GPUs than exist": (["--set", "resources.gpus_per_match=64"], ["gpus_per_match", "64 asked for"]),
    "more CPUs than exist": (["--set", "resources.cpus_per_match=1024"], ["cpus_per_match", "1024 asked for"]),
    "too few people for the trials": (["--set", "search.replay.held_out=0.999"], ["faces.held_out", "lower"]),
    "too few people for the replay": (
        ["--set", "search.replay.held_out=0.001"],
        ["evaluation", "raise faces.held_out"],
    ),
    "an earlier search that is not there": (["--set", "search.start.runs=[/nowhere]"], ["/nowhere", "run directory"]),
    "a storage that is not there": (
        ["--set", "search.start.storage=sqlite:////nowhere.db"],
        ["search.start.storage", "no such file: /nowhere.db"],
    ),
    "an unknown sampler": (["--set", "search.sampler.kind=luck"], ["search.sampler.kind", "tpe"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(tmp_path: Path, mistake: str) -> None:
    more, words = MISTAKES[mistake]
    said = mistaken(tmp_path, TINY + SEARCH, *more)
    for word in words:
        assert word in said


def ended(tmp_path: Path, states: list[tuple[str, str | None]]) -> Run:
    """A search as its command finds it at the end."""
    from tsdf_ray.store.rundir import RunDirectory
    from tune.report import write_tables

    path = tmp_path / "tiny.yaml"
    path.write_text(TINY + SEARCH)
    run = RunDirectory.create(tmp_path / "out", Scenario.load(path), kind="search")
    table = TrialsTable(run.root / "trials.jsonl")
    for state, reason in states:
        trial = table.asked({"defenders.tsdf.share.fraction": 0.5, "defenders.tsdf.tau": 0.05}, None)
        table.ended(trial.number, state, reason)  # type: ignore[arg-type]
    counts = Counter(state for state, _ in states)
    run.update(status="failed", trials=dict(counts))
    if states:
        write_tables(run.root)
    run.close()
    return Run(run.root)


def test_when_every_trial_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ended(tmp_path, [("failed", "loss is not finite"), ("failed", "loss is not finite"), ("failed", "no memory")])
    with pytest.raises(typer.Exit) as caught:
        show_search(run)
    assert caught.value.exit_code == 1
    said = capsys.readouterr()
    assert "trials: 3 failed" in said.out
    assert said.err.startswith("no trial could be completed:\n")
    assert said.err.count("loss is not finite") == 1
    assert "no memory" in said.err


def test_when_no_trial_was_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        show_search(ended(tmp_path, []))
    assert caught.value.exit_code == 1
    assert "search.seconds" in capsys.readouterr().err


@pytest.mark.ray
def test_run_json_counts_the_trials(searched: tuple[Path, Any]) -> None:
    out, _ = searched
    info = json.loads((out / "run.json").read_text())
    assert info["trials"] == {"complete": 2, "pruned": 0, "failed": 0, "running": 0}
