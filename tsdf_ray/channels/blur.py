"""Gaussian blur, the simplest way to wash a perturbation out."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field

from tsdf_ray.channels.base import Channel, ChannelSettings


class BlurChannel(ChannelSettings):
    """`{kind: blur, sigma: s}`."""

    kind: Literal["blur"] = Field("blur", description="Gaussian blur")
    sigma: float = Field(1.0, gt=0.0, le=4.0, description="standard deviation of the Gaussian in pixels")


class Blur(Channel):
    """Gaussian blur; the kernel reaches three sigma to each side, edges are reflected. Photos of 16 px or more."""

    name: ClassVar[str] = "blur"

    def __init__(self, config: BlurChannel) -> None:
        self.config = config

    def apply(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Differentiable; a weighted mean, so the range is kept."""
        from kornia.filters import gaussian_blur2d

        side = 2 * math.ceil(3.0 * self.config.sigma) + 1
        sigma = (self.config.sigma, self.config.sigma)
        blurred: torch.Tensor = gaussian_blur2d(x_BCHW, (side, side), sigma, border_type="reflect")
        return blurred
