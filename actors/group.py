"""Workers of one role as a group of processes: a `Crew` whose sums and gathers go through torch.distributed.

Gloo on CPUs, NCCL on GPUs. On CPUs a sum is a chain: each worker adds its items to what came from the one before it, in
the order of the items, so that any number of workers gives the same bits. On GPUs it is an all-reduce, equal up to
rounding.
"""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import psutil
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from tsdf_ray.crew import Crew

T = TypeVar("T")
PATIENCE = 1800.0
"""Seconds a worker waits for the others of its group inside one operation."""
REACH_SECONDS = 30.0
"""Within so many it must get through to the meeting place, which is open before it is told of it; torch tries twice."""


class GroupBroken(Exception):
    """Another worker of the group is gone: this one cannot go on. The group is built anew as a whole."""


class GroupUnmet(GroupBroken):
    """The workers of a group have not found together."""


def open_store(host: str, size: int) -> TCPStore:
    """The group's meeting place, held by rank 0 of `size` workers on a free port of `host` (`store.port`)."""
    wait = datetime.timedelta(seconds=PATIENCE)
    return TCPStore(host, 0, size, is_master=True, timeout=wait, wait_for_workers=False)


class GroupCrew(Crew):
    """One worker of a group; the process is in this group until it ends."""

    def __init__(self, rank: int, size: int, device: str) -> None:
        self.rank, self.size = rank, size
        self.ordered = device != "cuda"

    @staticmethod
    def join(
        rank: int, size: int, host: str, port: int, device: str = "cpu", store: TCPStore | None = None
    ) -> GroupCrew:
        """Meet the others at rank 0's `open_store`: every worker calls it, rank 0 with the `store` itself.

        `host` is an address of the node that holds the store. Raises GroupUnmet when it cannot be reached, or when the
        others do not come.
        """
        with _broken_if_it_fails(f"worker {rank} of {size}, meeting at {host}:{port}", GroupUnmet):
            wait, reach = datetime.timedelta(seconds=PATIENCE), datetime.timedelta(seconds=REACH_SECONDS)
            meeting = store or TCPStore(host, port, size, is_master=False, timeout=reach, wait_for_workers=False)
            meeting.set_timeout(wait)
            # Gloo would ask for the address of the host's name, which on many nodes is 127.0.0.1.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", _interface_to(host))
            backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
            dist.init_process_group(backend, store=meeting, rank=rank, world_size=size, timeout=wait)
        return GroupCrew(rank, size, device)

    def combine(self, partial: torch.Tensor | None, terms: list[torch.Tensor], length: int) -> torch.Tensor:
        """See `Crew`; float32 tensors."""
        with _broken_if_it_fails("adding up"):
            return self._chained(partial, terms, length) if self.ordered else self._reduced(partial, terms, length)

    def _chained(self, partial: torch.Tensor | None, terms: list[torch.Tensor], length: int) -> torch.Tensor:
        # A worker without items passes on what it got; -0 + 0 would turn a sign, so an empty sum is not a zero.
        something = torch.zeros(1, dtype=torch.int64)
        if self.rank:
            dist.recv(something, self.rank - 1)
            if int(something):
                partial = torch.empty(length)
                dist.recv(partial, self.rank - 1)
        for term in terms:
            partial = term.cpu().clone() if partial is None else partial.add_(term)
        if self.rank < self.size - 1:
            dist.send(torch.tensor([partial is not None], dtype=torch.int64), self.rank + 1)
            if partial is not None:
                dist.send(partial, self.rank + 1)
        if self.rank < self.size - 1 or partial is None:
            partial = torch.empty(length)
        dist.broadcast(partial, self.size - 1)
        return partial

    def _reduced(self, partial: torch.Tensor | None, terms: list[torch.Tensor], length: int) -> torch.Tensor:
        device = torch.device("cuda", torch.cuda.current_device())
        whole = torch.zeros(length, device=device)
        for term in ([] if partial is None else [partial]) + terms:
            whole.add_(term.to(device))
        dist.all_reduce(whole)
        return whole

    def gather(self, value: T) -> list[T]:
        """See `Crew`."""
        values: list[T | None] = [None] * self.size
        with _broken_if_it_fails("gathering"):
            dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]


@contextmanager
def _broken_if_it_fails(what: str, kind: type[GroupBroken] = GroupBroken) -> Iterator[None]:
    """Torch says in many ways that a peer is gone."""
    try:
        yield
    except (RuntimeError, OSError, ValueError) as error:
        raise kind(f"{what}: {str(error).splitlines()[0]}") from error


def _interface_to(host: str) -> str:
    """Name of this node's network interface from which `host` is reached."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # of a datagram socket: nothing is sent
        own: str = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == own for address in addresses):
            return str(name)
    return "lo"
