"""Kill -9 of a job over a collection, then the same call again: the parts equal those of an unbroken run, and those
that were finished are not computed again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from actors.collections import protect
from tsdf_ray.faces import decode
from tsdf_ray.faces.sample import SAMPLE

STAGE = Path(__file__).with_name("collection_stage.py")
PARTS = 8
SETTINGS: dict[str, Any] = {"defender": "noise", "faces": "whole", "part": 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos large enough that a part takes longer than a look at the folder."""
    folder = tmp_path_factory.mktemp("photos") / "in"
    folder.mkdir()
    cells = pq.ParquetFile(SAMPLE).read_row_group(0, columns=["image"])["image"].slice(0, 2 * PARTS)
    for k, cell in enumerate(cells):
        Image.fromarray(decode(cell.as_py(), "sample")).resize((500, 500)).save(folder / f"{k:02d}.jpg", quality=95)
    return folder


def finished(out: Path) -> dict[str, int]:
    """Names and times of change of the finished parts."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}


def kill_after(source: Path, out: Path, parts: int) -> dict[str, int]:
    """Start the job, SIGKILL when so many parts are there, and wait until nothing of it writes any more."""
    command = [sys.executable, str(STAGE), str(source), str(out), json.dumps(SETTINGS)]
    with subprocess.Popen(command, start_new_session=True) as process:
        while process.poll() is None and len(finished(out)) < parts:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    quiet = finished(out)
    while True:  # workers go on until they notice that their driver is gone
        time.sleep(1.5)
        if (now := finished(out)) == quiet:
            return now
        quiet = now


def check(source: Path, folder: Path, moments: list[int]) -> None:
    """Kill at each moment, in a folder of its own, go on, compare."""
    unbroken = folder / "unbroken"
    protect(str(source), str(unbroken), **SETTINGS)
    interrupted = 0
    for moment in moments:
        out = folder / f"killed-{moment}"
        kept = kill_after(source, out, moment)
        interrupted += len(kept) < PARTS
        for name in kept:
            assert pq.read_table(out / name).equals(pq.read_table(unbroken / name)), f"{name} is not whole"
        again = protect(str(source), str(out), **SETTINGS)
        assert (again.progress.parts, again.progress.computed) == (PARTS, PARTS - len(kept))
        assert {name: finished(out)[name] for name in kept} == kept, "a finished part was written again"
        assert finished(out).keys() == finished(unbroken).keys()
        for name in finished(unbroken):
            assert pq.read_table(out / name).equals(pq.read_table(unbroken / name)), name
    # A kill after the last part would prove nothing.
    assert interrupted


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_and_taken_up(source: Path, tmp_path: Path, ray_cluster: None) -> None:
    check(source, tmp_path, [2])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_several_moments_and_taken_up(source: Path, tmp_path: Path, ray_cluster: None) -> None:
    check(source, tmp_path, [0, 1, 2, 4, 6])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_worker_is_replaced(source: Path, tmp_path: Path, ray_cluster: None) -> None:
    unbroken, out = tmp_path / "unbroken", tmp_path / "out"
    protect(str(source), str(unbroken), **SETTINGS)
    command = [sys.executable, str(STAGE), str(source), str(out), json.dumps(SETTINGS)]
    with subprocess.Popen(command) as process:
        while process.poll() is None and not finished(out):
            time.sleep(0.005)
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "MapWorker" in " ".join(child.cmdline())]
        assert workers, "it ended before a worker could be killed"
        workers[0].kill()
    assert process.returncode == 0
    for name in finished(unbroken):
        assert pq.read_table(out / name).equals(pq.read_table(unbroken / name)), name
