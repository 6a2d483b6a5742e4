"""Joining or starting Ray, and asking it what it has."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray._private.utils as ray_utils
from ray._private import auto_init_hook
from ray.exceptions import AuthenticationError

from actors.listening import check_listening
from actors.token import REMEDY, use_token
from tsdf_ray.address import cluster_address
from tsdf_ray.errors import UserError
from tsdf_ray.game.plan import Supply
from tsdf_ray.game.supply import local_supply

OBJECT_STORE_BYTES = 400 << 20
"""Of a local cluster: photo sets and weights of a few matches; the default would take 30 % of memory."""


def checked_address(address: str | None) -> str | None:
    """The cluster to join, as `cluster_address`. Raises UserError, before other work is done, when none answers."""
    found = cluster_address(address)
    if found is not None and not ray.is_initialized():
        check_listening(found)
    return found


class Connection:
    """A connection to Ray; `close` ends only what this process started."""

    def __init__(self, owned: bool) -> None:
        self._owned = owned

    def close(self) -> None:
        """Disconnect, if we connected."""
        if self._owned:
            ray.shutdown()


def connect(address: str | None) -> Connection:
    """Use the session already joined, join the cluster at `address`, or start a local one.

    A local one is always started with `address="local"`: without it, Ray attaches to any cluster whose record lies in
    the temporary folder, even a crashed one. Raises UserError when the cluster cannot be reached or started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Answers of workers that died are not looked at: the supervisor says what it has mended.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    if ray.is_initialized():
        return Connection(owned=False)
    # A thread of Ray Data that outlives our connection would start, or join, another Ray on its own.
    auto_init_hook.enable_auto_connect = False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        check_listening(address)
        use_token()
        try:
            with _handler_kept():
                ray.init(address=address, **options)
        except AuthenticationError as error:
            raise UserError(f"--address {address}: the cluster wants a token, and there is none; {REMEDY}") from error
        except (ConnectionError, RuntimeError, ValueError) as error:
            # Ray says no more when a cluster refuses a token.
            raise UserError(
                f"--address {address}: no cluster answers there ({error}), or it refuses our token; start one or leave "
                f"--address and RAY_ADDRESS out, or {REMEDY}"
            ) from error
    else:
        try:
            with _handler_kept():
                ray.init(
                    address="local",
                    num_cpus=int(local_supply().cpus),
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    **options,
                )
        except Exception as error:
            # Whatever it was, Ray raises a plain Exception when its processes do not start in time.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"Ray cannot be started on this machine ({reason}); a busy machine needs longer than Ray waits: try "
                "again when it is less so, or play with `--executor inprocess`"
            ) from error
    return Connection(owned=True)


@contextmanager
def _handler_kept() -> Iterator[None]:
    """`ray.init` puts SIGTERM handlers in place that exit at once, with codes of their own; one that our host had set
    stays, also while Ray starts: a scheduler may send the signal at that moment."""
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    theirs = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = theirs
        signal.signal(signal.SIGTERM, before)


def cluster_supply(address: str | None) -> Supply:
    """What the cluster at `address` has, or the one joined already. Raises UserError when it cannot be reached."""
    connection = connect(address)
    try:
        return supply_now()
    finally:
        connection.close()


def supply_now() -> Supply:
    """What the nodes of the cluster we are connected to have."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = tuple((float(has.get("CPU", 0.0)), float(has.get("GPU", 0.0))) for has in alive)
    return Supply(sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes), nodes)
