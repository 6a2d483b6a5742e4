"""Differentiable augmentation of what a discriminator sees, so that few photos do not make it a memory of them.

After DiffAugment (Zhao et al. 2020, arXiv 2006.10738), its `translation` and `cutout`; `color` is left out: hair colour
is what the labels are about.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

SHIFT = 1 / 8
"""Largest shift along each axis, as a share of the side."""
HOLE = 3 / 8
"""Side of the hole, as a share of the side."""


def augment(x_BCHW: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Each photo shifted by its own whole pixels (border mirrored) and with its own square set to 0 (grey)."""
    batch, _, height, width = x_BCHW.shape
    shift_y, shift_x = (max(1, int(SHIFT * side)) for side in (height, width))
    draws_B4 = torch.rand(batch, 4, generator=rng).tolist()
    padded = F.pad(x_BCHW, (shift_x, shift_x, shift_y, shift_y), mode="reflect")
    shown, keep_B1HW = [], x_BCHW.new_ones(batch, 1, height, width)
    hole_y, hole_x = int(HOLE * height), int(HOLE * width)
    for b, (down, right, top, left) in enumerate(draws_B4):
        y, x = int(down * (2 * shift_y + 1)), int(right * (2 * shift_x + 1))
        shown.append(padded[b, :, y : y + height, x : x + width])
        # The hole may reach over the border, so that the middle is not hidden more often than the rest.
        y, x = int(top * (height + hole_y)) - hole_y, int(left * (width + hole_x)) - hole_x
        keep_B1HW[b, :, max(y, 0) : max(y + hole_y, 0), max(x, 0) : max(x + hole_x, 0)] = 0
    return torch.stack(shown) * keep_B1HW
