"""What stage 2 asks of a face detector: eq. 12 on its features, eq. 13 on its scores and boxes, one value per photo.

`suppress` hides the face; `fabricate` floods the photo with false boxes. Where a softmax saturates, score^2 has no
gradient, so both exist as squared scores (eq. 13) and as log-odds beyond a margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field

from tsdf_ray.detectors.base import Anchors, Boxes, Detector, RawOutput

SURE_SCORE = 0.5
"""Anchors with a higher clean score belong to a face."""
SURE_IOU = 0.35
"""So do anchors that overlap a clean box more than this."""
POINT = 0.001
"""Half-size, as a share of the image, of the box that `suppress` shrinks a face's box to."""


class ObjectiveConfig(BaseModel):
    """Which output loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Literal["suppress", "fabricate"] = Field(
        "suppress", description="hide the face, or flood the photo with false boxes"
    )
    score_form: Literal["log_odds", "squared"] = Field(
        "log_odds", description="squared: eq. 13; log_odds keeps a gradient where the softmax saturates"
    )
    margin: float = Field(2.0, ge=0.0, le=100.0, description="log_odds: how far beyond even the log-odds must go")
    strongest: int = Field(
        20, ge=1, le=10_000, description="log_odds, suppress: so many anchors per photo and group are pushed down"
    )

    @property
    def hides_by_log_odds(self) -> bool:
        """Whether the loss needs no clean pass: every anchor must go."""
        return self.objective == "suppress" and self.score_form == "log_odds"


@dataclass(frozen=True)
class CleanView:
    """What one detector says about the clean photos: the reference of both losses, computed once."""

    features: tuple[torch.Tensor, ...]
    groups: tuple[Anchors, ...]
    faces_BK4: torch.Tensor
    """Clean boxes per photo, padded with zeros (an empty box overlaps nothing)."""

    @staticmethod
    @torch.no_grad()
    def of(detector: Detector, x_BCHW: torch.Tensor) -> CleanView:
        """One clean pass and one detection."""
        raw = detector.raw(x_BCHW)
        return CleanView(raw.features, raw.groups, pad_boxes(detector.detect(x_BCHW, SURE_SCORE)).to(x_BCHW.device))

    def take(self, kept_B: torch.Tensor) -> CleanView:
        """The view of the photos where the bool tensor `kept_B` is True."""
        place_B = kept_B.cumsum(0) - 1
        groups = []
        for group in self.groups:
            mine_N = kept_B[group.photo_N]
            rest = (group.scores_N[mine_N], group.log_odds_N[mine_N], group.boxes_N4[mine_N])
            groups.append(Anchors(group.name, place_B[group.photo_N[mine_N]], *rest))
        return CleanView(tuple(level[kept_B] for level in self.features), tuple(groups), self.faces_BK4[kept_B])


def pad_boxes(found: list[Boxes]) -> torch.Tensor:
    """Boxes of all photos as one float32 [B, K, 4], K at least 1, missing ones zero."""
    most = max([len(boxes) for boxes in found], default=0)
    padded = torch.zeros(len(found), max(most, 1), 4)
    for row, boxes in zip(padded, found, strict=True):
        row[: len(boxes)] = boxes.boxes_N4
    return padded


def overlap_with_faces(boxes_N4: torch.Tensor, photo_N: torch.Tensor, faces_BK4: torch.Tensor) -> torch.Tensor:
    """Largest IoU of each box with a clean box of its own photo: [N]."""
    own_NK4 = faces_BK4[photo_N]
    boxes_N14 = boxes_N4[:, None]
    sides = torch.minimum(boxes_N14[..., 2:], own_NK4[..., 2:]) - torch.maximum(boxes_N14[..., :2], own_NK4[..., :2])
    shared = sides.clamp_min(0).prod(-1)
    union = _area(boxes_N14) + _area(own_NK4) - shared
    return (shared / union.clamp_min(1e-6)).amax(-1)


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def of_a_face(now: Anchors, clean: Anchors, faces_BK4: torch.Tensor) -> torch.Tensor:
    """Bool [N]: anchors that stand for a face of the clean photo (score or overlap).

    Fixed anchors keep the clean pass's answer. A cascade's crops differ from pass to pass: there the overlap of the
    present boxes decides.
    """
    fixed = now.photo_N.shape == clean.photo_N.shape and torch.equal(now.photo_N, clean.photo_N)
    reference = clean if fixed else now
    overlap = overlap_with_faces(reference.boxes_N4.detach(), reference.photo_N, faces_BK4)
    return (overlap > SURE_IOU) | (clean.scores_N > SURE_SCORE) if fixed else overlap > SURE_IOU


def mean_by_photo(values_N: torch.Tensor, photo_N: torch.Tensor, photos: int) -> torch.Tensor:
    """Mean of the values of each photo, 0 for a photo without any: [photos]."""
    total = values_N.new_zeros(photos).index_add(0, photo_N, values_N)
    count = values_N.new_zeros(photos).index_add(0, photo_N, torch.ones_like(values_N))
    return total / count.clamp_min(1)


def strongest_by_photo(log_odds_N: torch.Tensor, photo_N: torch.Tensor, photos: int, most: int) -> torch.Tensor:
    """The `most` largest log-odds of each photo, missing ones -1e4: [photos, most]."""
    order = photo_N.argsort(stable=True)
    count = torch.bincount(photo_N, minlength=photos)
    start = count.cumsum(0) - count
    place = torch.arange(order.numel(), device=order.device) - start[photo_N[order]]
    width = max(int(count.max()) if photos else 0, most)
    rows = log_odds_N.new_full((photos, width), -1e4)
    rows = rows.index_put((photo_N[order], place), log_odds_N[order])
    return rows.topk(most, dim=1).values


def hiding_loss(raw: RawOutput, photos: int, config: ObjectiveConfig) -> torch.Tensor:
    """L_out of `suppress` in log-odds: [B], zero for a photo in which all anchors are safely background.

    Per group relu(m + margin), m the mean log-odds of the photo's `strongest` anchors weighted by their own softmax
    (held fixed): the effort goes to what is still found. Groups add up.
    """
    total_B = raw.groups[0].log_odds_N.new_zeros(photos)
    for group in raw.groups:
        best_BK = strongest_by_photo(group.log_odds_N, group.photo_N, photos, config.strongest)
        mean_B = (best_BK.detach().softmax(1) * best_BK).sum(1)
        total_B = total_B + F.relu(mean_B + config.margin)
    return total_B


def output_loss(raw: RawOutput, clean: CleanView, image_side: int, config: ObjectiveConfig) -> torch.Tensor:
    """L_out, eq. 13, in its other forms: [B], summed over the detector's groups of anchors, never negative.

    suppress, squared: mean over the faces' anchors of score^2 + L1 to a point-like box at the same centre (in shares of
    the image side). fabricate, squared: mean over the other anchors of (1 - score)^2; log_odds: of
    relu(margin - log-odds).
    """
    photos = clean.faces_BK4.shape[0]
    total_B = clean.faces_BK4.new_zeros(photos)
    for now, before in zip(raw.groups, clean.groups, strict=True):
        face_N = of_a_face(now, before, clean.faces_BK4)
        if config.objective == "suppress":
            value_N = now.scores_N.square() + _distance_to_point(now.boxes_N4, image_side)
            chosen_N = face_N
        else:
            squared = (1 - now.scores_N).square()
            value_N = squared if config.score_form == "squared" else F.relu(config.margin - now.log_odds_N)
            chosen_N = ~face_N
        total_B = total_B + mean_by_photo(value_N[chosen_N], now.photo_N[chosen_N], photos)
    return total_B


def _distance_to_point(boxes_N4: torch.Tensor, image_side: int) -> torch.Tensor:
    share_N4 = boxes_N4 / image_side
    centre_N2 = ((share_N4[:, :2] + share_N4[:, 2:]) / 2).detach()
    target_N4 = torch.cat([centre_N2 - POINT, centre_N2 + POINT], dim=1)
    return (share_N4 - target_N4).abs().mean(1)


def feature_targets(
    clean: CleanView, mask_BCHW: torch.Tensor, noise: tuple[torch.Tensor, ...], scale: float
) -> tuple[torch.Tensor, ...]:
    """Eq. 12's targets: minus the clean features, plus noise where poison may go (M averaged over RGB, by area)."""
    mask_B1HW = mask_BCHW.mean(1, keepdim=True)
    return tuple(
        -level + scale * n * F.interpolate(mask_B1HW, size=level.shape[-2:], mode="area")
        for level, n in zip(clean.features, noise, strict=True)
    )


def feature_loss(
    features: tuple[torch.Tensor, ...], targets: tuple[torch.Tensor, ...], weights: tuple[float, ...]
) -> torch.Tensor:
    """L_feat, eq. 12: [B], sum over levels of weight * mean squared distance to the target."""
    per_level = [
        weight * (level - target).square().mean(dim=(1, 2, 3))
        for level, target, weight in zip(features, targets, weights, strict=True)
    ]
    return torch.stack(per_level).sum(0)
