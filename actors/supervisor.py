"""Nobody dies unnoticed: a lost worker's role is built anew elsewhere, and what was lost with it is issued again.

Roles hold no state that matters: a step depends on its arguments and on named draws, so a step issued again gives the
same result, and results that were gathered need not be computed again. An answer of a worker that was thought dead is
an answer to an earlier issue, which nobody looks at. A role that dies three times in the same step ends its match.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from enum import Enum

import ray
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectFetchTimedOutError,
    ObjectLostError,
    OutOfMemoryError,
    OwnerDiedError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from actors.course import Course, Role, Step
from actors.group import GroupBroken, GroupUnmet
from actors.role import Answer
from actors.slots import POLL_SECONDS, Slots
from tsdf_ray.errors import MatchFailed, OutOfMemory, UserError
from tsdf_ray.game.executor import Journal, after_memory

DEATHS = 3
"""A step in which its role died so often is not issued again."""
LOSSES = 5
"""Nor is one whose arguments were lost so often: what other roles' deaths took with them counts, too."""

Check = Callable[[], None]


class Trouble(Enum):
    """What may have happened to a step, other than an error of its own."""

    DEAD = "its process died"
    UNMET = "its workers could not meet (do their nodes reach each other on all ports?)"
    HUNG = "no answer in time"
    MEMORY = "out of memory"
    LOST = "its arguments were lost"


