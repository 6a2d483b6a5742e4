"""Waiting for the nodes of a cluster, by asking it and never by sleeping a guessed time."""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.cluster import Connection, connect, supply_now
from actors.listening import check_address
from tsdf_ray.errors import UserError
from tsdf_ray.game.plan import Supply

POLL_SECONDS = 1.0
TELL_SECONDS = 5.0


def wait_for_nodes(address: str, nodes: int, seconds: float, tell: Callable[[str], None]) -> Supply:
    """What the cluster at `address` has once `nodes` nodes are alive; the head may still be starting.

    `tell` gets a line every few seconds that says what is missing. Raises UserError after `seconds`, and at once
    for what is no address.
    """
    check_address(address)
    until, told = time.monotonic() + seconds, 0.0
    connection: Connection | None = None
    try:
        while True:
            try:
                connection = connection or connect(address)
                supply = supply_now()
                if len(supply.nodes) >= nodes:
                    return supply
                missing = f"{len(supply.nodes)} of {nodes} nodes are there"
            except UserError as error:
                missing = str(error)
            now = time.monotonic()
            if now >= until:
                raise UserError(f"--timeout: after {seconds:g} s {missing}; look at the nodes' own logs")
            if now - told >= TELL_SECONDS:
                told = now
                tell(f"waiting: {missing}")
            time.sleep(min(POLL_SECONDS, max(until - now, 0.0)))
    finally:
        if connection is not None:
            connection.close()
