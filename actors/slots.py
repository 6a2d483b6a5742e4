"""Places for matches: what one match takes is reserved once, and its actors serve match after match."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.util.placement_group import (
    get_current_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.role import Place, RoleActor
from tsdf_ray.errors import UserError
from tsdf_ray.game.executor import Journal, role_name
from tsdf_ray.game.plan import Plan, Worker
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.game.waiting import waited_too_long, waiting_line

POLL_SECONDS = 0.5
TELL_SECONDS = 5.0
"""How often a wait for resources says what is missing."""

START_SECONDS = 900.0
"""How long a process may take to start where its resources are there."""

Check = Callable[[], None]


class Group:
    """The actors of one role in one slot."""

    def __init__(self, workers: tuple[Worker, ...], reserved: Any) -> None:
        self._workers, self._reserved = workers, reserved
        self.actors: list[Any] = []
        self.places: list[Place] = []
        """Where the actors sit, once they have said so."""

    def become(self, role: type, match: MatchSpec, shared: Any, halvings: int) -> list[ray.ObjectRef[Place]]:
        """Have the actors (made where there are none) play this role of this match; returns at once."""
        if not self.actors:
            self.actors = [self._actor(worker) for worker in self._workers]
            if len(self.actors) > 1:
                meeting = self.actors[0].open.remote(len(self.actors))
                for rank, actor in enumerate(self.actors):
                    actor.join.remote(rank, len(self.actors), meeting)
        return [actor.become.remote(role, match, shared, halvings) for actor in self.actors]

    def kill(self) -> None:
        """End the actors; `become` makes others. Nothing of these is listened to any more."""
        for actor in self.actors:
            ray.kill(actor)
        self.actors, self.places = [], []

    def _actor(self, worker: Worker) -> Any:
        # Ray's own record of every call costs the driver time, and grows with them; ours is events.jsonl.
        options: dict[str, Any] = {"num_cpus": worker.cpus, "num_gpus": worker.gpus, "enable_task_events": False}
        if self._reserved is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(self._reserved, worker.bundle)
        actor_class: Any = RoleActor
        return actor_class.options(**options).remote(worker.memory, worker.shares_device, len(self._workers) == 1)


class Slot:
    """Where one match at a time is played."""

    def __init__(self, plan: Plan) -> None:
        bundles = [dict(bundle) for bundle in plan.bundles]
        self.reserved = placement_group(bundles, strategy=plan.strategy) if bundles else None
        # Inside a trial: its own reservation holds the plan's bundles, and an actor in another's place would leave no
        # room for that one.
        within = self.reserved or get_current_placement_group()
        self._groups = {name: Group(workers, within) for name, workers in plan.roles.items()}

    def group(self, role: type) -> Group:
        """The actors of a role. Roles that the plan does not name sit where the first one does."""
        return self._groups.get(role_name(role), next(iter(self._groups.values())))

    @property
    def placed(self) -> bool:
        """Does it have what it reserves? It may lose a part with a node, and gets another when there is one."""
        return self.reserved is None or placement_group_table(self.reserved)["state"] == "CREATED"

    def end(self) -> None:
        """End the actors and give back what was reserved."""
        for group in self._groups.values():
            group.kill()
        if self.reserved is not None:
            remove_placement_group(self.reserved)


class Slots:
    """Slots of one plan, made as they are needed. Thread-safe."""

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self.plan = plan
        self._journal = journal
        self._guard = threading.Lock()
        self._free: list[Slot] = []
        self._waiting = 0

    def take(self, check: Check) -> Slot:
        """A free slot, or a new one once it is placed; says every few seconds what is missing.

        Raises UserError after the plan's `wait_seconds`; what `check` raises ends the wait, too.
        """
        with self._guard:
            if self._free:
                return self._free.pop()
        slot = Slot(self.plan)
        if slot.reserved is not None:
            try:
                self.wait(slot, [slot.reserved.ready()], check)
            except BaseException:
                slot.end()
                raise
        return slot

    def give(self, slot: Slot) -> None:
        """Give a slot back, for the next match; while others wait for a place, it ends and leaves them its own."""
        with self._guard:
            if not self._waiting:
                self._free.append(slot)
                return
        slot.end()

    def wait(self, slot: Slot, ready: list[ray.ObjectRef[Any]], check: Check) -> None:
        """Wait for one of these, which need the slot's resources. Raises UserError after `wait_seconds`."""
        began = told = since = time.monotonic()
        plan = self.plan
        with self._guard:
            self._waiting += 1
        try:
            while not ray.wait(ready, timeout=POLL_SECONDS)[0]:
                check()
                now = time.monotonic()
                if now - told < TELL_SECONDS and now - since <= plan.wait_seconds:
                    continue
                told = now
                if slot.placed:  # a process takes its time to start
                    since = now
                    if now - began > START_SECONDS:
                        raise UserError(f"no process started within {START_SECONDS:.0f} s; see Ray's logs on its nodes")
                    continue
                total, free = _nodes()
                if now - since > plan.wait_seconds:
                    raise waited_too_long(plan.bundles, plan.strategy, total, free, plan.wait_seconds)
                line = waiting_line(plan.bundles, plan.strategy, total, free, now - since, plan.wait_seconds)
                self._journal.note("waiting for resources", line)
        finally:
            with self._guard:
                self._waiting -= 1

    def end(self) -> None:
        """End the free slots."""
        with self._guard:
            free, self._free = self._free, []
        for slot in free:
            slot.end()


def _nodes() -> tuple[list[Mapping[str, float]], list[Mapping[str, float]]]:
    """What every living node has, and what of it nobody has reserved: CPUs and GPUs."""
    free = available_resources_per_node()
    alive = [node for node in ray.nodes() if node["Alive"]]
    return [_known(node["Resources"]) for node in alive], [_known(free.get(node["NodeID"], {})) for node in alive]


def _known(resources: Mapping[str, float]) -> Mapping[str, float]:
    return {name: float(resources[name]) for name in ("CPU", "GPU") if name in resources}
