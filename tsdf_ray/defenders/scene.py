"""How stage 1 sees perturbed photos in one step: through a channel, and by each generator resized and padded at random.

Everything is drawn once for a batch, however it is divided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tsdf_ray.defenders.eot import View

PAD_RATIO = 290 / 256
"""Input diversity pads to 290 for photos of 256; other sizes scale."""


@dataclass(frozen=True)
class Scene:
    """How the photos are seen in one step: through a channel, and by each generator in a frame of its own."""

    view: View
    frames: Mapping[str, View]


def input_diversity(x_BCHW: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """With probability 1/2: resize to a random size in [S, 290/256 S), zero-pad at a random place, resize back to S.

    Nearest-neighbour both ways, one draw for the whole batch; x: float [B, 3, S, S].
    """
    return draw_frame(x_BCHW.shape[-1], rng)(x_BCHW)


def draw_frame(size: int, rng: torch.Generator) -> View:
    """One draw of `input_diversity` for photos of this size."""
    if float(torch.rand((), generator=rng)) >= 0.5:
        return lambda x_BCHW: x_BCHW
    padded = max(size + 1, round(size * PAD_RATIO))
    inner = int(torch.randint(size, padded, (), generator=rng))
    top, left = (int(v) for v in torch.randint(0, padded - inner + 1, (2,), generator=rng))

    def framed(x_BCHW: torch.Tensor) -> torch.Tensor:
        small = F.interpolate(x_BCHW, size=(inner, inner), mode="nearest")
        large = F.pad(small, (left, padded - inner - left, top, padded - inner - top))
        return F.interpolate(large, size=(size, size), mode="nearest")

    return framed
