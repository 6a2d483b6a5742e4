"""`tsdf-ray submit` against a real local cluster with authentication on."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_head import LONG, SET, Head, running_head

from tsdf_ray.jobs import submission_id
from tsdf_ray.store.run import Run

SEARCH = """\
search:
  parameters: {defenders.tsdf.tau: {kind: uniform, low: 0.01, high: 0.03}}
  objectives: {protection: {metric: protection}}
  sampler: {kind: random}
  trials: 4
  parallel: 1
  replay: {best: 1}
"""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with running_head() as started:
        yield started


def call(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["tsdf-ray", *words], env=env, capture_output=True, text=True, timeout=400, check=False)


def submit(head: Head, out: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    fixed = ("smoke", "--address", head.dashboard, "--out", str(out), "--no-report")
    return call("submit", *fixed, *SET, *words, env=head.environment(**more))


def test_a_job_is_played_once_and_only_with_the_token(head: Head, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ("submit", "smoke", "--address", head.dashboard, "--out", str(out))
    without = head.environment(HOME=str(tmp_path))
    del without["RAY_AUTH_TOKEN_PATH"], without["RAY_AUTH_MODE"]
    refused = [
        (call(*command, env=without), "wants a token, and none was sent"),
        (call(*command, env={**without, "RAY_AUTH_TOKEN": "wrong"}), "refuses our token (from RAY_AUTH_TOKEN)"),
    ]
    for done, words in refused:
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert "RAY_AUTH_TOKEN_PATH" in done.stderr
        assert "Traceback" not in done.stderr
    assert not out.exists()

    # Our own address counts, whatever the environment says; a token is sent although nobody set RAY_AUTH_MODE.
    environment = head.environment(RAY_ADDRESS="http://127.0.0.1:1")
    del environment["RAY_AUTH_MODE"]
    first = call(*command, *SET, "--no-report", env=environment)
    assert first.returncode == 0, first.stderr
    assert "submitted" in first.stderr
    assert "tsdf-vs-mtcnn-s0: round 2/2" in first.stderr
    assert f"run: {out}" in first.stdout
    assert "tsdf/mtcnn" in first.stdout
    run = Run(out)
    assert run.status == "complete"
    before = (out / "run.json").read_bytes()

    second = submit(head, out)
    assert second.returncode == 0, second.stderr
    assert "has ended before (succeeded)" in second.stderr
    assert second.stdout == first.stdout
    assert (out / "run.json").read_bytes() == before


@pytest.mark.slow
def test_whoever_waits_may_leave_and_the_job_can_be_stopped_and_taken_up(head: Head, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["tsdf-ray", "submit", "smoke", "--address", head.dashboard, "--out", str(out), "--no-report", *SET, *LONG]
    waiting = subprocess.Popen(words, env=head.environment(), stdout=-1, stderr=-1, text=True)
    until = time.monotonic() + 240
    while not ((out / "manifest.jsonl").exists() and (out / "manifest.jsonl").read_bytes()):
        assert time.monotonic() < until
        time.sleep(0.2)
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=120)
    assert waiting.returncode == 130
    assert "goes on; the same command waits for it again" in said
    assert "Traceback" not in said
    name = said.split("job ")[1].split(":")[0]
    attached = submit(head, out, *LONG, "--no-wait")
    assert "is there already (running)" in attached.stderr

    stopped = subprocess.run(
        ["ray", "job", "stop", "--address", head.dashboard, name],
        env=head.environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert stopped.returncode == 0, stopped.stderr
    shown = submit(head, out, *LONG)
    assert shown.returncode == 143, shown.stderr
    assert "--again goes on with its run" in shown.stderr
    # SIGTERM let the driver save its work, for Ray gave it the time.
    assert Run(out).status == "stopped"
    rounds = len((out / "manifest.jsonl").read_text().splitlines())
    assert 0 < rounds < 12

    # Another scenario may not go on with it, and the mistake is told from here.
    other = submit(head, out, "--set", "rounds=3")
    assert other.returncode == 2
    assert "is a run of another scenario" in other.stderr

    again = submit(head, out, *LONG, "--again", "--no-wait")
    assert again.returncode == 0, again.stderr
    assert f"job {name}-2: submitted" in again.stderr
    until = time.monotonic() + 240
    while len((out / "manifest.jsonl").read_text().splitlines()) <= rounds:
        assert time.monotonic() < until
        time.sleep(0.2)
    first = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["round"] for line in first] == list(range(1, len(first) + 1))
    subprocess.run(["ray", "job", "stop", "--address", head.dashboard, f"{name}-2"], env=head.environment(), check=True)


@pytest.mark.slow
def test_a_search_is_a_job_that_can_be_stopped_and_taken_up(head: Head, tmp_path: Path) -> None:
    out, file = tmp_path / "run", tmp_path / "mine.yaml"
    file.write_text((Path(__file__).resolve().parents[2] / "scenarios" / "smoke.yaml").read_text() + SEARCH)
    fixed = ["submit", str(file), "--address", head.dashboard, "--out", str(out), "--no-report", *SET]
    waiting = subprocess.Popen(["tsdf-ray", *fixed], env=head.environment(), stdout=-1, stderr=-1, text=True)
    until = time.monotonic() + 240
    while '"ended"' not in ((out / "trials.jsonl").read_text() if (out / "trials.jsonl").exists() else ""):
        assert waiting.poll() is None, waiting.communicate()
        assert time.monotonic() < until
        time.sleep(0.2)
    name = submission_id(Run(out).info["digest"], str(out))
    subprocess.run(["ray", "job", "stop", "--address", head.dashboard, name], env=head.environment(), check=True)
    _, said = waiting.communicate(timeout=240)
    assert waiting.returncode == 143, said
    assert f"job {name}: submitted (a search: up to 4 trials" in said
    assert "1/4 trial 0: complete; best protection" in said
    assert Run(out).status == "stopped"
    kept = (out / "trials.jsonl").read_text()

    done = call(*fixed, "--again", env=head.environment())
    assert done.returncode == 0, done.stderr
    assert f"job {name}-2: submitted" in done.stderr
    assert "4/4 trial 3: complete" in done.stderr
    assert "trials: 4 complete" in done.stdout
    assert f"search: {out}" in done.stdout
    assert (out / "trials.jsonl").read_text().startswith(kept), "what had ended was not played again"
    assert Run(out).status == "complete"
    # Trials were played by processes of this cluster, of both jobs.
    logs = [path.read_text(errors="replace") for path in head.folder.glob("ray/session_2*/logs/worker-*.out")]
    assert sum(":actor_name:TrialTrainable" in log for log in logs) == 2

    again = call(*fixed, env=head.environment())
    assert again.returncode == 0, again.stderr
    assert f"job {name}-2: has ended before (succeeded)" in again.stderr
    assert again.stdout == done.stdout


@pytest.mark.slow
def test_a_file_of_the_users_travels_alone(head: Head, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    file = tmp_path / "here" / "mine.yaml"
    file.write_text((Path(__file__).resolve().parents[2] / "scenarios" / "smoke.yaml").read_text())
    (tmp_path / "here" / "private.txt").write_text("not for the cluster")
    out = tmp_path / "run"
    command = ["submit", str(file), "--address", head.dashboard, "--out", str(out), "--no-report", *SET]
    done = call(*command, "--set", "rounds=1", env=head.environment())
    assert done.returncode == 0, done.stderr
    sent: list[Any] = [path.name for path in head.folder.rglob("*.*") if path.name in {"private.txt", "scenario.yaml"}]
    assert "scenario.yaml" in sent
    assert "private.txt" not in sent
    assert Run(out).status == "complete"


@pytest.mark.slow
def test_commands_join_by_ray_address(head: Head, tmp_path: Path) -> None:
    environment = head.environment(RAY_ADDRESS=head.address)
    del environment["RAY_AUTH_MODE"]
    nodes = call("nodes", env=environment)
    assert nodes.returncode == 0, nodes.stderr
    assert "1 node(s): 2 CPUs" in nodes.stdout
    late = call("nodes", "--wait", "2", "--timeout", "2", env=environment)
    assert late.returncode == 2
    assert "1 of 2 nodes are there" in late.stderr
    played = call("play", "smoke", "--out", str(tmp_path / "run"), "--no-report", *SET, env=environment)
    assert played.returncode == 0, played.stderr
    refused = call("play", "smoke", "--out", str(tmp_path / "no"), env={**environment, "RAY_AUTH_TOKEN": "wrong"})
    assert refused.returncode == 2
    assert "refuses our token" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "no").exists()
