"""What the machine or cluster has, as `plan` wants it."""

from __future__ import annotations

import os

from tsdf_ray.errors import UserError
from tsdf_ray.game.executor import InProcessExecutor
from tsdf_ray.game.plan import Supply
from tsdf_ray.registry import look_up


def local_supply() -> Supply:
    """CPUs this process may use, and GPUs torch sees."""
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Supply(float(cpus), float(torch.cuda.device_count()))


def supply_of(executor: str, address: str | None) -> Supply:
    """The supply of an executor: this machine's, unless the executor's class knows better: of a cluster at `address`,
    or of one that this process has joined already.

    Raises UserError when the executor is unknown, takes no address, or the cluster does not answer: asked before a run
    is made, so that such a mistake leaves nothing behind.
    """
    kind = look_up("executors", executor, {"inprocess": InProcessExecutor})
    if executor == "inprocess" and address is not None:
        raise UserError("--address needs --executor ray")
    if executor == "inprocess":
        return local_supply()
    supply: Supply | None = kind.supply(address)  # type: ignore[attr-defined]
    return local_supply() if supply is None else supply
