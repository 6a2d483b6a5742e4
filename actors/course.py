"""A match under way on the cluster: its roles, and the steps of the round in play with all that they were made from."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from actors.role import Answer, Place
from actors.slots import Group, Slot
from tsdf_ray.game.executor import Journal, StepEvent, role_name
from tsdf_ray.game.spec import MatchSpec

UNKNOWN = object()


class Role:
    """One role of one match, wherever its actors are."""

    def __init__(self, course: Course, kind: type, shared: Any) -> None:
        self.course, self.kind, self._shared = course, kind, shared
        self.name = role_name(kind)
        self.label = f"{course.match.id}: {self.name}"
        self.deaths: Counter[tuple[int, str]] = Counter()
        """How often a step was under way when the role died, by round and step."""
        self.halvings = 0
        self._group: Group = course.slot.group(kind)
        self._settling: list[ray.ObjectRef[Place]] = []
        self._told = False
        self._new = True
        """Its actors served another role before, and do not know yet that they are this one."""
        if not self._group.places:
            self.settle()

    @property
    def actors(self) -> list[Any]:
        """Its workers."""
        return self._group.actors

    def settle(self) -> None:
        """Have actors play this role; returns at once."""
        self._settling = self._group.become(*self._part)
        self._told = self._new = False

    def leave(self) -> None:
        """End its actors."""
        self._group.kill()
        self._settling = []

    @property
    def _part(self) -> tuple[type, MatchSpec, Any, int]:
        return self.kind, self.course.match, self._shared, self.halvings

    def call(self, step: str, round: int, attempt: int, args: Sequence[Any]) -> list[ray.ObjectRef[Answer]]:
        """Send a step to every worker, behind what they were sent before."""
        new, self._new = self._new, False
        if new:
            return [actor.begin.remote(*self._part, step, round, attempt, *args) for actor in self.actors]
        return [actor.run.remote(step, round, attempt, *args) for actor in self.actors]

    def look(self, journal: Journal) -> None:
        """Say where its actors sit, once, as soon as they run. One that died counts as settled: its steps tell."""
        if self._settling:
            ready, _ = ray.wait(self._settling, num_returns=len(self._settling), timeout=0)
            if len(ready) < len(self._settling):
                return
            with contextlib.suppress(ray.exceptions.RayError):
                self._group.places = ray.get(self._settling)
            self._settling = []
        if not self._told:
            self._told = True
            for rank, place in enumerate(self._group.places):
                who = {"event": "role placed", "match": self.course.match.id, "role": self.name, "rank": rank}
                journal.log(who | {"pid": place.pid, "node": place.node, "device": place.device, "time": time.time()})

    @property
    def placements(self) -> list[ray.ObjectRef[Place]]:
        """Until it is settled: one of these is ready as soon as its workers are, or as one of them is lost.

        The others of a lost one wait for it in vain: there are no places until the group has met.
        """
        return self._settling


@dataclass(eq=False)
class Step:
    """A step that was issued, perhaps more than once: only the answer to the last issue is ever looked at."""

    role: Role
    name: str
    round: int
    args: tuple[Any, ...]
    """Steps stand for their results; anything else is passed on."""
    attempt: int = 0
    answers: list[Any] = field(default_factory=list)
    """References, one for each worker; the first one's holds the result, the others' nothing, or what went wrong."""
    value: Any = UNKNOWN
    error: BaseException | None = None
    """What the step itself raised."""
    losses: int = 0
    """How often it could not run because its arguments were lost."""
    copied: bool = False
    """The result in the object store was lost; what is there now was put by this process."""

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.role.label}.{self.name}"

    @property
    def over(self) -> bool:
        """Is its result, or its own error, known here?"""
        return self.value is not UNKNOWN or self.error is not None

    def issue(self) -> None:
        """Send it to the role's actors."""
        self.attempt += 1
        args = [arg.answers[0] if isinstance(arg, Step) else arg for arg in self.args]
        self.answers = self.role.call(self.name, self.round, self.attempt, args)

    def take(self, seconds: float | None = None) -> StepEvent | None:
        """Fetch the result, waiting so long for the first worker; returns the event. Raises what Ray raises, of any
        worker."""
        first, *others = self.answers
        if others:
            ray.get(ray.wait(others, num_returns=len(others), timeout=0)[0])
        answer: Answer = ray.get(first, timeout=seconds)
        self.value = answer.result
        return answer.event


class Course:
    """A match under way."""

    def __init__(self, match: MatchSpec, slot: Slot) -> None:
        self.match, self.slot = match, slot
        self.roles: list[Role] = []
        self.steps: list[Step] = []
        """Of the round in play, as they were issued first."""

    def add(self, kind: type, shared: Any) -> Role:
        """A role joins."""
        role = Role(self, kind, shared)
        self.roles.append(role)
        return role

    def submit(self, role: Role, name: str, round: int, args: tuple[Any, ...]) -> Step:
        """Issue a step. Those of earlier rounds are forgotten: what is needed of them has been gathered."""
        if self.steps and self.steps[-1].round != round:
            self.steps = []
        step = Step(role, name, round, args)
        self.steps.append(step)
        step.issue()
        return step

    def close(self) -> None:
        """Leave the slot: actors with something still to do are ended."""
        # Of a group that stumbled, one worker may wait for another for ever.
        busy = {
            id(step.role): step.role
            for step in self.steps
            if not step.over or (step.error is not None and len(step.role.actors) > 1)
        }
        for role in busy.values():
            role.leave()
