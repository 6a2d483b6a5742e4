"""A role that takes all the memory of a node whose Ray ends workers early; run by test_low_memory.py as a script.

    python low_memory.py FOLDER SPARE GREED

SPARE bytes are free until Ray ends workers, the role takes GREED. Prints one JSON line: the notes, the rounds that were
recorded, and what the match ended with.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import cloudpickle

from actors.executor import RayExecutor
from tsdf_ray.errors import MatchFailed
from tsdf_ray.game.control import Quiet
from tsdf_ray.game.executor import StepEvent
from tsdf_ray.game.match import Table, play_match
from tsdf_ray.game.plan import Plan, Worker
from tsdf_ray.game.spec import MatchSpec, all_matches
from tsdf_ray.game.steps import Learned
from tsdf_ray.generators import Tensors
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.recorder import Recorder
from tsdf_ray.testing import null_roles
from tsdf_ray.testing.null_roles import NULL_CAST, null_materials


class Greedy(null_roles.DefenderRole):
    """Takes more than there is, as long as its micro-batches are whole."""

    def __init__(self, match: MatchSpec, materials: Any, seat: Any) -> None:
        super().__init__(match, materials, seat)
        self._seat, self._greed = seat, int(match.scenario.title)

    def learn(self, round: int, generator: Tensors | None) -> Learned:
        if not self._seat.halvings:
            taken = []
            for _ in range(self._greed >> 26):
                taken.append(b"1" * (1 << 26))
                time.sleep(0.01)
            time.sleep(60)
        return super().learn(round, generator)


Greedy.__name__ = "DefenderRole"
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Told:
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def event(self, event: StepEvent) -> None:
        """Not needed."""

    def note(self, kind: str, text: str, **more: Any) -> None:
        """Kept."""
        self.notes.append(text)

    def log(self, line: Any) -> None:
        """Not needed."""


def main() -> None:
    """See the module."""
    folder, spare, greed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    memory = psutil.virtual_memory()
    limit = (memory.total - memory.available + spare) / memory.total
    config = {"memory_usage_threshold": limit, "memory_monitor_refresh_ms": 100}
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        _system_config=config,
    )
    told, manifest = Told(), Manifest(folder / "manifest.jsonl")
    workers = {role: (Worker(0.2, 0.0),) for role in ("defender", "attacker", "evaluator")}
    executor = RayExecutor(told, Plan(workers, 1, ({"CPU": 1.0},)), None)
    match = all_matches(Scenario.load("smoke", ("rounds=2", f"title='{greed}'")))[0]
    table = Table(executor, Recorder(folder, manifest), Quiet(), replace(NULL_CAST, defender=Greedy))
    failed = ""
    try:
        play_match(match, null_materials(), table)
    except MatchFailed as error:
        failed = str(error)
    print(json.dumps({"notes": told.notes, "rounds": len(manifest.entries), "failed": failed}), flush=True)
    executor.close()
    ray.shutdown()


if __name__ == "__main__":
    main()
