"""Runs a script of tests/chaos that plays one case on a cluster of its own, and prints one JSON line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
APART = ("unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
"""Before a command: it runs in namespaces of its own. All that it made or started there ends with it, kernel's word."""


@cache
def why_not_apart() -> str:
    """Why this machine makes no network namespaces for us; empty where it does."""
    missing = [program for program in ("unshare", "ip") if shutil.which(program) is None]
    if missing:
        return f"needs the program {missing[0]}"
    try_it = (
        "mount -t tmpfs none /run && ip netns add switch && ip netns add host"
        " && ip -n switch link add bridge type bridge && ip -n switch link add port type veth peer name eth0 netns host"
    )
    command = [*APART, "sh", "-c", try_it]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return f"cannot make network namespaces: {done.stderr.strip()}" if done.returncode else ""


def run_case(script: str, case: str, folder: Path, within: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A case, to its end."""
    # The checkout first: below tests/ there is a folder tsdf_ray, too.
    places = [str(TESTS.parent), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [*within, sys.executable, str(TESTS / "chaos" / script), case, str(folder)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places), "RAY_gcs_rpc_server_reconnect_timeout_s": "5"},
    )


def found_by(script: str, case: str, folder: Path, within: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a case printed; its figures are printed once more (`-s` shows them)."""
    done = run_case(script, case, folder, within)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(lines[-1])
    print(case, {key: value for key, value in found.items() if key not in {"failed", "notes"}})
    return found
