"""Real clusters on this host with authentication on: own temporary folder, own ports, ended by their own process."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "faces.counts={defender: 8, attacker: 16, evaluation: 6}",
    "attackers.mtcnn.collect={photos: 8, pool: cumulative}",
    "attackers.mtcnn.retrain.train={steps: 4, batch: 4}",
)
"""Changes that make scenario `smoke` a matter of seconds."""
SET = tuple(word for change in SMALL for word in ("--set", change))
LONG = ("--set", "rounds=12", "--set", "faces.counts={defender: 8, attacker: 96, evaluation: 6}")
"""After `SET`: long enough to be interrupted."""


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


def environment(token: Path | None, **more: str) -> dict[str, str]:
    """For child processes: our console scripts first on PATH, this checkout, and the token (None: no token at all)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    kept |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    kept |= {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}".rstrip(":"), "RAY_USAGE_STATS_ENABLED": "0"}
    if token is not None:
        kept |= {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_AUTH_MODE": "token"}
    return kept | more


@dataclass(frozen=True)
class Head:
    """A running head."""

    address: str
    dashboard: str
    token: Path
    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Of a user who has the token."""
        return environment(self.token, **more)


def short_folder() -> Path:
    """Ray's sockets lie in it, and their paths must be short."""
    return Path(tempfile.mkdtemp(prefix="tsdf-", dir="/tmp"))


def ended(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """SIGTERM to a process we started in a session of its own, and SIGKILL to all of it when that does not help."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)


@contextmanager
def running_head(cpus: int = 2) -> Iterator[Head]:
    """A head whose jobs API answers; it wants a token."""
    folder = short_folder()
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    port, dashboard, client, agent, agent_grpc, metrics = free_ports(6)
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--temp-dir={folder / 'ray'}",
        "--node-ip-address=127.0.0.1", f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}",
        f"--dashboard-agent-grpc-port={agent_grpc}", f"--metrics-export-port={metrics}", f"--num-cpus={cpus}",
        "--object-store-memory=150000000", "--disable-usage-stats",
    ]  # fmt: skip
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(token), stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{dashboard}"
        until = time.monotonic() + 120
        while not _refuses(f"{url}/api/version"):
            assert process.poll() is None, (folder / "head.log").read_text()
            assert time.monotonic() < until, (folder / "head.log").read_text()
            time.sleep(0.2)
        yield Head(f"127.0.0.1:{port}", url, token, folder)
    finally:
        ended(process)
        shutil.rmtree(folder, ignore_errors=True)


def _refuses(url: str) -> bool:
    """Does the dashboard answer, and refuse whoever has no token?"""
    try:
        with urlopen(url, timeout=2):
            raise AssertionError(f"{url} answers without a token")
    except HTTPError as error:
        if error.code != 401:
            raise
        return True
    except (URLError, OSError):
        return False
