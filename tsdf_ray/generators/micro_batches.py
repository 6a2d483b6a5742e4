"""A training step by micro-batches, shared by the workers of a role.

A batch is divided into consecutive micro-batches whose bounds and draws do not depend on the number of workers; each
worker computes its share of them, and the sums go over all of them in index order. So every worker makes the same
optimiser step on the same weights, and on a CPU one worker and several get the same bits.

The reduction is explicit. DistributedDataParallel's hooks do not see `torch.autograd.grad` on a chosen list of weights
(a generator step asks for none of the discriminator's), nor are they made for the second derivative of a gradient
penalty, and it would keep rank 0's batch norm and drop the others'.

What a loss takes per batch is per micro-batch here: means over its photos, batch norm's statistics, the share of photos
that an identity term or adversarial retraining picks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from tsdf_ray.crew import Crew, Total, pieces

Losses = dict[str, torch.Tensor]
"""Weighted loss terms (scalars) with their graph."""
Terms = dict[str, float]


@dataclass
class MicroBatch:
    """Photos of a batch that are computed at once."""

    x_BCHW: torch.Tensor
    own_BA: torch.Tensor
    target_BA: torch.Tensor
    rng: torch.Generator
    """Of its draws, for the discriminator's step and then the generator's."""
    share: float
    """Of the batch: the weight of its gradients, terms and buffers."""
    fake_BCHW: torch.Tensor | None = None


class Buffers:
    """What the forward passes of some networks leave behind in them: batch norm's running statistics, for example.

    Every micro-batch starts from the same buffers; what it adds to them counts by its share of the photos, like its
    gradients. So the statistics move once per step and pass, towards those of the micro-batches' mean, and a buffer
    that no pass touches keeps its bits.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = tuple(modules)
        self._start = self._copies()

    def all(self) -> list[torch.Tensor]:
        """The buffers as they are; a pass may have put new ones in the place of old ones."""
        return [buffer for module in self._modules for buffer in module.buffers()]

    def _copies(self) -> list[torch.Tensor]:
        return [buffer.clone() for buffer in self.all()]

    def _put(self, values: Sequence[torch.Tensor]) -> None:
        for buffer, value in zip(self.all(), values, strict=True):
            buffer.copy_(value)

    def start(self) -> None:
        """From here every micro-batch goes on."""
        self._start = self._copies()

    def rewind(self) -> None:
        """Back to `start`."""
        self._put(self._start)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Passes in here leave nothing behind."""
        before = self._copies()
        yield
        self._put(before)

    def added(self, share: float) -> list[torch.Tensor]:
        """What was added since `start`, times `share`: float32. Through float64, in which whole numbers are exact."""
        pairs = zip(self.all(), self._start, strict=True)
        return [(share * (now.double() - start.double())).float() for now, start in pairs]

    def settle(self, added: Sequence[torch.Tensor]) -> None:
        """The buffers of `start` and what all micro-batches added to them; whole numbers stay whole."""
        for buffer, start, more in zip(self.all(), self._start, added, strict=True):
            value = start.double() + more.double()
            value = value if buffer.is_floating_point() else value.round()
            buffer.copy_(torch.where(more == 0, start, value.to(start.dtype)))


class Division:
    """How a step's batch is divided into micro-batches, and these among the workers of a crew.

    A batch that is not divided is computed as it always was, by every worker: there is nothing to share.
    """

    def __init__(self, batch: int, micro_batch: int | None, crew: Crew, modules: Sequence[nn.Module]) -> None:
        """`modules` are the networks whose buffers their forward passes may change."""
        self._ranges = pieces(batch, micro_batch)
        self._crew, self._batch = crew, batch
        self.divided = len(self._ranges) > 1
        self.buffers = Buffers(modules)

    def mine(
        self,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        rng: torch.Generator,
        rng_of: Callable[[int], torch.Generator],
    ) -> list[MicroBatch]:
        """This worker's micro-batches of a batch. Each has draws of its own; an undivided batch goes on with `rng`."""
        if not self.divided:
            return [MicroBatch(x_BCHW, own_BA, target_BA, rng, 1.0)]
        found = []
        for i in self._crew.mine(len(self._ranges)):
            photos = slice(self._ranges[i].start, self._ranges[i].stop)
            share = len(self._ranges[i]) / self._batch
            found.append(MicroBatch(x_BCHW[photos], own_BA[photos], target_BA[photos], rng_of(i), share))
        return found

    def gradients(
        self,
        mine: Sequence[MicroBatch],
        losses_of: Callable[[MicroBatch], Losses],
        weights: Sequence[torch.Tensor],
        check: Callable[[Terms], None],
    ) -> tuple[Terms, list[torch.Tensor | None]]:
        """Loss terms and gradients of the whole batch, the same on every worker; None for a weight no photo depends on.

        `check` raises for terms that are not fit: called with those of every micro-batch, in order, on every worker.
        """
        if not self.divided:
            losses = losses_of(mine[0])
            terms = _values(losses)
            check(terms)
            return terms, _slopes(losses, 1.0, weights)
        total = self._crew.total(len(self._ranges))
        self.buffers.start()
        own: list[tuple[Terms, list[bool]]] = []
        for part in mine:
            own.append(self._add(total, part, losses_of, weights))
        everyone = [item for items in self._crew.gather(own) for item in items]
        for terms, _ in everyone:
            check(terms)
        sums = total.sum(like=[*weights, *self.buffers.all()])
        self.buffers.settle(sums[len(weights) :])
        reached = [any(has) for has in zip(*(has for _, has in everyone), strict=True)]
        gradients = [s if has else None for s, has in zip(sums[: len(weights)], reached, strict=True)]
        return self._mean([terms for terms, _ in everyone]), gradients

    def _add(
        self,
        total: Total,
        part: MicroBatch,
        losses_of: Callable[[MicroBatch], Losses],
        weights: Sequence[torch.Tensor],
    ) -> tuple[Terms, list[bool]]:
        """Add a micro-batch's gradients; its terms, and which weights it reaches. Nothing else of it is kept."""
        self.buffers.rewind()
        losses = losses_of(part)
        slopes = _slopes(losses, part.share, weights)
        filled = [torch.zeros_like(w) if s is None else s for s, w in zip(slopes, weights, strict=True)]
        total.add([*filled, *self.buffers.added(part.share)])
        return _values(losses), [slope is not None for slope in slopes]

    def _mean(self, terms: Sequence[Terms]) -> Terms:
        """Weighted by photos; a term that a micro-batch is too small for counts as 0 there."""
        names = dict.fromkeys(name for found in terms for name in found)
        shares = [len(photos) / self._batch for photos in self._ranges]
        return {
            name: sum(share * found.get(name, 0.0) for share, found in zip(shares, terms, strict=True))
            for name in names
        }


def _values(losses: Losses) -> Terms:
    return {term: float(loss.detach()) for term, loss in losses.items()}


def _slopes(losses: Losses, share: float, weights: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """Of the sum of the terms, times `share`, for these weights alone: nobody pays for other parts' gradients."""
    total = torch.stack(list(losses.values())).sum() * share
    return list(torch.autograd.grad(total, list(weights), allow_unused=True))
