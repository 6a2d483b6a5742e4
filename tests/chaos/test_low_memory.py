"""Ray's own memory monitor ends workers of a node that runs out of memory, the greedy one and others beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]
SPARE, GREED = 4 << 30, 6 << 30
"""Bytes: free on the node until Ray ends workers, and what the role takes."""


@pytest.mark.skipif(
    psutil.virtual_memory().available < SPARE + 2 * GREED, reason="too little memory to run out of it safely"
)
def test_the_memory_monitor_strikes(tmp_path: Path) -> None:
    places = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("low_memory.py")), str(tmp_path), str(SPARE), str(GREED)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stderr[-3000:]
    found = json.loads(lines[-1])
    assert found["rounds"] == 2, found
    assert not found["failed"]
    halved = [note for note in found["notes"] if "micro-batches of half the size" in note]
    assert ["defender: learn: out of memory" in note for note in halved] == [True], found["notes"]
    # Ray ends the workers beside it, too: no memory is missing to them.
    assert all("before it began" in note for note in found["notes"] if note not in halved), found["notes"]
