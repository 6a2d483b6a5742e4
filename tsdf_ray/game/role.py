"""What all roles do with models that they keep between steps: have them on the device while a step runs.

Where two roles take turns on one device, nothing of the one that waits is on it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from tsdf_ray.crew import Seat


class Movable(Protocol):
    """A model: a detector, a judge, a family, a network of the user's."""

    def to(self, device: str, /) -> object:
        """Move its weights, in place."""
        ...


M = TypeVar("M", bound=Movable)


class Role:
    """A role of a match, in its seat."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._kept: list[Movable] = []

    def keep(self, model: M) -> M:
        """The model itself, kept between steps: on the seat's device from now on, or while steps run."""
        self._kept.append(model)
        if not self._seat.shares_device:
            model.to(self._seat.device)
        return model

    def placed(self, model: M) -> M:
        """The model itself, on the seat's device: for one step."""
        model.to(self._seat.device)
        return model

    def wake(self) -> None:
        """Before a step: what is kept goes to a shared device."""
        if self._seat.shares_device:
            for model in self._kept:
                model.to(self._seat.device)

    def rest(self) -> None:
        """After a step: nothing stays on a shared device."""
        if not self._seat.shares_device:
            return
        for model in self._kept:
            model.to("cpu")
        if self._seat.device == "cuda":
            import torch

            gc.collect()  # what only a cycle holds would keep its memory
            torch.cuda.empty_cache()


@contextmanager
def at_work(role: object) -> Iterator[None]:
    """A step of a role, awake; also when the step fails, it rests afterwards."""
    if not isinstance(role, Role):
        yield
        return
    try:
        role.wake()
        yield
    finally:
        role.rest()
