"""`found`: stage 1 alone, the direct ancestor of TSDF (FOUND, arXiv 2303.00200). Universal, or one w per photo."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from tsdf_ray.defenders.base import DefenceState, Defender, DefenderConfig, Knowledge
from tsdf_ray.defenders.interruption import InterruptionConfig
from tsdf_ray.defenders.learning import learn_per_image, learn_universal
from tsdf_ray.faces.faceset import FaceSet


class FoundConfig(InterruptionConfig):
    """Stage 1, universal (paper) or per image."""

    per_image: bool = Field(False, description="optimise one perturbation per photo when it is protected")
    per_image_steps: int = Field(16, ge=1, le=1000, description="end-to-end steps per photo when per_image")


class Found(Defender):
    """Interruption without poison."""

    name: ClassVar[str] = "found"
    config_class: ClassVar[type[DefenderConfig]] = FoundConfig
    config: FoundConfig

    @property
    def batch_per_image(self) -> int | None:
        """Photos optimised at once, when each has its own w."""
        return self.config.batch if self.config.per_image else None

    def learn(self, knowledge: Knowledge) -> DefenceState:
        """Tensor `w` float32 [1, 3, S, S]; none when per image (then `apply` optimises)."""
        if self.config.per_image:
            return DefenceState(knowledge)
        return DefenceState(knowledge, {"w": learn_universal(self.config, knowledge).numpy()})

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        """The learned w for any photos, or one w per photo."""
        if self.config.per_image:
            return learn_per_image(self.config, self.config.per_image_steps, state.knowledge, photos)
        return torch.tensor(state.tensors["w"])
