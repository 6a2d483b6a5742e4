"""The actor around a role: a process of its own that runs one role's steps, match after match, and nothing else."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import time
from dataclasses import dataclass
from typing import Any

import ray

from actors.group import GroupCrew, GroupUnmet, open_store
from tsdf_ray.crew import SOLO, Crew, Seat
from tsdf_ray.game.executor import StepEvent, run_step
from tsdf_ray.game.spec import MatchSpec

SHORT_SECONDS = 0.05
"""A step that took less has left no heap worth giving back."""


def _give_memory_back() -> None:
    """Free heap pages go back to the system between steps: glibc would keep every step's peak, in every role."""
    libc = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(libc), "malloc_trim", None) if libc else None
    if trim is not None:
        trim(0)


@dataclass(frozen=True)
class Place:
    """Where a worker sits."""

    pid: int
    node: str
    """Ray's id of the node."""
    device: str


@dataclass(frozen=True)
class Answer:
    """What a step gave, and its event; of the first worker alone."""

    result: Any
    event: StepEvent | None


@ray.remote(max_restarts=0, max_task_retries=0)
class RoleActor:
    """One worker of one role. Never retried by Ray: a retried call would silently run on a fresh actor."""

    def __init__(self, memory: float, shares_device: bool, alone: bool) -> None:
        """`memory`: the share of its GPU that it may take, where it has one. `alone`: it is the role's only worker."""
        import torch

        self._device = "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"
        if self._device == "cuda":
            torch.cuda.set_per_process_memory_fraction(memory)
        self._shares_device = shares_device
        self._crew: Crew | GroupUnmet = SOLO if alone else GroupUnmet("the workers were not brought together")
        """One of a group never works alone, and tells why it would have to."""
        self._store: Any = None
        self._match: MatchSpec | None = None
        self._role: Any = None
        self._error: Exception | None = None

    def open(self, size: int) -> tuple[str, int]:
        """Of the first worker: address and port at which a group of `size` meets."""
        host = ray.util.get_node_ip_address()
        self._store = open_store(host, size)
        return host, self._store.port

    def join(self, rank: int, size: int, meeting: tuple[str, int]) -> None:
        """Meet the other workers of the role; that it failed is told by `become`."""
        try:
            self._crew = GroupCrew.join(rank, size, *meeting, device=self._device, store=self._store)
        except GroupUnmet as error:
            self._crew = error

    def become(self, role: type, match: MatchSpec, shared: Any, halvings: int) -> Place:
        """Be this role of this match from now on; what went wrong is told by the steps. Raises GroupUnmet."""
        import torch

        if isinstance(self._crew, GroupUnmet):
            raise self._crew
        torch.set_num_threads(match.scenario.threads)
        self._match, self._role, self._error = match, None, None
        try:
            self._role = role(match, shared, Seat(self._crew, self._device, self._shares_device, halvings))
        except Exception as error:  # noqa: BLE001 - told by the first step
            self._error = error
        return Place(os.getpid(), ray.get_runtime_context().get_node_id(), self._device)

    def begin(
        self, role: type, match: MatchSpec, shared: Any, halvings: int, step: str, round: int, attempt: int, *args: Any
    ) -> Answer:
        """`become`, and the first step, in one call."""
        self.become(role, match, shared, halvings)
        return self.run(step, round, attempt, *args)

    def run(self, step: str, round: int, attempt: int, *args: Any) -> Answer:
        """One step; its answer stays in the object store until asked for. Answers among `args` stand for results."""
        if isinstance(self._crew, GroupUnmet):
            raise self._crew
        if self._error is not None:
            raise self._error
        assert self._match is not None, "a step before `become`"
        plain = tuple(arg.result if isinstance(arg, Answer) else arg for arg in args)
        began = time.monotonic()
        try:
            result, event = run_step(self._role, self._match, step, round, plain, attempt)
        finally:
            if time.monotonic() - began > SHORT_SECONDS:
                _give_memory_back()
        return Answer(result, event) if self._crew.rank == 0 else Answer(None, None)
