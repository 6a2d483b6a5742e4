"""The Ray executor: each role is an actor in its own process, results travel through the object store by reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from actors.cluster import cluster_supply, connect
from actors.role import RoleActor
from tsdf_ray.errors import MatchFailed, UserError
from tsdf_ray.game.executor import EventSink
from tsdf_ray.game.plan import Plan, Supply
from tsdf_ray.game.spec import MatchSpec

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Role:
    """A role actor, by match and class name (for messages)."""

    actor: Any
    label: str


@dataclass(frozen=True)
class Pending:
    """A submitted step: references to its result and to its event."""

    result: ray.ObjectRef[Any]
    event: ray.ObjectRef[Any]
    label: str


class RayExecutor:
    """Steps run in the roles' actors; `submit` returns at once, so steps without a common role overlap."""

    def __init__(self, on_event: EventSink, plan: Plan, address: str | None) -> None:
        self.parallel = plan.parallel_matches
        self._on_event = on_event
        self._plan = plan
        self._connection = connect(address)

    @staticmethod
    def supply(address: str) -> Supply:
        """What the cluster at `address` has, for the plan. Raises UserError when it cannot be reached."""
        return cluster_supply(address)

    def start(self, role: type, match: MatchSpec, shared: Any) -> Role:
        """A new actor for `role`; creation runs in the background, the first step waits for it."""
        worker = self._plan.roles[role.__name__.removesuffix("Role").lower()][0]
        options = {"num_cpus": worker.cpus, "num_gpus": worker.gpus}
        actor_class: Any = RoleActor
        actor = actor_class.options(**options).remote(role, match, shared)
        return Role(actor, f"{match.id}: {role.__name__.removesuffix('Role').lower()}")

    def submit(self, role: Role, step: str, round: int, *args: Any) -> Pending:
        """Queue a step behind the role's earlier ones; handles among `args` stand for their results."""
        plain = [arg.result if isinstance(arg, Pending) else arg for arg in args]
        result, event = role.actor.run.options(num_returns=2).remote(step, round, *plain)
        return Pending(result, event, f"{role.label}.{step}")

    def gather(self, handle: Any, check: Callable[[], None]) -> Any:
        """Wait for a step and return its result; `check` is called every half second and may raise Stopped.

        Raises MatchFailed when the role's process died, and the step's own MatchFailed or UserError.
        """
        pending = handle if isinstance(handle, Pending) else None
        reference = pending.result if pending else handle
        label = pending.label if pending else "shared value"
        try:
            while not ray.wait([reference], timeout=POLL_SECONDS)[0]:
                check()
            result = ray.get(reference)
            if pending:
                self._on_event(ray.get(pending.event))
        except RayActorError as error:
            raise MatchFailed(
                f"{label}: its process died ({error}); `tsdf-ray resume` goes on from the last round"
            ) from error
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, MatchFailed | UserError):
                raise type(cause)(str(cause)) from error
            if isinstance(cause, RayActorError):
                raise MatchFailed(f"{label}: a process it depends on died; `tsdf-ray resume` goes on") from error
            raise
        return result

    def share(self, value: object) -> Any:
        """Into the object store, once."""
        return ray.put(value)

    def stop(self, *roles: Role) -> None:
        """End the actors of a match."""
        for role in roles:
            ray.kill(role.actor)

    def close(self) -> None:
        """Leave the cluster; a local one that `connect` started ends with it."""
        self._connection.close()
