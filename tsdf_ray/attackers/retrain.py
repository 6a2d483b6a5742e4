"""Retraining: the attacker fits its generator to what it collected, with the generator's own training loss.

Several workers train one generator together (`generators/micro_batches.py`); each of them has it whole, on its device.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from tsdf_ray.attackers.adversarial import AdversarialConfig, Hardener
from tsdf_ray.attackers.work import Work
from tsdf_ray.crew import ALONE, Seat, pieces
from tsdf_ray.errors import UserError
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.base import Family, Tensors
from tsdf_ray.generators.fresh import restart
from tsdf_ray.generators.train_config import TrainConfig
from tsdf_ray.generators.training import train

DECAY = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Default shares of the retraining steps after which a snapshot is kept."""


class RetrainConfig(BaseModel):
    """How the generator is retrained in a round. On what: `collect` says (`protected: 0` is the clean control)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["finetune", "scratch", "adversarial", "none"] = Field(
        "finetune",
        description="go on from the last generator, start from random weights, go on with photos protected afresh in "
        "every step, or leave it as it is",
    )
    adversarial: AdversarialConfig = Field(
        default_factory=AdversarialConfig, description="the protection that mode adversarial makes for itself"
    )
    warm_up: int = Field(
        100,
        ge=0,
        le=1_000_000,
        description="steps of the discriminator alone that go before, when the generator's file held none",
    )
    train: TrainConfig = Field(default_factory=TrainConfig, description="optimiser, rates, steps, batch")


@dataclass(frozen=True)
class Retrained:
    """The generator after a round, and how it got there."""

    tensors: Tensors
    """All parts of G_r."""
    snapshots: Mapping[float, Tensors] = field(repr=False)
    """The part `generator` after each share of the steps strictly between 0 and 1: 0 is G_{r-1}, 1 is `tensors`.
    Empty when nothing was trained: then G_r is G_{r-1} at every share."""
    steps: int
    """Training steps made; 0 when the generator stayed as it was."""
    losses: Mapping[str, float]
    """Mean of each weighted loss term over the steps; empty when none was made."""
    photos: int = 0
    """Photos seen: every photo as often as it stood in a batch (of generator or discriminator)."""
    protected: int = 0
    """How many of those were protected afresh (mode adversarial), by all workers."""
    work: tuple[Work, ...] = ()
    reason: str | None = None
    """Why the generator stayed as it was."""

    def step_at(self, share: float) -> int:
        """The step a share of the retraining stands for."""
        return snapshot_step(share, self.steps)


def snapshot_step(share: float, steps: int) -> int:
    """The whole step nearest to a share of `steps`, halves up."""
    return int(np.floor(share * steps + 0.5))


def pool_of(collected: Sequence[FaceSet]) -> FaceSet:
    """One set of several rounds' usable photos. Raises UserError when they differ in size or labels."""
    first = collected[0]
    for other in collected[1:]:
        if (other.size, other.attributes) != (first.size, first.attributes):
            raise UserError(
                f"pool: photos of {other.size} px with labels {other.attributes} cannot join photos of {first.size} px "
                f"with labels {first.attributes}; keep faces.size and the generator the same over the rounds"
            )
    return FaceSet(
        np.concatenate([photos.pixels_BCHW for photos in collected]),
        np.concatenate([photos.labels_BA for photos in collected]),
        first.attributes,
        tuple(name for photos in collected for name in photos.ids),
    )


def retrain(
    config: RetrainConfig,
    family: Family,
    photos: FaceSet,
    run_seed: int,
    names: tuple[str | int, ...],
    shares: Sequence[float] = DECAY,
    seat: Seat = ALONE,
    micro_batch: int | None = None,
) -> Retrained:
    """G_r from `family` (carrying G_{r-1}, all parts) and the usable photos; every draw is named by run_seed and names.

    `family` is trained in place, on the seat's device, together with the other workers of its crew, all of which call
    this with the same arguments; `micro_batch` divides a batch, as far as the seat does not divide it further. On a
    device that is shared with another role nothing stays. Fewer photos than a batch: it stays, and `reason` says so.

    Raises MatchFailed when a loss is not finite, UserError when there is nothing left to divide.
    """
    reason = None
    if config.mode == "none":
        reason = "the attacker does not retrain (retrain.mode: none)"
    elif len(photos) < config.train.batch:
        reason = f"{len(photos)} usable photos, fewer than a batch of {config.train.batch}"
    if reason is not None:
        return Retrained(family.tensors(), {}, 0, {}, reason=reason)
    if config.mode == "scratch":
        family = restart(family, run_seed, *names)
    steps = config.train.steps
    inner = {share: snapshot_step(share, steps) for share in shares if 0 < share < 1}
    hardener = Hardener(family, config.adversarial) if config.mode == "adversarial" else None
    kept = sorted(set(inner.values()))
    warm_up = config.warm_up if "discriminator" in family.fresh_parts and config.mode != "scratch" else 0
    size = seat.micro_batch(config.train.batch, micro_batch)
    with _on_the_device_of(seat, family):
        result = train(
            family,
            photos,
            config.train,
            run_seed,
            names,
            snapshots=kept,
            change=hardener,
            warm_up=warm_up,
            crew=seat.crew,
            micro_batch=size,
        )
        tensors = family.tensors()
    snapshots = {share: result.snapshots[step] for share, step in inner.items()}
    seen = steps * config.train.batch * config.train.discriminator_steps
    fresh = sum(config.adversarial.count(len(part)) for part in pieces(config.train.batch, size))
    protected = 0 if hardener is None else fresh * steps * config.train.discriminator_steps
    warmed = " after a warm-up of the fresh discriminator" if warm_up else ""
    work = (Work(f"retrain {config.mode}{warmed}", seen + warm_up * config.train.batch, result.seconds),)
    return Retrained(tensors, snapshots, steps, result.losses, seen, protected, work)


@contextmanager
def _on_the_device_of(seat: Seat, family: Family) -> Iterator[None]:
    for part in family.parts.values():
        part.to(seat.device)
    try:
        yield
    finally:
        if seat.shares_device:
            for part in family.parts.values():
                part.to("cpu")
            if seat.device == "cuda":
                gc.collect()  # what a cycle still holds is not given back
                torch.cuda.empty_cache()
