"""Waiting for the nodes of a cluster, by asking it and never by sleeping a guessed time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from actors.cluster import Connection, connect, supply_now
from tsdf_ray.errors import UserError
from tsdf_ray.game.plan import Supply

POLL_SECONDS = 1.0
TELL_SECONDS = 5.0


def wait_for_nodes(address: str, nodes: int, seconds: float, tell: Callable[[str], None]) -> Supply:
    """What the cluster at `address` has once `nodes` nodes are alive; the head may still be starting.

    `tell` gets a line every few seconds that says what is missing. Raises UserError after `seconds`.
    """
    until, told = time.monotonic() + seconds, 0.0
    connection: Connection | None = None
    try:
        while True:
            try:
                connection = connection or _joined(address)
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


def _joined(address: str) -> Connection:
    """Raises UserError at once when nothing listens: Ray's own attempt takes 20 seconds."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "//" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=POLL_SECONDS).close()
        except OSError as error:
            raise UserError(f"nothing listens at {address} yet") from error
    return connect(address)
