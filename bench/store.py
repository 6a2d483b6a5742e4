"""The run directory alone, without any playing: made-up rounds of thousands of matches, recorded, looked up, finished.

    python -m bench store [--matches 10000] [--photos 4] [--resamples 100] [--report]

Prints, per thousand matches, milliseconds per match of `standing` and `record` (five flushes to disk each) with the
peak memory so far, then what it takes to read the manifest again, to finish, and (with --report) to draw the report,
with the sizes of what they write. `--photos`: of each role; `--resamples`: of every interval.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tsdf_ray.game.spec import all_matches
from tsdf_ray.report import write_report
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.finish import finish_run
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.recorder import Recorder
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.testing.rounds import made_up_materials, made_up_round

SEEDS, ATTACKERS = 10, 20


def scenario(matches: int, resamples: int = 100) -> Scenario:
    """At least so many matches of one round: ten seeds, twenty attackers, defenders as needed."""
    defenders = ", ".join(f"d{i:03d}: {{kind: found}}" for i in range(-(-matches // (SEEDS * ATTACKERS))))
    attackers = ", ".join(
        f"a{i:02d}: {{collect: {{photos: 4}}, prepare: {{detectors: [mtcnn]}}}}" for i in range(ATTACKERS)
    )
    changes = (f"defenders={{{defenders}}}", f"attackers={{{attackers}}}", f"seeds={list(range(SEEDS))}", "rounds=1")
    return Scenario.load("smoke", (*changes, f"evaluation.resamples={resamples}"))


def memory() -> str:
    """Peak of this process."""
    return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"


def files_open() -> int:
    """File handles of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def size(path: Path) -> str:
    """Of a file, with its name."""
    return f"{path.name} {path.stat().st_size / 1e6:.1f} MB"


def main(argv: Sequence[str] = ()) -> None:
    """Print the figures."""
    options = argparse.ArgumentParser(prog="python -m bench store")
    options.add_argument("--matches", type=int, default=10_000)
    options.add_argument("--photos", type=int, default=4)
    options.add_argument("--resamples", type=int, default=100)
    options.add_argument("--report", action="store_true")
    asked = options.parse_args(argv)
    game = scenario(asked.matches, asked.resamples)
    matches = all_matches(game)[: asked.matches]
    materials = {seed: made_up_materials(seed, asked.photos) for seed in game.seeds}
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", game)
        manifest = Manifest(run.root / "manifest.jsonl")
        recorder = Recorder(run.root, manifest, run)
        print(f"{len(matches)} matches of {len(game.pairs)} pairs; {memory()}, {files_open()} files open")
        looked = recorded = 0.0
        for number, match in enumerate(matches, start=1):
            result = made_up_round(match, 1, materials[match.seed])
            began = time.perf_counter()
            recorder.standing(match, materials[match.seed])
            looked += time.perf_counter() - began
            began = time.perf_counter()
            recorder.record(match, result)
            recorded += time.perf_counter() - began
            if number % 1000 == 0 or number == len(matches):
                count = (number - 1) % 1000 + 1
                print(
                    f"{number:>6}: standing {1e3 * looked / count:.3f} ms, record {1e3 * recorded / count:.2f} ms; "
                    f"{memory()}, {files_open()} files open",
                    flush=True,
                )
                looked = recorded = 0.0
        began = time.perf_counter()
        again = Manifest(run.root / "manifest.jsonl")
        print(f"manifest read again: {time.perf_counter() - began:.2f} s; {memory()}")
        began = time.perf_counter()
        for match in matches:
            recorder.standing(match, materials[match.seed])
        print(f"standing of all, finished: {time.perf_counter() - began:.1f} s")
        began, used = time.perf_counter(), time.process_time()
        finish_run(run, game, again, "complete", 0.0)
        print(
            f"finish: {time.perf_counter() - began:.1f} s, {time.process_time() - used:.1f} s of computing; "
            f"{memory()}, {files_open()} files open"
        )
        names = ("tables/images.parquet", "tables/metrics.parquet", "summary.json")
        print(", ".join(size(run.root / name) for name in names), flush=True)
        if asked.report:
            began, used = time.perf_counter(), time.process_time()
            page = write_report(run.root)
            print(
                f"report: {time.perf_counter() - began:.1f} s, {time.process_time() - used:.1f} s of computing; "
                f"{size(page)}; {memory()}"
            )
        run.close()