class Supervisor:
    """Waits for steps, and mends what breaks. Each match is watched from its own thread."""

    def __init__(self, slots: Slots, journal: Journal) -> None:
        self._slots, self._journal = slots, journal

    def gather(self, step: Step, check: Check) -> object:
        """The step's result. Raises its own MatchFailed or UserError, and MatchFailed when it cannot be mended."""
        while not step.over:
            trouble = self._watch(step, check)
            if trouble is not None:
                self._mend(step, trouble)
        if step.error is not None:
            raise step.error
        return step.value

    def _watch(self, step: Step, check: Check) -> Trouble | None:
        """Wait until the step is over, or something happens to it."""
        limit, since = self._slots.plan.step_seconds, time.monotonic()
        while True:
            for role in step.role.course.roles:
                role.look(self._journal)
            if step.role.placements:
                if not ray.wait(step.role.placements, timeout=POLL_SECONDS)[0]:
                    self._wait_for_room(step, check)
                since = time.monotonic()
            with contextlib.suppress(GetTimeoutError):
                if len(step.answers) == 1:
                    return self._look(step, POLL_SECONDS)
                ready, _ = ray.wait(step.answers, num_returns=len(step.answers), timeout=POLL_SECONDS)
                if len(ready) == len(step.answers) or any(self._failed(answer) for answer in ready):
                    return self._look(step)
            check()
            if limit is not None and time.monotonic() - since > limit:
                return Trouble.HUNG

    def _wait_for_room(self, step: Step, check: Check) -> None:
        try:
            self._slots.wait(step.role.course.slot, step.role.placements, check)
        except UserError as error:
            raise MatchFailed(f"{step.role.label}: no room for its process: {error}") from error

    def _look(self, step: Step, seconds: float | None = None) -> Trouble | None:
        """Take the answer of a step that has one, or wait for it so long. Raises GetTimeoutError."""
        try:
            event = step.take(seconds)
        except GetTimeoutError:
            raise
        except RayError as error:
            return self._judge(step, error)
        if event is not None:
            self._journal.event(event)
        return None

    def _failed(self, answer: object) -> bool:
        """Did a worker of a group end with an error? The others may wait for it."""
        try:
            ray.get(answer)
        except RayError:
            return True
        return False

    def _judge(self, step: Step, error: RayError) -> Trouble | None:
        """What an error means; one of the step's own is kept in it."""
        cause: BaseException = error
        while isinstance(cause, RayTaskError):  # handed on from step to step
            cause = cause.cause
        if isinstance(cause, OutOfMemory | OutOfMemoryError):
            return Trouble.MEMORY
        if isinstance(cause, RayActorError):
            # The error of an argument is handed on: then it is another actor that died.
            own = {actor._actor_id.hex() for actor in step.role.actors}
            return Trouble.DEAD if cause.actor_id is None or cause.actor_id in own else Trouble.LOST
        broken = isinstance(cause, GroupBroken)
        if isinstance(cause, WorkerCrashedError | NodeDiedError) or (broken and len(step.role.actors) > 1):
            return Trouble.UNMET if isinstance(cause, GroupUnmet) else Trouble.DEAD
        # One worker alone is in no group: it needed an answer of one that broke.
        if broken or isinstance(cause, ObjectLostError | OwnerDiedError | ObjectFetchTimedOutError):
            return Trouble.LOST
        step.error = type(cause)(str(cause)) if isinstance(cause, MatchFailed | UserError) else error
        return None

    def _mend(self, failed: Step, trouble: Trouble) -> None:
        """Build anew the roles that are gone, and issue again what was lost."""
        course = failed.role.course
        troubles = {failed: trouble}
        for step in course.steps:
            if not step.over and step is not failed and ray.wait(step.answers[:1], timeout=0)[0]:
                found = self._look(step)
                if found is not None:
                    troubles[step] = found
        gone = self._gone(course, troubles)
        for role, why in gone.items():
            culprit = next(step for step in course.steps if step.role is role and not step.over)
            self._rebuild(role, culprit, why)
        again: set[Step] = set()
        for step in course.steps:
            if step.over:
                continue
            lost = troubles.get(step) is Trouble.LOST
            depends = any(isinstance(arg, Step) and arg in again for arg in step.args)
            if lost and not depends:  # else it was told of an error of a step that is issued again
                self._lost(step)
            if step.role in gone or step in troubles or depends:
                self._secure(step, anew=lost)
                step.issue()
                again.add(step)

    def _gone(self, course: Course, troubles: dict[Step, Trouble]) -> dict[Role, Trouble]:
        """The roles whose actors are of no use any more."""
        gone: dict[Role, Trouble] = {}
        for step in course.steps:
            trouble = troubles.get(step)
            if trouble is not None and trouble is not Trouble.LOST:
                gone.setdefault(step.role, trouble)
        return gone

    def _rebuild(self, role: Role, culprit: Step, why: Trouble) -> None:
        """Raises MatchFailed for a step that has killed its role too often, or that needs too much memory."""
        where = {"match": role.course.match.id, "role": role.name, "step": culprit.name, "round": culprit.round}
        role.leave()
        # A step that still waited for others has killed nobody, and needed no memory: Ray ends several workers at once
        # when a node runs out of it.
        began = all(arg.over for arg in culprit.args if isinstance(arg, Step))
        if why is Trouble.MEMORY and began:
            text = after_memory(role.label, OutOfMemory(f"{culprit.name}: out of memory"), role.halvings)
            role.halvings += 1
            self._journal.note("micro-batches halved", text, **where)
        else:
            role.deaths[culprit.round, culprit.name] += began
            count = role.deaths[culprit.round, culprit.name]
            blame = f"({count} of {DEATHS})" if began else "before it began"
            text = f"{culprit.label} of round {culprit.round}: {why.value} {blame}"
            if count >= DEATHS:
                raise MatchFailed(
                    f"{text}; the match is given up, `tsdf-ray resume` goes on after its last finished round"
                )
            self._journal.note("role built anew", f"{text}; the role is built anew and the step issued again", **where)
        role.settle()

    def _lost(self, step: Step) -> None:
        """Raises MatchFailed for a step that never gets its arguments."""
        step.losses += 1
        text = f"{step.label} of round {step.round}: {Trouble.LOST.value} ({step.losses} of {LOSSES})"
        if step.losses >= LOSSES:
            raise MatchFailed(
                f"{text}; the match is given up, `tsdf-ray resume` goes on after its last finished round. Look at the "
                "network between the nodes and at the object store's memory (`ray memory`)"
            )
        where = {"match": step.role.course.match.id, "role": step.role.name, "step": step.name, "round": step.round}
        self._journal.note("arguments lost", f"{text}; the step is issued again", **where)

    def _secure(self, step: Step, *, anew: bool) -> None:
        """What a step needs of earlier ones may have gone with a node: known results are put into the store.

        anew: also those that were put there before, since something is missing.
        """
        for arg in step.args:
            if isinstance(arg, Step) and arg.over and arg.error is None and (anew or not arg.copied):
                arg.answers[0], arg.copied = ray.put(Answer(arg.value, None)), True
