"""The base class owns the budget: whatever a defence computes, nothing outside it can be published.

A defence implements `learn` (once per round, from what it may know) and `apply` (a raw perturbation for any photos).
`perturb` is final: it refuses NaN and wrong shapes, clips to epsilon, and rounds towards zero to whole 1/255 steps so
that the published photo itself stays inside the budget. `protect` adds it to photos on the 8-bit grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar, final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field

from tsdf_ray.crew import ALONE, Seat
from tsdf_ray.detectors.base import Detector
from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.base import Family


class DefenderConfig(BaseModel):
    """What every defence has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: float = Field(0.05, ge=0.0, le=1.0, description="L-infinity budget on the [-1, 1] scale (0.05: 6.375/255)")
    detectors: tuple[str, ...] = Field((), description="face detectors the defender knows (white box)")


T = TypeVar("T")


class Known(Mapping[str, T]):
    """Models a defender may know, by name. Asking for another one raises MatchFailed: nobody knows it by accident."""

    def __init__(self, what: str, models: Mapping[str, T]) -> None:
        self._what = what
        self._models = dict(models)

    def __getitem__(self, name: str) -> T:
        if name not in self._models:
            known = ", ".join(self._models) or "none"
            raise MatchFailed(f"the defender asked for {self._what} {name!r}, which it may not know; known: {known}")
        return self._models[name]

    def __contains__(self, name: object) -> bool:
        return name in self._models

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)


@dataclass(frozen=True)
class Knowledge:
    """What the match lets a defender see in one round; asking for another model raises MatchFailed."""

    run_seed: int
    round: int
    generators: Mapping[str, Family]
    """Frozen generators it may differentiate through, by name; with `last_round` the attacker's G_{r-1}."""
    detectors: Mapping[str, Detector]
    """Frozen detectors it knows, by name."""
    photos: FaceSet
    """The defender's own photos to learn on."""
    precision: str = "float32"
    """`bfloat16` runs generator passes under autocast."""
    seat: Seat = ALONE
    """The worker that computes, and the crew it shares the work with."""
    micro_batch: int | None = None
    """Photos of a batch that are computed at once; None: the batch."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "generators", Known("generator", self.generators))
        object.__setattr__(self, "detectors", Known("detector", self.detectors))


@dataclass(frozen=True)
class DefenceState:
    """What `learn` found: tensors for the checkpoint, and the knowledge `apply` may use again."""

    knowledge: Knowledge
    tensors: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    """Float32 or integer arrays, for example `w` [1, 3, H, W] on the [-1, 1] scale."""


class Defender(ABC):
    """One protection. Subclasses keep nothing between calls: `learn` and `apply` may be issued twice (beam 3)."""

    name: ClassVar[str]
    config_class: ClassVar[type[DefenderConfig]]

    def __init__(self, config: DefenderConfig) -> None:
        self.config = config

    @abstractmethod
    def learn(self, knowledge: Knowledge) -> DefenceState:
        """Learn this round's defence."""

    @abstractmethod
    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        """Raw perturbation for `photos`: float [1, 3, S, S] (universal) or [B, 3, S, S], on the [-1, 1] scale."""

    @final
    def perturb(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        """The perturbation as published: float32 [1 or B, 3, S, S], whole 1/255 steps, |w| <= epsilon.

        Raises MatchFailed when the defence returned NaN, infinity or a wrong shape.
        """
        raw = self.apply(state, photos).detach().float().cpu()
        wanted = (3, photos.size, photos.size)
        if raw.ndim != 4 or raw.shape[0] not in {1, len(photos)} or tuple(raw.shape[1:]) != wanted:
            raise MatchFailed(
                f"defender {self.name}: perturbation of shape {tuple(raw.shape)}, expected B or 1 x {wanted}"
            )
        if not bool(torch.isfinite(raw).all()):
            raise MatchFailed(f"defender {self.name}: the perturbation is not finite (NaN or infinity)")
        return to_budget(raw, self.config.epsilon)

    @final
    def protect(self, state: DefenceState, photos: FaceSet) -> FaceSet:
        """`photos` plus the perturbation, clamped to the image range: what is published, before the channel."""
        steps = (self.perturb(state, photos) * 127.5).round().to(torch.int16)
        pixels = torch.from_numpy(photos.pixels_BCHW.astype(np.int16)) + steps
        return photos.with_pixels(pixels.clamp(0, 255).to(torch.uint8).numpy())


def to_budget(raw_BCHW: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Clip to +-epsilon and round towards zero to whole steps of the 8-bit grid (one step is 2/255 on [-1, 1])."""
    clipped = raw_BCHW.clamp(-epsilon, epsilon)
    # A value a rounding error below a whole step is that step: without the nudge epsilon = k/127.5 would lose it.
    return torch.trunc(clipped.double() * 127.5 * (1 + 1e-6)).float() / 127.5
