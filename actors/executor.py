"""The Ray executor: each role is one actor or a group of them, results travel through the object store by reference."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import ray

from actors.cluster import cluster_supply, connect, supply_now
from actors.course import Course, Role, Step
from actors.slots import Slots
from actors.supervisor import Supervisor
from tsdf_ray.errors import UserError
from tsdf_ray.game.executor import Journal
from tsdf_ray.game.plan import Plan, Supply
from tsdf_ray.game.spec import MatchSpec

LOOK_SECONDS = 10.0
"""How often it is asked whether the cluster has grown."""
LASTING = 8
"""Shared values that are kept for further matches."""


class RayExecutor:
    """Steps run in the roles' actors; `submit` returns at once, so steps without a common role overlap."""

    def __init__(
        self, journal: Journal, plan: Plan, address: str | None, replan: Callable[[Supply], Plan] | None = None
    ) -> None:
        self._replan, self._looked = replan, time.monotonic()
        self._parallel = plan.parallel_matches
        self._connection = connect(address)
        self._slots = Slots(plan, journal)
        self._supervisor = Supervisor(self._slots, journal)
        self._guard = threading.Lock()
        self._courses: dict[str, Course] = {}
        self._lasting: dict[int, tuple[object, Any]] = {}

    @staticmethod
    def supply(address: str | None) -> Supply | None:
        """What the cluster at `address` has, or the one that this process has joined, for the plan; None: there is none
        yet, one of this machine will be started. Raises UserError when it cannot be reached."""
        if address is None and not ray.is_initialized():
            return None
        return cluster_supply(address)

    @property
    def parallel(self) -> int:
        """Matches side by side: what the plan says, and more when nodes have joined since."""
        if self._replan is not None and time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            with contextlib.suppress(UserError):  # nodes have left: what ran there is mended, or waits
                self._parallel = max(self._parallel, self._replan(supply_now()).parallel_matches)
        return self._parallel

    def start(self, role: type, match: MatchSpec, shared: Any, check: Callable[[], None]) -> Role:
        """A role in the match's slot; its first one waits for a slot. Its actors start in the background.

        Raises UserError when a slot cannot be had in time.
        """
        with self._guard:
            course = self._courses.get(match.id)
        if course is None:
            course = Course(match, self._slots.take(check))
            with self._guard:
                self._courses[match.id] = course
        return course.add(role, shared)

    def submit(self, role: Role, step: str, round: int, *args: Any) -> Step:
        """Queue a step behind the role's earlier ones; handles among `args` stand for their results."""
        return role.course.submit(role, step, round, args)

    def gather(self, handle: Any, check: Callable[[], None]) -> Any:
        """Wait for a step and return its result; `check` is called every half second and may raise Stopped.

        Workers that are lost meanwhile are replaced (see `Supervisor`). Raises MatchFailed where that does not help,
        and the step's own MatchFailed or UserError.
        """
        return self._supervisor.gather(handle, check) if isinstance(handle, Step) else ray.get(handle)

    def share(self, value: object, *, lasting: bool = False) -> Any:
        """Into the object store, once; a `lasting` value is found there again when it is shared again."""
        if not lasting:
            return ray.put(value)
        with self._guard:
            if id(value) not in self._lasting:
                while len(self._lasting) >= LASTING:
                    self._lasting.pop(next(iter(self._lasting)))
                # The value is kept beside its reference: its id must not become another's.
                self._lasting[id(value)] = value, ray.put(value)
            return self._lasting[id(value)][1]

    def stop(self, *roles: Role) -> None:
        """The match is over: its slot is free for another. Actors that still compute are ended."""
        for course in {id(role.course): role.course for role in roles}.values():
            with self._guard:
                self._courses.pop(course.match.id, None)
            course.close()
            self._slots.give(course.slot)

    def close(self) -> None:
        """Leave the cluster; a local one that `connect` started ends with it."""
        self._slots.end()
        with self._guard:
            self._lasting.clear()
        self._connection.close()
