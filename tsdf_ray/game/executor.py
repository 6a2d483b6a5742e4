"""Where a role's steps run: the protocol the round loop talks to, and the in-process executor.

Two verbs: `submit -> handle` and `gather`. A handle given to a later `submit` stands for its result. The Ray executor
lives in `actors` and registers itself by entry point.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tsdf_ray.attackers import Work
from tsdf_ray.crew import ALONE, Seat
from tsdf_ray.errors import MatchFailed, OutOfMemory, UserError
from tsdf_ray.game.plan import Plan, Supply
from tsdf_ray.game.role import at_work
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.registry import look_up

Handle = Any
"""Stands for a result that may not be there yet; opaque to the loop."""


@dataclass(frozen=True)
class StepEvent:
    """One finished step, for events.jsonl. Times are seconds since the epoch."""

    match: str
    role: str
    step: str
    round: int
    pid: int
    start: float
    end: float
    work: tuple[Work, ...] = ()
    """What the step did to how many photos and what that cost, where its result says so."""
    attempt: int = 1
    """Which issue of the step this was: a role that dies has its step issued again."""


class Journal(Protocol):
    """Where an executor tells what happens. Calls come from any thread."""

    def event(self, event: StepEvent) -> None:
        """A step has ended."""
        ...

    def note(self, kind: str, text: str, **more: Any) -> None:
        """Something that people want to know: a role that was built anew, a wait for resources."""
        ...

    def log(self, line: Mapping[str, Any]) -> None:
        """Something for the event log alone: where a role sits."""
        ...


class Executor(Protocol):
    """Runs the steps of roles. `start` builds a role from (match, shared materials) where it will live.

    `check` is called while something is waited for, and may raise Stopped.
    """

    @property
    def parallel(self) -> int:
        """How many matches may be played side by side; may grow."""
        ...

    def start(self, role: type, match: MatchSpec, shared: Handle, check: Callable[[], None]) -> Handle: ...
    def submit(self, role: Handle, step: str, round: int, *args: Handle) -> Handle: ...
    def gather(self, handle: Handle, check: Callable[[], None]) -> Any: ...
    def share(self, value: object, *, lasting: bool = False) -> Handle: ...
    def stop(self, *roles: Handle) -> None: ...
    def close(self) -> None: ...


def role_name(role: type) -> str:
    """`defender` of DefenderRole."""
    return role.__name__.removesuffix("Role").lower()


def run_step(
    role: object, match: MatchSpec, step: str, round: int, args: tuple[Any, ...], attempt: int = 1
) -> tuple[Any, StepEvent]:
    """Run one step in this process and say when and where it ran. Both executors end here.

    Raises OutOfMemory in the place of what numpy and torch raise.
    """
    import torch

    torch.set_num_threads(match.scenario.threads)
    start = time.time()
    try:
        with at_work(role):
            result = getattr(role, step)(round, *args)
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        raise OutOfMemory(
            f"{step}: out of memory ({str(error).splitlines()[0] if str(error) else 'no text'})"
        ) from error
    name, work = role_name(type(role)), getattr(result, "work", ())
    return result, StepEvent(match.id, name, step, round, os.getpid(), start, time.time(), work, attempt)


def _is_memory(error: Exception) -> bool:
    """torch's CPU allocator raises a plain RuntimeError."""
    import torch

    texts = ("can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def after_memory(label: str, error: OutOfMemory, halvings: int) -> str:
    """The note on a first lack of memory. Raises MatchFailed, with a remedy, when micro-batches are halved already."""
    if halvings:
        raise MatchFailed(
            f"{label}: {error}, also with halved micro-batches; set a smaller micro_batch, or use a larger machine"
        ) from error
    return f"{label}: {error}; tried again with micro-batches of half the size"


@dataclass
class _Here:
    """A role in this process."""

    kind: type
    match: MatchSpec
    shared: Handle
    instance: Any
    halvings: int = 0


class InProcessExecutor:
    """Every step runs at once in the caller's process: for debuggers, notebooks and tests."""

    parallel = 1

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def start(self, role: type, match: MatchSpec, shared: Handle, check: Callable[[], None]) -> Handle:
        """The role itself, with its match."""
        return _Here(role, match, shared, role(match, shared, ALONE))

    def submit(self, role: Handle, step: str, round: int, *args: Handle) -> Handle:
        """Runs the step; the handle is the result. Out of memory: once more, with micro-batches halved."""
        attempt = 1
        while True:
            try:
                result, event = run_step(role.instance, role.match, step, round, args, attempt)
                break
            except OutOfMemory as error:
                text = after_memory(f"{role.match.id}: {role_name(role.kind)}", error, role.halvings)
                self._journal.note("micro-batches halved", text, match=role.match.id, step=step, round=round)
                role.halvings, attempt = role.halvings + 1, attempt + 1
                role.instance = role.kind(role.match, role.shared, Seat(halvings=role.halvings))
        self._journal.event(event)
        return result

    def gather(self, handle: Handle, check: Callable[[], None]) -> Any:
        """The result: it is there, so nobody has to be asked whether to go on waiting."""
        return handle

    def share(self, value: object, *, lasting: bool = False) -> Handle:
        """The value itself."""
        return value

    def stop(self, *roles: Handle) -> None:
        """Nothing to stop."""

    def close(self) -> None:
        """Nothing to close."""


def make_executor(
    name: str, journal: Journal, plan: Any, address: str | None, replan: Callable[[Supply], Plan] | None = None
) -> Executor:
    """`inprocess`, or a registered one (`ray`). Raises UserError for an unknown name.

    replan: the plan for another supply, asked when a cluster has grown.
    """
    if name == "inprocess":
        if address:
            raise UserError("--address needs --executor ray")
        return InProcessExecutor(journal)
    factory = look_up("executors", name, {"inprocess": InProcessExecutor})
    executor: Executor = factory(journal, plan, address, replan)  # type: ignore[call-arg]
    return executor
