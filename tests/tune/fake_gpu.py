"""A search whose trials ask for a GPU, on a machine that only claims to have one: a script of its own.

    python fake_gpu.py FOLDER GPUS_PER_MATCH TRIALS SEED [SEED ...]

Starts a Ray of its own with two CPUs and as many GPUs as a match wants, at least one; none of them exists. Searches
into FOLDER/search. Prints what the processes of the trial and of its roles reserved.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ray
from tiny_search import content, section

import tsdf_ray.api as api
from tsdf_ray.scenario import Scenario


def scenario(gpus: float, trials: int, seeds: list[int]) -> Scenario:
    """One defender, one attacker; random settings, no replay."""
    made = content(resources={"cpus_per_match": 1, "gpus_per_match": gpus})
    made["defenders"].pop("found")
    made["search"] = section(trials=trials, seeds=seeds, sampler={"kind": "random"}, replay={"seeds": []})
    return Scenario.model_validate(made)


def main() -> None:
    """See the module."""
    folder, gpus, trials = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    seeds = [int(text) for text in sys.argv[4:]]
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=max(1, int(gpus)),
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=150 << 20,
    )
    try:
        # An address only says that the cluster is to be asked what it has; the session is joined already.
        run = api.tune(scenario(gpus, trials, seeds), folder / "search", address="auto", report=False)
        print(json.dumps({"status": run.status, "left": ray.available_resources().get("GPU", 0.0)}), flush=True)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
