"""Storing a photo: the 8-bit grid, with a straight-through gradient."""

from __future__ import annotations

import torch


def eight_bit(x_BCHW: torch.Tensor) -> torch.Tensor:
    """Round float images in [-1, 1] to the nearest of the 256 steps; values outside are clamped.

    The rounding passes the gradient unchanged (straight-through estimator, Bengio et al. 2013), because its true
    derivative is zero almost everywhere; the clamp keeps its own derivative.
    """
    clamped = x_BCHW.clamp(-1.0, 1.0)
    stored = ((clamped + 1.0) * 127.5).round() / 127.5 - 1.0
    return clamped + (stored - clamped).detach()
