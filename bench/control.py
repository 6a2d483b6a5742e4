"""What playing itself costs: matches of null roles on a local Ray cluster of two CPUs, with the real store.

    python -m bench control [--matches 10 100 1000 10000] [--repeats 3]

Roles are actors that serve match after match; every round is written as always (four files, a manifest line, each
flushed to disk). `in process` is the same without Ray. Matches per second without the start of the cluster and of the
actors; the driver's memory is its peak resident size, of a process of its own per row.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tsdf_ray.game.control import Quiet
from tsdf_ray.game.executor import make_executor
from tsdf_ray.game.match import Table, play_match
from tsdf_ray.game.plan import plan
from tsdf_ray.game.spec import MatchSpec, all_matches
from tsdf_ray.game.supply import local_supply
from tsdf_ray.race import play_matches
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.recorder import Recorder
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.testing.null_roles import NULL_CAST, null_materials


def game(matches: int) -> Scenario:
    """So many pairs: up to ten defenders and ten attackers, then seeds."""
    sides = {10: (5, 2, 1), 100: (10, 10, 1)}.get(matches, (10, 10, -(-matches // 100)))
    content = Scenario.load("smoke", ("rounds=1", "resources.cpus_per_match=0.5")).model_dump(mode="json")
    content |= {"defenders": {f"d{i}": {"kind": "none"} for i in range(sides[0])}}
    attacker = next(iter(content["attackers"].values()))
    content |= {"attackers": {f"a{i}": attacker for i in range(sides[1])}, "seeds": list(range(sides[2]))}
    return Scenario.model_validate(content)


def one(executor: str, matches: int) -> dict[str, float]:
    """Play them here."""
    scenario = game(matches)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", scenario)
        manifest = Manifest(run.root / "manifest.jsonl")
        hands = make_executor(executor, run, plan(scenario, local_supply()), None)
        table = Table(hands, Recorder(run.root, manifest), Quiet(), NULL_CAST)
        materials = dict.fromkeys(scenario.seeds, null_materials())
        warm = RunDirectory.create(Path(folder) / "warm", scenario)
        there = Table(hands, Recorder(warm.root, Manifest(warm.root / "manifest.jsonl")), Quiet(), NULL_CAST)

        def start(match: MatchSpec) -> None:
            play_match(match, materials[match.seed], there)

        # As many at once as there will be: so the actors of all slots start here.
        with ThreadPoolExecutor(hands.parallel) as threads:
            list(threads.map(start, all_matches(scenario)[: hands.parallel]))
        began = time.perf_counter()
        failed = play_matches(scenario, table, materials, run)
        seconds = time.perf_counter() - began
        assert not failed
        assert len(manifest.entries) == len(scenario.pairs) * len(scenario.seeds)
        files = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
        hands.close()
        run.close()
        warm.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"matches": len(manifest.entries), "seconds": seconds, "peak MB": peak, "open files": files}


def main(argv: Sequence[str] = ()) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench control")
    parser.add_argument("--matches", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("EXECUTOR", "MATCHES"))
    options = parser.parse_args(argv)
    if options.one:
        print(json.dumps(one(options.one[0], int(options.one[1]))))
        return
    print("null matches of one round: matches per second, median (min .. max), driver's peak memory, its open files")
    for matches in options.matches:
        found: dict[str, list[dict[str, float]]] = {"ray": [], "inprocess": []}
        for _ in range(options.repeats):
            for executor, rows in found.items():
                command = [sys.executable, "-m", "bench", "control", "--one", executor, str(matches)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
        for executor, rows in found.items():
            rates = [row["matches"] / row["seconds"] for row in rows]
            spread = f"{statistics.median(rates):7.1f} ({min(rates):.1f} .. {max(rates):.1f})"
            peak, files = max(row["peak MB"] for row in rows), max(row["open files"] for row in rows)
            print(
                f"{matches:>6} matches  {executor:>10}  {spread:>24} /s  {peak:6.0f} MB  {files:4.0f} files", flush=True
            )
