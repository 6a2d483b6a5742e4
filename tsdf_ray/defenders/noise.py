"""`noise`: uniform noise in +-epsilon, drawn per photo. A protection without an idea: whoever beats it has one."""

from __future__ import annotations

from typing import ClassVar

import torch

from tsdf_ray.defenders.base import DefenceState, Defender, DefenderConfig, Knowledge
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.randomness import torch_rng


class Noise(Defender):
    """Every photo has its own noise, named by run seed, round and photo id."""

    name: ClassVar[str] = "noise"
    config_class: ClassVar[type[DefenderConfig]] = DefenderConfig

    def learn(self, knowledge: Knowledge) -> DefenceState:
        """An empty state: the noise is drawn where it is applied."""
        return DefenceState(knowledge)

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        """Uniform in [-epsilon, epsilon), float32 [B, 3, S, S]."""
        seed, round_ = state.knowledge.run_seed, state.knowledge.round
        shape = (3, photos.size, photos.size)
        drawn = [torch.rand(shape, generator=torch_rng(seed, round_, "defender", "noise", name)) for name in photos.ids]
        return (torch.stack(drawn) * 2 - 1) * self.config.epsilon if drawn else torch.zeros(0, *shape)
