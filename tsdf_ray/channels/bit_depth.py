"""Fewer bits per colour: a perturbation smaller than a step is rounded away, or to a whole step."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from tsdf_ray.channels.base import Channel, ChannelSettings


class BitDepthChannel(ChannelSettings):
    """`{kind: bit_depth, bits: b}`."""

    kind: Literal["bit_depth"] = Field("bit_depth", description="fewer levels per colour")
    bits: int = Field(4, ge=1, le=8, description="2^bits levels, black and white among them")


class BitDepth(Channel):
    """Every colour to the nearest of 2^bits equally spaced levels (Xu et al., Feature Squeezing, NDSS 2018)."""

    name: ClassVar[str] = "bit_depth"

    def __init__(self, config: BitDepthChannel) -> None:
        self.config = config

    def apply(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The gradient passes unchanged (straight-through, as for the 8-bit grid)."""
        half = (2**self.config.bits - 1) / 2
        levels = ((x_BCHW + 1.0) * half).round() / half - 1.0
        passed: torch.Tensor = x_BCHW + (levels - x_BCHW).detach()
        return passed
