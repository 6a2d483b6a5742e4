"""What detectors with one box per prior share: priors on a grid, decoded boxes, one group of anchors, detection."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from tsdf_ray.detectors.base import Anchors, Boxes
from tsdf_ray.detectors.geometry import nms

VARIANCE_CENTRE, VARIANCE_SIZE = 0.1, 0.2
"""Units of the box heads, as SSD and its descendants have them."""


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # whoever asks first: others may need gradients through it
def square_priors(
    maps: tuple[tuple[int, int], ...], strides: tuple[int, ...], sizes: tuple[tuple[float, ...], ...]
) -> torch.Tensor:
    """Squares at the centres of the cells, as (centre x, centre y, width, height) in pixels, float64 [A, 4].

    Level after level, row after row, in each cell one square per side in `sizes`. maps: (height, width) in cells.
    """
    rows = []
    for (height, width), stride, sides in zip(maps, strides, sizes, strict=True):
        y_H = (torch.arange(height, dtype=torch.float64) + 0.5) * stride
        x_W = (torch.arange(width, dtype=torch.float64) + 0.5) * stride
        grid_HWS = torch.meshgrid(y_H, x_W, torch.tensor(sides, dtype=torch.float64), indexing="ij")
        y, x, side = (axis.flatten() for axis in grid_HWS)
        rows.append(torch.stack([x, y, side, side], dim=-1))
    return torch.cat(rows)


def decode(offsets_BA4: torch.Tensor, priors_A4: torch.Tensor) -> torch.Tensor:
    """Boxes (x1, y1, x2, y2) in pixels, [B, A, 4], from the box head's answer for each prior."""
    centre_BA2 = priors_A4[:, :2] + offsets_BA4[..., :2] * VARIANCE_CENTRE * priors_A4[:, 2:]
    half_BA2 = priors_A4[:, 2:] * (offsets_BA4[..., 2:] * VARIANCE_SIZE).exp() / 2
    return torch.cat([centre_BA2 - half_BA2, centre_BA2 + half_BA2], dim=-1)


def cells(maps: Sequence[torch.Tensor], values: int) -> torch.Tensor:
    """Head outputs [B, n * values, H, W] of all levels as one [B, A, values], in the order of the priors."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(len(level), -1, values) for level in maps], dim=1)


def one_group(name: str, log_odds_BA: torch.Tensor, boxes_BA4: torch.Tensor) -> Anchors:
    """Anchors of a detector that has the same ones for every photo."""
    photo_N = torch.arange(len(log_odds_BA), device=log_odds_BA.device).repeat_interleave(log_odds_BA.shape[1])
    log_odds_N = log_odds_BA.flatten()
    return Anchors(name, photo_N, log_odds_N.sigmoid(), log_odds_N, boxes_BA4.reshape(-1, 4))


def keep_best(group: Anchors, photos: int, score_threshold: float, nms_iou: float, limit: int = 1000) -> list[Boxes]:
    """Boxes of each photo with score > `score_threshold` after NMS among the `limit` best of the photo."""
    found_K = (group.scores_N > score_threshold).nonzero().flatten()
    boxes_K4, scores_K, photo_K = group.boxes_N4[found_K], group.scores_N[found_K], group.photo_N[found_K]
    kept = nms(boxes_K4, scores_K, photo_K, nms_iou, limit=limit)
    return Boxes.per_photo(boxes_K4[kept], scores_K[kept], photo_K[kept], photos)
