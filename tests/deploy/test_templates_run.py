"""Every template's commands are executed on this host: real heads, real workers, authentication on.

Names of places (HEAD_IP, /shared/runs, /runs) are filled in and the scenario is `smoke`, made small; the rest is run as
it stands.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deploy_commands as templates
import pytest
import yaml
from ray_head import LONG, SET, Head, ended, environment, free_ports, running_head, short_folder

from tsdf_ray.store.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
HOSTS, SLURM, KUBERAY = (templates.DEPLOY / name for name in ("hosts", "slurm", "kuberay"))
SMALL_NODE = ("--num-cpus=1", "--object-store-memory=100000000")
WAIT = 300


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with running_head() as started:
        yield started


def run(words: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=2 * WAIT, check=False)


def until(true: Any, what: str) -> None:
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def rounds(out: Path) -> int:
    path = out / "manifest.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_rayjob(head: Head, tmp_path: Path) -> None:
    """As KubeRay does it: the entrypoint handed in with its runtime environment, and once more after a retry."""
    job = next(yaml.safe_load_all((KUBERAY / "rayjob.yaml").read_text()))["spec"]
    entrypoint = templates.filled(job["entrypoint"].split(), **{"/runs": str(tmp_path), "quickstart": "smoke"})
    words = ["ray", "job", "submit", "--address", head.dashboard]
    words += ["--runtime-env-json", json.dumps(yaml.safe_load(job["runtimeEnvYAML"])), "--", *entrypoint, *SET]
    first = run(words, head.environment())
    assert first.returncode == 0, first.stdout + first.stderr
    found = Run(tmp_path / "smoke")
    assert found.status == "complete"
    assert run(words, head.environment()).returncode == 0
    assert Run(tmp_path / "smoke").info == found.info


def test_raycluster(head: Head, tmp_path: Path) -> None:
    words = templates.command(KUBERAY / "raycluster.yaml", "submit")
    places = {"http://127.0.0.1:8265": head.dashboard, "/runs": str(tmp_path), "quickstart": "smoke"}
    done = run([*templates.filled(words, **places), *SET], head.environment())
    assert done.returncode == 0, done.stderr
    assert "tsdf/mtcnn" in done.stdout
    assert Run(tmp_path / "smoke").status == "complete"


def ports(*names: str) -> list[str]:
    return [f"--{name}={port}" for name, port in zip(names, free_ports(len(names)), strict=True)]


AGENT = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")


def test_hosts(tmp_path: Path) -> None:
    folder = short_folder()
    token = folder / "made" / "token"
    port, dashboard = free_ports(2)
    address = f"127.0.0.1:{port}"
    env = environment(token, PORT=str(port), DASHBOARD_PORT=str(dashboard))
    started: list[subprocess.Popen[bytes]] = []

    def start(script: str, *words: str) -> None:
        with (folder / f"{script}.log").open("wb") as log:
            command = [str(HOSTS / script), *words, f"--temp-dir={folder / script[6:10]}", *ports(*AGENT), *SMALL_NODE]
            started.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True))

    try:
        refused = run([str(HOSTS / "start-worker.sh"), address], env)
        assert refused.returncode == 2
        assert "there is no token" in refused.stderr
        start("start-head.sh", "--node-ip-address=127.0.0.1", *ports("ray-client-server-port"))
        until(token.exists, "no token")
        token.chmod(0o640)
        refused = run([str(HOSTS / "start-worker.sh"), address], env)
        assert refused.returncode == 2
        assert "others may read it" in refused.stderr
        token.chmod(0o600)
        places = {"HEAD_IP:6379": address, "/shared/runs": str(tmp_path), "SCENARIO": "smoke"}
        nodes = templates.filled(templates.command(HOSTS / "start-head.sh", "nodes"), **places)
        wait = nodes.index("--wait") + 1
        alone = run([*nodes[:wait], "1", "--timeout", str(WAIT)], env)
        assert alone.returncode == 0, (folder / "start-head.sh.log").read_text()
        start("start-worker.sh", address, "--node-ip-address=127.0.0.1")
        both = run([*nodes[:wait], "2", "--timeout", str(WAIT)], env)
        assert both.returncode == 0, both.stderr + (folder / "start-worker.sh.log").read_text()
        assert "2 node(s): 2 CPUs" in both.stdout
        played = run([*templates.filled(templates.command(HOSTS / "start-head.sh", "play"), **places), *SET], env)
        assert played.returncode == 0, played.stderr
        assert Run(tmp_path / "NAME").status == "complete"
        places["http://127.0.0.1:8265"] = f"http://127.0.0.1:{dashboard}"
        submit = templates.filled(templates.command(HOSTS / "start-head.sh", "submit"), **places)
        submitted = run([*submit, *SET], env)
        assert submitted.returncode == 0, submitted.stderr
        assert "tsdf/mtcnn" in submitted.stdout
    finally:
        for process in reversed(started):
            ended(process)
        shutil.rmtree(folder, ignore_errors=True)


SRUN = """#!/bin/bash
# One task here, of whatever node was asked for; SLURM's own options are dropped.
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then tr , '\\n' <<<"$3"; else echo "$@" >>"$SCONTROL_LOG"; fi
"""


def test_slurm(tmp_path: Path) -> None:
    """Head and worker come up, the race begins; SIGTERM before the end saves it and queues the job again."""
    folder, state, out = short_folder(), tmp_path / "state", tmp_path / "run"
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    asked = tmp_path / "scontrol.log"
    agent = free_ports(6)
    options = [
        " ".join([*SMALL_NODE, *(f"--{name}={port}" for name, port in zip(AGENT, three, strict=True))])
        for three in (agent[:3], agent[3:])
    ]
    base = environment(None)
    script = SLURM / "tsdf-ray.sbatch"

    def start(number: int, *words: str, **more: str) -> subprocess.Popen[str]:
        env = base | {
            "PATH": f"{tmp_path}:{base['PATH']}", "SCONTROL_LOG": str(asked),
            "SLURM_JOB_ID": str(number), "SLURM_JOB_NODELIST": "n1,n2", "HEAD_IP": "127.0.0.1",
            "SCENARIO": "smoke", "OUT": str(out), "STATE": str(state), "TEMP": str(folder / str(number)),
            "WAIT_SECONDS": str(WAIT), "HEAD_OPTIONS": options[0], "PORT": str(free_ports(1)[0]),
            "WORKER_OPTIONS": f"{options[1]} --node-ip-address=127.0.0.1",
        } | more  # fmt: skip
        return subprocess.Popen(
            ["bash", str(script), *SET, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def log(process: subprocess.Popen[str]) -> str:
        return process.communicate(timeout=WAIT)[0]

    job = start(7001, *LONG, "--no-report")
    try:
        until(lambda: rounds(out) > 0 or job.poll() is not None, "no round was played")
        assert job.poll() is None, log(job)
        (token,) = state.iterdir()
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert len(token.read_text()) == 64
        os.kill(job.pid, signal.SIGTERM)
        said = log(job)
        assert job.returncode == 143, said
        assert "2 node(s): 2 CPUs" in said
        assert Run(out).status == "stopped"
        assert 0 < rounds(out) < 12
        assert asked.read_text() == "requeue 7001\n"
        assert list(state.iterdir()) == [], "the token outlives the job"

        # Queued again, with the same command, and let run until it has gone on.
        before = rounds(out)
        job = start(7002, *LONG, "--no-report")
        until(lambda: rounds(out) > before or job.poll() is not None, "it does not go on")
        os.kill(job.pid, signal.SIGTERM)
        assert "2 node(s)" in log(job)
        assert rounds(out) > before

        # Another scenario's run is refused, and that ends the job: no retry mends it.
        asked.unlink()
        job = start(7003, "--set", "rounds=2", "--no-report")
        said = log(job)
        assert job.returncode == 2, said
        assert "is a run of another scenario" in said
        assert not asked.exists()

        # A head that does not start, since another one has its port, is not waited for.
        with socket.create_server(("127.0.0.1", 0)) as taken:
            job = start(7004, *LONG, PORT=str(taken.getsockname()[1]))
            said = log(job)
        assert job.returncode == 1, said
        assert "the head has ended" in said
        assert not asked.exists()
        assert list(state.iterdir()) == [], "the token outlives the job"
    finally:
        if job.poll() is None:
            job.terminate()
            job.communicate(timeout=WAIT)
        shutil.rmtree(folder, ignore_errors=True)
