"""Resizing on the way: a site stores the photo at another size, and whoever collects it scales it back."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional

from tsdf_ray.channels.base import Channel, ChannelSettings
from tsdf_ray.channels.eight_bit import eight_bit


class ResizeChannel(ChannelSettings):
    """`{kind: resize, size: s}`."""

    kind: Literal["resize"] = Field("resize", description="stored at another size, then scaled back")
    size: int = Field(ge=16, le=2048, description="side in pixels at which the photo is stored")


class Resize(Channel):
    """To `size` x `size`, stored with 8 bits, and back; antialiased bicubic both ways, results clamped to the range."""

    name: ClassVar[str] = "resize"

    def __init__(self, config: ResizeChannel) -> None:
        self.config = config

    def apply(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Differentiable; a photo already of that size is only put on the 8-bit grid."""
        sides = (x_BCHW.shape[-2], x_BCHW.shape[-1])
        stored = eight_bit(_scale(x_BCHW, (self.config.size, self.config.size)))
        return _scale(stored, sides).clamp(-1.0, 1.0)


def _scale(x_BCHW: torch.Tensor, sides: tuple[int, int]) -> torch.Tensor:
    if tuple(x_BCHW.shape[-2:]) == sides:
        return x_BCHW
    return functional.interpolate(x_BCHW, sides, mode="bicubic", align_corners=False, antialias=True)
