"""Median blur: removes what is smaller than its window, keeps edges."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from tsdf_ray.channels.base import Channel, ChannelSettings


class MedianChannel(ChannelSettings):
    """`{kind: median, radius: r}`."""

    kind: Literal["median"] = Field("median", description="median blur, each colour on its own")
    radius: int = Field(1, ge=1, le=8, description="the window is a square of 2 radius + 1 pixels")


class Median(Channel):
    """Median over a square window; edges are reflected. Photos larger than the radius."""

    name: ClassVar[str] = "median"

    def __init__(self, config: MedianChannel) -> None:
        self.config = config

    def apply(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Differentiable: the gradient goes to the pixel that is the median."""
        # kornia's median_blur pads with zeros, mid-grey here, which darkens or lightens corners.
        radius, side = self.config.radius, 2 * self.config.radius + 1
        padded = torch.nn.functional.pad(x_BCHW, (radius,) * 4, mode="reflect")
        windows = padded.unfold(2, side, 1).unfold(3, side, 1).flatten(-2)
        return windows.median(-1).values
