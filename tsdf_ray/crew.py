"""A role's workers: one alone, or several that share its work and agree on every result.

All workers of a role run the same step with the same arguments (SPMD). Work comes in numbered items whose number and
bounds do not depend on how many workers there are: micro-batches of a batch, generators of an ensemble, chunks of
photos. Each worker computes a contiguous share of them; sums are taken in the order of the items, so that on a CPU one
worker and several get the same bits. Groups of processes join in `actors/group.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from tsdf_ray.errors import MatchFailed, UserError

T = TypeVar("T")


def pieces(count: int, most: int | None) -> list[range]:
    """0..count-1 in consecutive ranges of at most `most` (None: one range); their bounds depend on nothing else."""
    size = count if most is None else most
    return [range(first, min(first + size, count)) for first in range(0, count, max(1, size))]


def span(parts: Sequence[range], mine: range) -> range:
    """What the consecutive `parts` numbered `mine` cover together; empty when they are none."""
    return range(parts[mine.start].start, parts[mine.stop - 1].stop) if len(mine) else range(0)


def shares(costs: Sequence[float], size: int) -> list[range]:
    """Items of these costs among `size` workers: contiguous, so that the dearest share costs as little as can be.

    The first workers get as much as the dearest share may cost, the last ones perhaps nothing.
    """
    low, high = max([sum(costs) / size, *costs]), sum(costs)
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if len(_filled(costs, middle)) <= size else (middle, high)
    found = _filled(costs, high)
    return found + [range(len(costs), len(costs))] * (size - len(found))


def _filled(costs: Sequence[float], most: float) -> list[range]:
    """Shares of at most `most`, each filled before the next begins."""
    found, first, cost = [], 0, 0.0
    for n, own in enumerate(costs):
        if n > first and cost + own > most:
            found.append(range(first, n))
            first, cost = n, 0.0
        cost += own
    return [*found, range(first, len(costs))]


class Crew:
    """One worker, alone. What a group of several does otherwise is in its subclasses."""

    rank = 0
    size = 1
    ordered = True
    """Sums are taken in the order of the items, to the bit; False: each worker adds up its own first."""

    def mine(self, items: int, costs: Sequence[float] | None = None) -> range:
        """The items of this worker: contiguous, in the order of ranks, shares that differ by at most one.

        With the `costs` of the items, shares whose dearest one costs as little as can be; all workers must name the
        same.
        """
        if costs is not None and self.size > 1:
            return shares(costs, self.size)[self.rank]
        return range(items * self.rank // self.size, items * (self.rank + 1) // self.size)

    def total(self, items: int, costs: Sequence[float] | None = None) -> Total:
        """A sum over `items` items, to which this worker adds its own (see `mine`)."""
        return Total(self, self.mine(items, costs))

    def combine(self, partial: torch.Tensor | None, terms: list[torch.Tensor], length: int) -> torch.Tensor:
        """The sum of all workers' `terms` (flat tensors of `length`), in order; of one worker, what it added up."""
        assert partial is not None, "a sum over no items"
        return partial

    def gather(self, value: T) -> list[T]:
        """Every worker's value, in the order of ranks, on every worker; values must be picklable."""
        return [value]

    def share(self, items: int, work: Callable[[range], T]) -> list[T]:
        """`work` on this worker's items: every worker's result, in the order of ranks, on every worker.

        Raises on all workers the UserError or MatchFailed that one of them met: none waits for it in vain.
        """
        if self.size == 1:
            return [work(range(items))]
        found: tuple[list[T], Exception | None]
        try:
            found = [work(self.mine(items))], None
        except (UserError, MatchFailed) as error:
            found = [], error
        everyone = self.gather(found)
        for _, met in everyone:
            if met is not None:
                raise met
        return [value for values, _ in everyone for value in values]


SOLO = Crew()


class Total:
    """Adds up lists of tensors, item by item in index order; every worker gets the whole sum.

        total = crew.total(len(parts))
        for i in total.mine:
            total.add(gradients_of(parts[i]))
        gradients = total.sum(like=parameters)

    Rank 0 keeps a running sum; the others keep their items until the sum of those before them arrives. In a crew
    that is not `ordered` all keep running sums.
    """

    def __init__(self, crew: Crew, mine: range) -> None:
        self._crew, self.mine = crew, mine
        self._partial: torch.Tensor | None = None
        self._terms: list[torch.Tensor] = []
        self._added = 0

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        """The next of this worker's items: float32 tensors, in every item of the same shapes."""
        self._added += 1
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        if self._crew.rank and self._crew.ordered:
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

    def alone(self) -> Seat:
        """The same place without the crew: for work that is divided already."""
        return replace(self, crew=SOLO)

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
