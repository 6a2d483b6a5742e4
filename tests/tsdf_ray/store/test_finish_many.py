"""The end of a run of hundreds of pairs, report and all, needs memory and files that do not grow with the run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tsdf_ray.game.spec import all_matches
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.recorder import Recorder
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.testing.rounds import made_up_materials, made_up_round

DEFENDERS, ATTACKERS, SEEDS, PHOTOS = 20, 16, (0, 1), 48
MEGABYTES = 220
"""Over what the process needs before. 115 were needed; 284 with all rows in memory at once."""
SCRIPT = """
import os, resource, sys
from pathlib import Path
import matplotlib.figure, pandas
from tsdf_ray.report import write_report
from tsdf_ray.store.finish import finish_run
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.rundir import RunDirectory

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

run, game = RunDirectory.open(Path(sys.argv[1]))
used = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 16, used + 16))
before = peak()
finish_run(run, game, Manifest(run.root / "manifest.jsonl"), "complete", 1.0)
write_report(run.root)
run.close()
print(peak() - before)
"""


@pytest.mark.slow
def test_hundreds_of_pairs_end_within_bounds(tmp_path: Path) -> None:
    defenders = ", ".join(f"d{i:02d}: {{kind: found}}" for i in range(DEFENDERS))
    kind = "{collect: {photos: 4}, prepare: {detectors: [mtcnn]}}"
    attackers = ", ".join(f"a{i:02d}: {kind}" for i in range(ATTACKERS))
    changes = (f"defenders={{{defenders}}}", f"attackers={{{attackers}}}", f"seeds={list(SEEDS)}", "rounds=1")
    game = Scenario.load("smoke", (*changes, "evaluation.resamples=100"))
    run = RunDirectory.create(tmp_path / "run", game)
    recorder = Recorder(run.root, Manifest(run.root / "manifest.jsonl"))
    materials = {seed: made_up_materials(seed, PHOTOS) for seed in SEEDS}
    for match in all_matches(game):
        recorder.record(match, made_up_round(match, 1, materials[match.seed]))
    run.close()
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(run.root)], capture_output=True, text=True, check=False, timeout=600
    )
    assert told.returncode == 0, told.stderr
    assert float(told.stdout) < MEGABYTES
    assert len(json.loads((run.root / "summary.json").read_text())["pairs"]) == DEFENDERS * ATTACKERS
    assert (run.root / "report.html").stat().st_size < 3_000_000
