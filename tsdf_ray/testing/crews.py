"""Crews of threads: what several workers of a role compute, without processes. For tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from tsdf_ray.crew import Crew

T = TypeVar("T")


class _Table:
    """What the threads of one crew lay down for each other."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=120)
        self.values: list[Any] = [None] * size


class ThreadCrew(Crew):
    """One thread of a crew."""

    def __init__(self, rank: int, size: int, table: _Table) -> None:
        self.rank, self.size = rank, size
        self._table = table

    def gather(self, value: T) -> list[T]:
        """Every thread's value."""
        self._table.values[self.rank] = value
        self._table.barrier.wait()
        values: list[T] = list(self._table.values)
        self._table.barrier.wait()
        return values

    def combine(self, partial: torch.Tensor | None, terms: list[torch.Tensor], length: int) -> torch.Tensor:
        """In order of ranks and items, as a group of processes does it."""
        own = ([] if partial is None else [partial]) + terms
        everything = [term for part in self.gather(own) for term in part]
        total = everything[0].clone()
        for term in everything[1:]:
            total.add_(term)
        assert total.numel() == length
        return total


def in_crew(size: int, work: Callable[[Crew], T]) -> list[T]:
    """`work(crew)` of `size` workers at once, each in a thread of its own; results in the order of ranks."""
    table = _Table(size)

    def one(rank: int) -> T:
        try:
            return work(ThreadCrew(rank, size, table))
        except BaseException:
            # The others would wait for this one.
            table.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(one, range(size)))
