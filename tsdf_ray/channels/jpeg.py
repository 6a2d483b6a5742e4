"""JPEG compression: the real codec to publish, a differentiable model of it for gradients.

Both subsample colour 4:2:0 (half resolution in both directions, what phones and web sites write) and use the standard
tables of the JPEG norm, Annex K, scaled by `quality` as libjpeg does.
"""

from __future__ import annotations

import io
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from tsdf_ray.channels.base import Channel, ChannelSettings, Pixels
from tsdf_ray.channels.eight_bit import eight_bit


class JpegChannel(ChannelSettings):
    """`{kind: jpeg, quality: q}`."""

    kind: Literal["jpeg"] = Field("jpeg", description="JPEG compression, colour subsampled 4:2:0")
    quality: int = Field(85, ge=1, le=100, description="libjpeg quality: 95 is gentle, 75 the usual default, 30 coarse")


class Jpeg(Channel):
    """JPEG at one quality."""

    name: ClassVar[str] = "jpeg"

    def __init__(self, config: JpegChannel) -> None:
        self.config = config

    def apply(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The differentiable codec of Reich et al. (WACV 2024) in kornia: polynomial rounding of the coefficients.

        The result is put on the 8-bit grid like a decoded file, straight-through.
        """
        from kornia.enhance import jpeg_codec_differentiable

        quality = torch.tensor([float(self.config.quality)], device=x_BCHW.device)
        coded = jpeg_codec_differentiable((x_BCHW.float() + 1.0) / 2.0, quality)
        return eight_bit(coded * 2.0 - 1.0).to(x_BCHW.dtype)

    def publish(self, pixels_BCHW: Pixels) -> Pixels:
        """Encode and decode every photo with libjpeg (by Pillow), in memory."""
        out_BCHW = np.empty_like(pixels_BCHW)
        for b, pixels_CHW in enumerate(pixels_BCHW):
            stored = io.BytesIO()
            photo = Image.fromarray(np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0)))
            photo.save(stored, format="JPEG", quality=self.config.quality, subsampling="4:2:0")
            with Image.open(stored, formats=["JPEG"]) as decoded:
                out_BCHW[b] = np.asarray(decoded).transpose(2, 0, 1)
        return out_BCHW
