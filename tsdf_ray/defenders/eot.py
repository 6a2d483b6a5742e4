"""Expectation over transformations (Athalye et al. 2018, arXiv 1707.07397): learn through what happens to a photo.

Every step of a gradient defence sees the protected photo through one channel, drawn from a list. The clean side it
compares with stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pydantic import Field

from tsdf_ray.channels import Channel, ChannelConfig, make_channel
from tsdf_ray.defenders.base import DefenderConfig

View = Callable[[torch.Tensor], torch.Tensor]
"""Photos [B, 3, H, W] in [-1, 1] as they arrive; differentiable."""


class GradientConfig(DefenderConfig):
    """What every defence that follows a gradient has."""

    eot: tuple[ChannelConfig, ...] = Field(
        (), max_length=32, description="channels, one drawn per step, that the protected photo passes; none: as it is"
    )


def draw_view(channels: Sequence[ChannelConfig], rng: torch.Generator) -> View:
    """One of `channels`, drawn uniformly; without any the photo itself, and nothing is drawn."""
    if not channels:
        return lambda x_BCHW: x_BCHW
    channel = make_channel(channels[int(torch.randint(len(channels), (), generator=rng))])
    return lambda x_BCHW: through(channel, x_BCHW)


def through(channel: Channel, x_BCHW: torch.Tensor) -> torch.Tensor:
    """The photos after `channel`. Where it passes no gradient, the gradient goes straight through (Bengio et al. 2013,
    arXiv 1308.3432)."""
    arrived_BCHW = channel.apply(x_BCHW)
    if x_BCHW.requires_grad and not arrived_BCHW.requires_grad:
        return x_BCHW + (arrived_BCHW - x_BCHW).detach()
    return arrived_BCHW
