"""What happens to a photo on its way: 8-bit, JPEG, resize, blur and other filters.

Used by publication, purification and EOT.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tsdf_ray.channels.base import Channel, Pixels
from tsdf_ray.channels.bit_depth import BitDepth, BitDepthChannel
from tsdf_ray.channels.blur import Blur, BlurChannel
from tsdf_ray.channels.eight_bit import eight_bit
from tsdf_ray.channels.jpeg import Jpeg, JpegChannel
from tsdf_ray.channels.median import Median, MedianChannel
from tsdf_ray.channels.none import Identity, NoChannel
from tsdf_ray.channels.resize import Resize, ResizeChannel
from tsdf_ray.channels.tv import Tv, TvChannel
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.registry import look_up

AnyChannel = NoChannel | JpegChannel | ResizeChannel | BlurChannel | MedianChannel | BitDepthChannel | TvChannel
ChannelConfig = Annotated[AnyChannel, Field(discriminator="kind")]
"""One channel in a scenario, told apart by `kind`."""

CHANNELS: dict[str, type[Any]] = {
    channel.name: channel for channel in (Identity, Jpeg, Resize, Blur, Median, BitDepth, Tv)
}
"""kind -> class, built from its config."""


def make_channel(config: ChannelConfig) -> Channel:
    """The channel a config describes."""
    channel: Channel = look_up("channels", config.kind, CHANNELS)(config)
    return channel


def publish(photos: FaceSet, config: ChannelConfig) -> FaceSet:
    """`photos` as they arrive after the channel: same people, labels and size, on the 8-bit grid."""
    return photos.with_pixels(make_channel(config).publish(photos.pixels_BCHW))


__all__ = [
    "CHANNELS",
    "AnyChannel",
    "BitDepthChannel",
    "BlurChannel",
    "Channel",
    "ChannelConfig",
    "JpegChannel",
    "MedianChannel",
    "NoChannel",
    "Pixels",
    "ResizeChannel",
    "TvChannel",
    "eight_bit",
    "make_channel",
    "publish",
]
