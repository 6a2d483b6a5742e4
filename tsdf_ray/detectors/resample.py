"""Differentiable resampling for cascades: exact area averages of whole photos, and crops of many boxes at once."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F


def area_resize(x_BCHW: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """`x` shrunk to [B, C, height, width]; every new pixel is the mean over its exact (fractional) rectangle.

    Two small matrix products: faster than a general resize on a CPU, and every photo pixel has a share and a gradient.
    """
    rows_hH = _area_weights(x_BCHW.shape[-2], height).to(x_BCHW)
    columns_Ww = _area_weights(x_BCHW.shape[-1], width).to(x_BCHW).T
    return rows_hH @ (x_BCHW @ columns_Ww)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # whoever asks first: others may need gradients through it
def _area_weights(size: int, out: int) -> torch.Tensor:
    """float64 [out, size]: the share of each old cell in each new one; rows sum to 1."""
    cell = size / out
    start_o1 = torch.arange(out, dtype=torch.float64)[:, None] * cell
    old_s = torch.arange(size, dtype=torch.float64)
    return (torch.minimum(start_o1 + cell, old_s + 1) - torch.maximum(start_o1, old_s)).clamp_min(0) / cell


def crop_boxes(x_BCHW: torch.Tensor, boxes_K4: torch.Tensor, photo_K: torch.Tensor, side: int) -> torch.Tensor:
    """The pixels of each box, [K, C, side, side]: bilinear samples on a grid from edge to edge, 0 outside the photo.

    Differentiable in the photos; the boxes (in pixels) get no gradient. Samples as `tf.image.crop_and_resize` does,
    on which the MTCNN weights' package runs. All crops of a photo form one tall grid, so that no photo is copied.
    """
    boxes_K4 = boxes_K4.detach().to(x_BCHW)
    height, width = x_BCHW.shape[-2:]
    if not len(boxes_K4):
        return x_BCHW.new_zeros(0, x_BCHW.shape[1], side, side)
    step_S = torch.linspace(0, 1, side, dtype=boxes_K4.dtype, device=boxes_K4.device)
    x_KS = 2 * (boxes_K4[:, 0:1] + step_S * (boxes_K4[:, 2:3] - boxes_K4[:, 0:1])) / width - 1
    y_KS = 2 * (boxes_K4[:, 1:2] + step_S * (boxes_K4[:, 3:4] - boxes_K4[:, 1:2])) / height - 1
    grid_KSS2 = torch.stack([x_KS[:, None, :].expand(-1, side, -1), y_KS[:, :, None].expand(-1, -1, side)], dim=-1)

    count_B = torch.bincount(photo_K, minlength=len(x_BCHW))
    order_K = torch.sort(photo_K, stable=True).indices
    first_B = count_B.cumsum(0) - count_B
    slot_K = torch.empty_like(photo_K)
    slot_K[order_K] = torch.arange(len(photo_K), device=photo_K.device) - first_B[photo_K[order_K]]
    most = int(count_B.max())
    grid_BMSS2 = grid_KSS2.new_zeros(len(x_BCHW), most, side, side, 2)
    grid_BMSS2[photo_K, slot_K] = grid_KSS2
    tall_BCRS = F.grid_sample(x_BCHW, grid_BMSS2.flatten(1, 2), mode="bilinear", align_corners=True)
    crops_KCSS: torch.Tensor = tall_BCRS.reshape(*x_BCHW.shape[:2], most, side, side).transpose(1, 2)[photo_K, slot_K]
    inside_KSS = (grid_KSS2.abs() <= 1).all(-1)
    return crops_KCSS * inside_KSS[:, None]
