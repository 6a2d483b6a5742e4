"""`pgd`: projected gradient steps on each photo ("Disrupting Deepfakes", Ruiz et al. 2020, arXiv 2003.01279).

The published "iterative class conditional" form: the requested edit changes with every step. Generators add up.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from tsdf_ray.defenders.base import DefenceState, Defender, DefenderConfig, Knowledge
from tsdf_ray.defenders.eot import GradientConfig
from tsdf_ray.defenders.interruption import output_alone
from tsdf_ray.defenders.learning import learn_per_image
from tsdf_ray.faces.faceset import FaceSet


class PgdConfig(GradientConfig):
    """Defaults as published."""

    steps: int = Field(10, ge=1, le=1000, description="sign steps per photo")
    step_size: float = Field(0.01, gt=0.0, le=1.0, description="of a sign step, on the [-1, 1] scale")
    batch: int = Field(8, ge=1, le=512, description="photos optimised at once, each on its own")


class Pgd(Defender):
    """Per image: x' starts at x + U(-epsilon, epsilon) and climbs MSE(G(x', c), G(x, c))."""

    name: ClassVar[str] = "pgd"
    config_class: ClassVar[type[DefenderConfig]] = PgdConfig
    config: PgdConfig

    @property
    def batch_per_image(self) -> int:
        """Photos optimised at once."""
        return self.config.batch

    def learn(self, knowledge: Knowledge) -> DefenceState:
        """No tensors: all work is done per photo."""
        return DefenceState(knowledge)

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        """One w per photo, float32 [B, 3, S, S] in +-epsilon.

        Raises MatchFailed without a generator, and when a gradient is not finite.
        """
        config = self.config
        steps = output_alone(config, config.step_size, config.batch)
        return learn_per_image(steps, config.steps, state.knowledge, photos, in_turn=True)
