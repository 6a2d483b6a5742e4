"""The `Channel` contract: what happens to a photo on its way, once differentiable and once for real.

A channel changes pixels and keeps the shape. `apply` is for gradients (a defender's expectation over transforms);
`publish` is what really happens to 8-bit photos (publication, an attacker's purification). Neither draws at random.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict

from tsdf_ray.faces.faceset import to_images, to_pixels

Pixels = npt.NDArray[np.uint8]

_CHUNK = 64  # photos at a time in `publish`: bounds the float copies, 128 px photos take 12.6 MB


class ChannelSettings(BaseModel):
    """What every channel's config is: frozen, unknown keys refused, told apart by `kind`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Channel(ABC):
    """One transformation of photos."""

    name: ClassVar[str]

    @abstractmethod
    def apply(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Differentiable: float [B, 3, H, W] in [-1, 1] -> the same shape, dtype and range."""

    def publish(self, pixels_BCHW: Pixels) -> Pixels:
        """The real thing: uint8 [B, 3, H, W] -> uint8 [B, 3, H, W], a fresh array. By default `apply`, then 8-bit."""
        out_BCHW = np.empty_like(pixels_BCHW)
        with torch.no_grad():
            for start in range(0, len(pixels_BCHW), _CHUNK):
                chunk = torch.from_numpy(pixels_BCHW[start : start + _CHUNK].copy())
                out_BCHW[start : start + _CHUNK] = to_pixels(self.apply(to_images(chunk))).numpy()
        return out_BCHW
