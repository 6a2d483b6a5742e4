"""The actor around a role: a process of its own that runs one role's steps, and nothing else."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

import ray

from tsdf_ray.game.executor import StepEvent, run_step
from tsdf_ray.game.spec import MatchSpec


def _give_memory_back() -> None:
    """Free heap pages go back to the system between steps: glibc would keep every step's peak, in every role."""
    libc = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(libc), "malloc_trim", None) if libc else None
    if trim is not None:
        trim(0)


@ray.remote(max_restarts=0, max_task_retries=0)
class RoleActor:
    """Holds one role of one match. Never retried by Ray: a retried call would silently run on a fresh actor."""

    def __init__(self, role: type, match: MatchSpec, shared: Any) -> None:
        import torch

        torch.set_num_threads(match.scenario.threads)
        self._match = match
        self._role = role(match, shared)

    def run(self, step: str, round: int, *args: Any) -> tuple[Any, StepEvent]:
        """One step: its result (stays in the object store until asked for) and its event."""
        try:
            return run_step(self._role, self._match, step, round, args)
        finally:
            _give_memory_back()
