"""What the machine or cluster has, as `plan` wants it."""

from __future__ import annotations

import os

from tsdf_ray.game.plan import Supply
from tsdf_ray.registry import look_up


def local_supply() -> Supply:
    """CPUs this process may use, and GPUs torch sees."""
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Supply(float(cpus), float(torch.cuda.device_count()))


def supply_of(executor: str, address: str | None) -> Supply:
    """The supply of an executor: this machine's, unless the executor's class knows better (a cluster at `address`).

    Raises UserError when the executor is unknown or the cluster does not answer.
    """
    if executor == "inprocess" or address is None:
        return local_supply()
    supply: Supply = look_up("executors", executor, {}).supply(address)
    return supply
