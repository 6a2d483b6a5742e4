"""AttentionGAN v1, multi-domain (Tang et al. 2019, arXiv 1903.12296): StarGAN's trunk with an attention mask.

The last layer gives one mask and three content maps: G(x, c) = m * content + (1 - m) * x with m = sigmoid(mask), so the
generator says where it edits. Discriminator and loss are those of StarGAN, as in the published multi-domain code (the
paper's pixel and attention terms are not in it). The content is not bounded: an edit may leave [-1, 1] a little.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import BaseModel

from tsdf_ray.generators.stargan import LabelGenerator, StarGAN, StarGANConfig


class AttentionGANConfig(StarGANConfig):
    """Size and loss of AttentionGAN: StarGAN's, with the official defaults for 256 px."""


class AttentionGANGenerator(LabelGenerator):
    """The photo is a blend of the input and three content maps, by an attention mask."""

    outputs: ClassVar[int] = 4

    def attend(self, mid_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mask [B, 1, H, W] in (0, 1) and the content [B, 3, H, W], unbounded, from the mid feature."""
        maps = self.maps(mid_BCHW)
        return torch.sigmoid(maps[:, :1]), maps[:, 1:]

    def decode(self, mid_BCHW: torch.Tensor, x_BCHW: torch.Tensor) -> torch.Tensor:
        mask, content = self.attend(mid_BCHW)
        return content * mask + x_BCHW * (1 - mask)


class AttentionGAN(StarGAN):
    """AttentionGAN with its discriminator and its full loss."""

    name: ClassVar[str] = "attentiongan"
    config_class: ClassVar[type[BaseModel]] = AttentionGANConfig
    generator_class: ClassVar[type[LabelGenerator]] = AttentionGANGenerator

    def __init__(self, config: AttentionGANConfig | None = None) -> None:
        super().__init__(config or AttentionGANConfig())
