"""A role's workers: one alone, or several that share its work and agree on every result.

All workers of a role run the same step with the same arguments (SPMD). Work comes in numbered items whose number and
bounds do not depend on how many workers there are: micro-batches of a batch, generators of an ensemble, chunks of
photos. Each worker computes a contiguous share of them; sums are taken in the order of the items, so that on a CPU one
worker and several get the same bits. Groups of processes join in `actors/group.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from tsdf_ray.errors import UserError

T = TypeVar("T")


def pieces(count: int, most: int | None) -> list[range]:
    """0..count-1 in consecutive ranges of at most `most` (None: one range); their bounds depend on nothing else."""
    size = count if most is None else most
    return [range(first, min(first + size, count)) for first in range(0, count, max(1, size))]


class Crew:
    """One worker, alone. What a group of several does otherwise is in its subclasses."""

    rank = 0
    size = 1

    def mine(self, items: int) -> range:
        """The items of this worker: contiguous, in the order of ranks, shares that differ by at most one."""
        return range(items * self.rank // self.size, items * (self.rank + 1) // self.size)

    def total(self, items: int) -> Total:
        """A sum over `items` items, to which this worker adds its own."""
        return Total(self, items)

    def combine(self, partial: torch.Tensor | None, terms: list[torch.Tensor], length: int) -> torch.Tensor:
        """The sum of all workers' `terms` (flat tensors of `length`), in order; of one worker, what it added up."""
        assert partial is not None, "a sum over no items"
        return partial

    def gather(self, value: T) -> list[T]:
        """Every worker's value, in the order of ranks, on every worker; values must be picklable."""
        return [value]


SOLO = Crew()


class Total:
    """Adds up lists of tensors, item by item in index order; every worker gets the whole sum.

        total = crew.total(len(parts))
        for i in total.mine:
            total.add(gradients_of(parts[i]))
        gradients = total.sum(like=parameters)

    Rank 0 keeps a running sum; the others keep their items until the sum of those before them arrives.
    """

    def __init__(self, crew: Crew, items: int) -> None:
        self._crew, self._items = crew, items
        self.mine = crew.mine(items)
        self._partial: torch.Tensor | None = None
        self._terms: list[torch.Tensor] = []
        self._added = 0

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        """The next of this worker's items: float32 tensors, in every item of the same shapes."""
        self._added += 1
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        if self._crew.rank:
            self._terms.append(flat)
        else:
            self._partial = flat if self._partial is None else self._partial.add_(flat)

    def sum(self, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Tensors shaped and placed as `like`: the sum of all items. Every worker calls it once."""
        assert self._added == len(self.mine), f"{self._added} items added, {len(self.mine)} are this worker's"
        sizes = [tensor.numel() for tensor in like]
        if self._crew.size == 1:
            flat = self._crew.combine(self._partial, self._terms, sum(sizes))
        else:
            device = like[0].device
            partial = None if self._partial is None else self._partial.to(device)
            flat = self._crew.combine(partial, [term.to(device) for term in self._terms], sum(sizes))
        parts = torch.split(flat, sizes)
        return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


@dataclass(frozen=True)
class Seat:
    """Where one worker of a role sits: its crew, its device, and how finely it must cut its batches."""

    crew: Crew = SOLO
    device: str = "cpu"
    """`cpu` or `cuda` (the process sees the GPU it was given, no other)."""
    shares_device: bool = False
    """Another role takes turns on the device: between steps nothing is left on it."""
    halvings: int = 0
    """How often micro-batches were halved after the memory ran out."""

    def micro_batch(self, batch: int, wanted: int | None) -> int:
        """Photos of a batch that are computed at once: what the scenario wants (None: the batch), halved as above.

        Raises UserError when there is nothing left to halve.
        """
        size = min(batch, wanted or batch)
        for _ in range(self.halvings):
            if size == 1:
                raise UserError("out of memory with a micro-batch of one photo; use a larger machine or smaller photos")
            size = math.ceil(size / 2)
        return size


ALONE = Seat()
