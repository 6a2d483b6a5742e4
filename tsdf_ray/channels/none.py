"""The channel that changes nothing: a photo is published as it is."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from tsdf_ray.channels.base import Channel, ChannelSettings, Pixels


class NoChannel(ChannelSettings):
    """`{kind: none}`."""

    kind: Literal["none"] = Field("none", description="the photo arrives as it is")


class Identity(Channel):
    """Photos in, the same photos out."""

    name: ClassVar[str] = "none"

    def __init__(self, config: NoChannel) -> None:
        self.config = config

    def apply(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """`x_BCHW` itself."""
        return x_BCHW

    def publish(self, pixels_BCHW: Pixels) -> Pixels:
        """A copy, bit for bit."""
        return pixels_BCHW.copy()
