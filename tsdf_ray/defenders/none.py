"""`none`: photos are published as they are. The reference every protection is measured against."""

from __future__ import annotations

from typing import ClassVar

import torch

from tsdf_ray.defenders.base import DefenceState, Defender, DefenderConfig, Knowledge
from tsdf_ray.faces.faceset import FaceSet


class NoDefence(Defender):
    """Learns nothing and adds nothing."""

    name: ClassVar[str] = "none"
    config_class: ClassVar[type[DefenderConfig]] = DefenderConfig

    def learn(self, knowledge: Knowledge) -> DefenceState:
        """An empty state."""
        return DefenceState(knowledge)

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        """Zeros, float32 [1, 3, S, S]."""
        return torch.zeros(1, 3, photos.size, photos.size)
