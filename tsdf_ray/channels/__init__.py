"""What happens to a photo on its way: 8-bit, JPEG, resize, blur. Used by publication, purification and EOT."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tsdf_ray.channels.base import Channel, Pixels
from tsdf_ray.channels.blur import Blur, BlurChannel
from tsdf_ray.channels.eight_bit import eight_bit
from tsdf_ray.channels.jpeg import Jpeg, JpegChannel
from tsdf_ray.channels.none import Identity, NoChannel
from tsdf_ray.channels.resize import Resize, ResizeChannel
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.registry import look_up

ChannelConfig = Annotated[NoChannel | JpegChannel | ResizeChannel | BlurChannel, Field(discriminator="kind")]
"""One channel in a scenario, told apart by `kind`."""

CHANNELS: dict[str, type[Any]] = {"none": Identity, "jpeg": Jpeg, "resize": Resize, "blur": Blur}
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
    "BlurChannel",
    "Channel",
    "ChannelConfig",
    "JpegChannel",
    "NoChannel",
    "Pixels",
    "ResizeChannel",
    "eight_bit",
    "make_channel",
    "publish",
]
