"""What the core asks of a Ray cluster without knowing Ray: who answers registers itself by entry point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tsdf_ray.game.plan import Supply
from tsdf_ray.jobs import Jobs
from tsdf_ray.registry import look_up

_NONE: dict[str, Any] = {}


def jobs_at(address: str) -> Jobs:
    """The jobs of the cluster whose dashboard is at `address`. Raises UserError: no answer, no token, a wrong one."""
    jobs: Jobs = look_up("clusters", "jobs", _NONE)(address)
    return jobs


def wait_for_nodes(address: str, nodes: int, seconds: float, tell: Callable[[str], None]) -> Supply:
    """What the cluster at `address` has once `nodes` nodes are alive; `tell` gets a line every few seconds until then.

    Raises UserError after `seconds`.
    """
    supply: Supply = look_up("clusters", "nodes", _NONE)(address, nodes, seconds, tell)
    return supply
