"""Total-variation denoising: the nearest photo, in squares, that is smooth except for edges."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from tsdf_ray.channels.base import Channel, ChannelSettings


class TvChannel(ChannelSettings):
    """`{kind: tv, weight: w}`."""

    kind: Literal["tv"] = Field("tv", description="total-variation denoising, each colour on its own")
    weight: float = Field(0.1, gt=0.0, le=2.0, description="of the total variation on the [-1, 1] scale")
    steps: int = Field(40, ge=1, le=1000, description="of the solver; more come closer to the exact result")


class Tv(Channel):
    """argmin_u |u - x|^2 / 2 + weight * sum of |gradient u| (Rudin, Osher, Fatemi 1992; isotropic, forward
    differences), by accelerated projected gradient on the dual (Beck and Teboulle 2009)."""

    name: ClassVar[str] = "tv"

    def __init__(self, config: TvChannel) -> None:
        self.config = config

    def apply(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Differentiable through all steps; every one of them is a mean-keeping smoothing, clamped to the range."""
        weight = self.config.weight
        p_2BCHW = q_2BCHW = torch.zeros(2, *x_BCHW.shape, dtype=x_BCHW.dtype, device=x_BCHW.device)
        t = 1.0
        for _ in range(self.config.steps):
            # 1/8: the gradient's norm squared is at most 8.
            step_2BCHW = q_2BCHW + _gradient(x_BCHW / weight + _divergence(q_2BCHW)) / 8
            length_BCHW = (step_2BCHW.square().sum(0) + 1e-12).sqrt()
            new_2BCHW = step_2BCHW / length_BCHW.clamp(min=1.0)
            t, last = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
            q_2BCHW = new_2BCHW + (last - 1) / t * (new_2BCHW - p_2BCHW)
            p_2BCHW = new_2BCHW
        return (x_BCHW + weight * _divergence(p_2BCHW)).clamp(-1.0, 1.0)


def _gradient(x_BCHW: torch.Tensor) -> torch.Tensor:
    """Forward differences down and to the right, zero at the last row and column: [2, B, C, H, W]."""
    pad = torch.nn.functional.pad
    return torch.stack([pad(x_BCHW.diff(dim=-2), (0, 0, 0, 1)), pad(x_BCHW.diff(dim=-1), (0, 1))])


def _divergence(p_2BCHW: torch.Tensor) -> torch.Tensor:
    """Minus the adjoint of `_gradient`; what stands in the last row or column counts for nothing."""
    pad = torch.nn.functional.pad
    down = pad(p_2BCHW[0, ..., :-1, :], (0, 0, 1, 1)).diff(dim=-2)
    right = pad(p_2BCHW[1, ..., :-1], (1, 1)).diff(dim=-1)
    return down + right
