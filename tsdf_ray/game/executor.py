"""Where a role's steps run: the protocol the round loop talks to, and the in-process executor.

Two verbs: `submit -> handle` and `gather`. A handle given to a later `submit` stands for its result. The Ray executor
lives in `actors` and registers itself by entry point.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tsdf_ray.attackers import Work
from tsdf_ray.errors import UserError
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


EventSink = Callable[[StepEvent], None]


class Executor(Protocol):
    """Runs the steps of roles. `start` builds a role from (match, shared materials) where it will live."""

    parallel: int
    """How many matches may be played side by side."""

    def start(self, role: type, match: MatchSpec, shared: Handle) -> Handle: ...
    def submit(self, role: Handle, step: str, round: int, *args: Handle) -> Handle: ...
    def gather(self, handle: Handle, check: Callable[[], None]) -> Any: ...
    def share(self, value: object) -> Handle: ...
    def stop(self, *roles: Handle) -> None: ...
    def close(self) -> None: ...


def run_step(role: object, match: MatchSpec, step: str, round: int, args: tuple[Any, ...]) -> tuple[Any, StepEvent]:
    """Run one step in this process and say when and where it ran. Both executors end here."""
    import torch

    torch.set_num_threads(match.scenario.threads)
    start = time.time()
    with at_work(role):
        result = getattr(role, step)(round, *args)
    name = type(role).__name__.removesuffix("Role").lower()
    return result, StepEvent(match.id, name, step, round, os.getpid(), start, time.time(), getattr(result, "work", ()))


class InProcessExecutor:
    """Every step runs at once in the caller's process: for debuggers, notebooks and tests."""

    parallel = 1

    def __init__(self, on_event: EventSink) -> None:
        self._on_event = on_event

    def start(self, role: type, match: MatchSpec, shared: Handle) -> Handle:
        """The role itself, with its match."""
        return match, role(match, shared)

    def submit(self, role: Handle, step: str, round: int, *args: Handle) -> Handle:
        """Runs the step; the handle is the result."""
        match, instance = role
        result, event = run_step(instance, match, step, round, args)
        self._on_event(event)
        return result

    def gather(self, handle: Handle, check: Callable[[], None]) -> Any:
        """The result: it is there, so nobody has to be asked whether to go on waiting."""
        return handle

    def share(self, value: object) -> Handle:
        """The value itself."""
        return value

    def stop(self, *roles: Handle) -> None:
        """Nothing to stop."""

    def close(self) -> None:
        """Nothing to close."""


def make_executor(name: str, on_event: EventSink, plan: Any, address: str | None) -> Executor:
    """`inprocess`, or a registered one (`ray`). Raises UserError for an unknown name."""
    if name == "inprocess":
        if address:
            raise UserError("--address needs --executor ray")
        return InProcessExecutor(on_event)
    factory = look_up("executors", name, {"inprocess": InProcessExecutor})
    executor: Executor = factory(on_event, plan, address)  # type: ignore[call-arg]
    return executor
