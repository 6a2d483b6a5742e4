"""The command line in processes of their own, on a small race: what the chaos tests share."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from tsdf_ray import api

RACE = (
    "faces.counts={defender: 8, attacker: 16, evaluation: 6}",
    "attackers.mtcnn.collect={photos: 8, pool: cumulative}",
    "attackers.mtcnn.retrain.train={steps: 4, batch: 4}",
)
RUN = "import sys; from tsdf_ray.cli import main; sys.exit(main())"


def command(*words: str, before: str = "") -> subprocess.Popen[str]:
    """`tsdf-ray WORDS`; `before` is Python that runs first in the process."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{before}\n{RUN}", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def play(out: str | Path, executor: str = "inprocess", before: str = "") -> subprocess.Popen[str]:
    """The small race."""
    changes = [word for change in RACE for word in ("--set", change)]
    return command("play", "smoke", "--out", str(out), "--executor", executor, "--no-report", *changes, before=before)


def resume(out: str | Path, executor: str = "inprocess") -> subprocess.Popen[str]:
    """And on."""
    return command("resume", str(out), "--executor", executor, "--no-report")


def resume_here(out: str | Path) -> None:
    """And on, in this process: it has imported everything."""
    assert api.resume(out, executor="inprocess", report=False).status == "complete"


def ended(process: subprocess.Popen[str], seconds: float = 500) -> tuple[int, str]:
    """Exit code, and what it said."""
    said = process.communicate(timeout=seconds)[0]
    return process.returncode, said


def wait_until(process: subprocess.Popen[str], there: Callable[[], bool]) -> None:
    """While the process lives."""
    while not there():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def steps(root: Path) -> int:
    """Finished steps."""
    path = root / "events.jsonl"
    return sum('"step"' in line for line in path.read_text().splitlines()) if path.exists() else 0


def status(root: Path) -> str:
    """As run.json has it."""
    return str(json.loads((root / "run.json").read_text())["status"])


def assert_equal(root: Path, whole: Path) -> None:
    """The tables of two runs."""
    assert status(root) == "complete"
    for name in ("images", "metrics"):
        one, other = (pq.read_table(each / "tables" / f"{name}.parquet") for each in (root, whole))
        assert one.equals(other), f"{name} differs"


def half_written(root: Path) -> list[Path]:
    """Files under way."""
    return [path for path in root.rglob("*") if ".part" in path.name]
