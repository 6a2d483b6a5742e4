"""Boxes (x1, y1, x2, y2): overlap, non-maximum suppression and greedy matching, in plain torch."""

from __future__ import annotations

from typing import Literal

import torch

Overlap = Literal["union", "min"]

PAIRS_PER_BLOCK = 4_000_000
"""Box pairs that `nms` compares at once: bounds its memory to some 100 MB however many photos come in."""


def iou(a_XN4: torch.Tensor, b_XM4: torch.Tensor, overlap: Overlap = "union") -> torch.Tensor:
    """Overlap of every box of `a` with every box of `b`: [..., N, 4] and [..., M, 4] -> [..., N, M] in [0, 1].

    The intersection's area over the area of the union, or over the smaller box's area (`min`). Boxes without area
    (also x2 < x1) overlap nothing: 0.
    """
    low = torch.maximum(a_XN4[..., :, None, :2], b_XM4[..., None, :, :2])
    high = torch.minimum(a_XN4[..., :, None, 2:], b_XM4[..., None, :, 2:])
    inside = (high - low).clamp_min(0).prod(-1)
    area_a, area_b = area(a_XN4)[..., :, None], area(b_XM4)[..., None, :]
    whole = torch.minimum(area_a, area_b) if overlap == "min" else area_a + area_b - inside
    return torch.where(inside > 0, inside / whole.clamp_min(torch.finfo(inside.dtype).tiny), 0.0)


def area(boxes_XN4: torch.Tensor) -> torch.Tensor:
    """Area of each box, [..., N, 4] -> [..., N], in squared pixels; 0 for a box turned inside out."""
    return (boxes_XN4[..., 2:] - boxes_XN4[..., :2]).clamp_min(0).prod(-1)


def nms(
    boxes_N4: torch.Tensor,
    scores_N: torch.Tensor,
    photo_N: torch.Tensor,
    threshold: float,
    *,
    overlap: Overlap = "union",
    limit: int = 1000,
) -> torch.Tensor:
    """Greedy non-maximum suppression within each photo, for the whole batch at once.

    Going down the scores, a box is kept unless it overlaps a kept box of the same photo by more than `threshold`.
    Only the `limit` best boxes of a photo are looked at. Returns the kept indices (int64 [K]), by photo, best first;
    of equal scores the earlier box goes first.
    """
    order_N = torch.sort(scores_N, descending=True, stable=True).indices
    order_N = order_N[torch.sort(photo_N[order_N], stable=True).indices]
    present_P, row_N, count_P = torch.unique_consecutive(photo_N[order_N], return_inverse=True, return_counts=True)
    if not len(present_P):
        return order_N
    rank_N = torch.arange(len(order_N), device=order_N.device) - (count_P.cumsum(0) - count_P)[row_N]
    seen_N = rank_N < limit
    order_N, row_N, rank_N = order_N[seen_N], row_N[seen_N], rank_N[seen_N]
    most = int(rank_N.max()) + 1
    padded_PN4 = boxes_N4.new_zeros(len(present_P), most, 4)
    padded_PN4[row_N, rank_N] = boxes_N4[order_N]
    valid_PN = torch.zeros(len(present_P), most, dtype=torch.bool, device=boxes_N4.device)
    valid_PN[row_N, rank_N] = True
    rows = max(1, PAIRS_PER_BLOCK // most**2)
    kept_PN = torch.cat(
        [
            _greedy(boxes_PN4, valid_PN, threshold, overlap)
            for boxes_PN4, valid_PN in zip(torch.split(padded_PN4, rows), torch.split(valid_PN, rows), strict=True)
        ]
    )
    return order_N[kept_PN[row_N, rank_N]]


def _greedy(boxes_PN4: torch.Tensor, valid_PN: torch.Tensor, threshold: float, overlap: Overlap) -> torch.Tensor:
    """Which boxes of each row (best first) survive, bool [P, N].

    Not one box after the other: `kept = not suppressed by a kept better box` is repeated until nothing changes. Each
    repetition settles at least one more box in order, and the only fixed point is the greedy result; in practice a
    handful of repetitions do.
    """
    suppresses_PNN = (iou(boxes_PN4, boxes_PN4, overlap) > threshold).triu(diagonal=1)
    kept_PN = valid_PN
    while True:
        next_PN = valid_PN & ~(suppresses_PNN & kept_PN[:, :, None]).any(1)
        if torch.equal(next_PN, kept_PN):
            return kept_PN
        kept_PN = next_PN


def match(boxes_N4: torch.Tensor, reference_M4: torch.Tensor, threshold: float) -> list[tuple[int, int]]:
    """Greedy one-to-one matching of `boxes` (best score first, as `Boxes` has them) with `reference` boxes.

    Each box in turn takes the free reference box it overlaps most, if their IoU is at least `threshold`. Returns
    (index in boxes, index in reference) pairs; what is missing on the left is a false positive, on the right a miss.
    """
    overlap_NM = iou(boxes_N4, reference_M4)
    pairs = []
    for index in range(len(boxes_N4)):
        if not len(reference_M4):
            break
        best = int(overlap_NM[index].argmax())
        if float(overlap_NM[index, best]) >= threshold > 0:
            pairs.append((index, best))
            overlap_NM[:, best] = -1
    return pairs
