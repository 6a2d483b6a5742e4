"""Plans against Ray's own scheduler, on nodes whose CPUs and GPUs do not exist: a script of its own.

    python placed.py     reads JSON from stdin: {"nodes": [[cpus, gpus], ...], "cases": [resources of a match, ...]}

Starts a raylet per node. For every case it reserves the slots of the plan all at once, starts an actor per worker, and
then tries for one slot more. Prints one JSON line per case: slots planned and got, whether one more came, and of the
first slot the (node, GPU) of every worker by role.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tsdf_ray.game.plan import Plan, Supply, plan
from tsdf_ray.scenario import Scenario

PATIENCE, MORE = 60.0, 3.0


@ray.remote
class Where:
    """Says where it was put."""

    def tell(self) -> tuple[str, str]:
        """Node, and the GPUs it may see."""
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        return ray.get_runtime_context().get_node_id(), ",".join(gpus)


def scenario(resources: dict[str, Any]) -> Scenario:
    """A hundred matches."""
    base = Scenario.load("quickstart").model_dump(mode="json")
    return Scenario.model_validate(base | {"seeds": list(range(25)), "micro_batch": 1, "resources": resources})


def look(made: Plan) -> dict[str, Any]:
    """Reserve and fill the slots of a plan, and one more."""
    bundles = [dict(bundle) for bundle in made.bundles]
    slots = [placement_group(bundles, strategy=made.strategy) for _ in range(made.parallel_matches)]
    got = sum(bool(slot.wait(PATIENCE)) for slot in slots)
    more = placement_group(bundles, strategy=made.strategy)
    came = bool(more.wait(MORE))
    remove_placement_group(more)
    actors = {}
    for role, workers in sorted(made.roles.items(), reverse=True):  # the order must not matter
        for rank, worker in enumerate(workers):
            options = {"num_cpus": worker.cpus, "num_gpus": worker.gpus}
            place = PlacementGroupSchedulingStrategy(slots[0], worker.bundle)
            actors[role, rank] = Where.options(scheduling_strategy=place, **options).remote()
    told = {key: ray.get(actor.tell.remote(), timeout=PATIENCE) for key, actor in actors.items()}
    seats: dict[str, list[tuple[str, str]]] = {}
    for (role, _), seat in told.items():
        seats.setdefault(role, []).append(seat)
    for actor in actors.values():
        ray.kill(actor)
    for slot in slots:
        remove_placement_group(slot)
    return {"planned": made.parallel_matches, "got": got, "one more": came, "seats": seats}


def main() -> None:
    """See the module."""
    asked = json.load(sys.stdin)
    nodes = [(float(cpus), float(gpus)) for cpus, gpus in asked["nodes"]]
    small = {"object_store_memory": 80 << 20}
    cluster = Cluster()
    try:
        for cpus, gpus in nodes:
            cluster.add_node(num_cpus=int(cpus), num_gpus=int(gpus), **small)
        ray.init(address=cluster.address, log_to_driver=False)
        supply = Supply(sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes), tuple(nodes))
        for resources in asked["cases"]:
            print(json.dumps(look(plan(scenario(resources), supply))), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
