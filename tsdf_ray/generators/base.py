"""The `Family` contract: a deepfake generator, its discriminator, the loss it is trained with, its weights' names.

The attacker retrains a family with the family's own loss, the defender differentiates through `edit` and `features`,
the evaluator only calls `edit`. Conditions are target label vectors (float32 [B, A], 0 or 1) in the order of
`attributes`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel
from torch import nn

from tsdf_ray.errors import UserError

Tensors = dict[str, npt.NDArray[np.generic]]
"""Weights as numpy arrays: they cross process borders without a copy; names are `part.official_name`."""


class Family(ABC):
    """One family with its current weights. Photos are float32 [B, 3, H, W] in [-1, 1]."""

    name: ClassVar[str]
    config_class: ClassVar[type[BaseModel]]
    """The frozen config it is built from: `Family(config)`."""
    frozen_parts: tuple[str, ...] = ()
    """Parts that are never trained: they only serve the loss, or hold reference photos."""
    shares_fake: ClassVar[bool] = True
    """Whether both losses use edit(x, target), so that the caller computes it once for them."""
    rates: ClassVar[Mapping[str, float]] = {}
    """Step sizes of parts of the generator as multiples of its own, by prefix of the weights' names."""
    side_multiple: int = 1
    """Photos' sides must be multiples of this, and at least twice it."""
    fresh_parts: tuple[str, ...] = ()
    """Trained parts that its file did not hold (an official generator alone): retraining starts from fresh ones."""
    attributes: tuple[str, ...]
    parts: dict[str, nn.Module]
    """generator, discriminator, and what else its loss needs (frozen parts too); the prefix of tensor names."""

    @abstractmethod
    def __init__(self, config: BaseModel | None = None) -> None:
        """Fresh weights; `config` is an instance of `config_class`, None for its defaults."""

    @abstractmethod
    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        """G(x, c): the forged photos, float32 [B, 3, H, W], in [-1, 1] where the family's last layer is bounded.

        AttentionGAN's and HiSD's is not, as published: an edit may leave the range a little; `to_pixels` clamps.
        """

    @abstractmethod
    def features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        """The mid feature E(x) [B, F, h, w] of METHOD section 6, without running the decoder."""

    @abstractmethod
    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both of the above from one pass."""

    @abstractmethod
    def discriminator_loss(
        self,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        rng: torch.Generator,
        fake_BCHW: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Loss terms (scalars) of one discriminator step, already weighted: their sum is minimised.

        `fake_BCHW` is edit(x, target) where the caller has it already (detached here).
        """

    @abstractmethod
    def generator_loss(
        self,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        rng: torch.Generator,
        fake_BCHW: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Loss terms (scalars) of one generator step, already weighted: their sum is minimised.

        `fake_BCHW` is edit(x, target) with its graph, where the caller has it already.
        """

    @abstractmethod
    def config_json(self) -> str:
        """The family's frozen config as JSON: with it and the tensors the family can be built again."""

    def forgery_to_judge(
        self, x_BCHW: torch.Tensor, target_BA: torch.Tensor, fake_BCHW: torch.Tensor | None
    ) -> torch.Tensor:
        """edit(x, target) for a discriminator step: the caller's or made here, without a graph."""
        if fake_BCHW is None:
            with torch.no_grad():
                fake_BCHW = self.edit(x_BCHW, target_BA)
        return fake_BCHW.detach()

    def check_side(self, side: int, key: str) -> None:
        """Raises UserError, naming the config `key`, when photos of this side do not fit the networks."""
        step = self.side_multiple
        if side % step or side < 2 * step:
            raise UserError(
                f"{key}: {side} does not fit the generator {self.name}, which wants a multiple of {step} from "
                f"{2 * step} on; try {max(2 * step, round(side / step) * step)}"
            )

    def check_training_side(self, side: int, key: str) -> None:
        """As `check_side`, for photos that it is trained on: a discriminator may want one side alone."""
        self.check_side(side, key)

    def tensors(self, parts: tuple[str, ...] | None = None) -> Tensors:
        """A copy of all weights (or of some parts') as `part.name` -> numpy array."""
        return {
            f"{part}.{name}": value.detach().cpu().numpy().copy()
            for part, module in self.parts.items()
            if parts is None or part in parts
            for name, value in module.state_dict().items()
        }

    def load(self, tensors: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Put `tensors` (from `tensors()`, of all or some parts) in place. Copies: the arrays may be read-only."""
        for part, module in self.parts.items():
            own = {
                name.removeprefix(f"{part}."): torch.from_numpy(np.array(value))
                for name, value in tensors.items()
                if name.startswith(f"{part}.")
            }
            if own:
                module.load_state_dict(own)

    def to(self, device: str | torch.device) -> Self:
        """Move all parts to a device. Returns itself."""
        for module in self.parts.values():
            module.to(device)
        return self

    def freeze(self) -> Self:
        """Evaluation mode and no weight gradients: what the defender and the evaluator use. Returns itself."""
        for module in self.parts.values():
            module.eval().requires_grad_(False)
        return self


def check_tensors(
    where: str, expected: Mapping[str, npt.NDArray[np.generic]], found: Mapping[str, npt.NDArray[np.generic]]
) -> None:
    """Raise UserError naming the first tensor that is missing, unknown or of another shape."""
    for name, value in expected.items():
        if name not in found:
            raise UserError(f"{where}: tensor {name!r} is missing (expected shape {value.shape})")
        if value.shape != found[name].shape:
            raise UserError(f"{where}: tensor {name!r} has shape {found[name].shape}, expected {value.shape}")
    for name in found:
        if name not in expected:
            raise UserError(f"{where}: unknown tensor {name!r} (shape {found[name].shape})")
