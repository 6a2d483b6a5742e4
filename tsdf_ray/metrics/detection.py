"""How a detector's boxes on published photos compare with its own boxes on the clean ones (METHOD section 7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from tsdf_ray.detectors.base import Boxes
from tsdf_ray.detectors.geometry import iou, match
from tsdf_ray.metrics.rows import Array

SCORE = 0.7
"""A box counts above this score, on clean and published photos alike."""
FLOOR = 0.1
"""Boxes are looked for down to this score, to say by how much a face's score fell; below it counts as 0."""
OVERLAPS = {"": 0.7, "_50": 0.5}
"""IoU needed for a match, by the suffix of the metric's name."""
SAME_FACE = 0.5
"""IoU from which a published box is taken for the clean one when scores are compared."""

Floats = npt.NDArray[np.float64]


def detection_measures(clean: Sequence[Boxes], published: Sequence[Boxes]) -> dict[str, Array | tuple[Array, Array]]:
    """Metrics per photo from boxes found down to the score FLOOR, best score first.

    duq, precision, recall, f1, tp, fp, fn (and the same with suffix _50), duq_excluded, score_change (per clean box,
    of the best box with IoU >= .5, 0 if none), box_count_change.
    """
    kept_clean = [_above(boxes, SCORE) for boxes in clean]
    kept_published = [_above(boxes, SCORE) for boxes in published]
    faces = np.array([len(boxes) for boxes in kept_clean], dtype=np.float64)
    found = np.array([len(boxes) for boxes in kept_published], dtype=np.float64)
    measures: dict[str, Array | tuple[Array, Array]] = {}
    for suffix, overlap in OVERLAPS.items():
        pairs = zip(kept_clean, kept_published, strict=True)
        tp = np.array([len(match(b, a, overlap)) for a, b in pairs], dtype=np.float64)
        fp, fn = found - tp, faces - tp
        # A photo without a clean box is left out of DUQ: it has no face to hide, its false boxes nothing to flood.
        measures |= {
            f"duq{suffix}": (np.where(faces > 0, tp - fp, 0.0), faces),
            f"precision{suffix}": (tp, tp + fp),
            f"recall{suffix}": (tp, tp + fn),
            f"f1{suffix}": (2 * tp, 2 * tp + fp + fn),
            f"tp{suffix}": tp,
            f"fp{suffix}": fp,
            f"fn{suffix}": fn,
        }
    change = np.array([_score_change(a, b) for a, b in zip(clean, published, strict=True)], dtype=np.float64)
    return measures | {
        "duq_excluded": (faces == 0).astype(np.float64),
        "score_change": (change, faces),
        "box_count_change": found - faces,
    }


def _above(boxes: Boxes, score: float) -> torch.Tensor:
    return boxes.boxes_N4[boxes.scores_N > score].double()


def _score_change(clean: Boxes, published: Boxes) -> float:
    """Sum over the clean boxes of the score of the same face on the published photo minus the clean score."""
    faces = clean.scores_N > SCORE
    same_NM = iou(clean.boxes_N4[faces].double(), published.boxes_N4.double()) >= SAME_FACE
    if not same_NM.numel():
        return -float(clean.scores_N[faces].double().sum())
    after_N = torch.where(same_NM, published.scores_N.double(), 0.0).amax(1)
    return float((after_N - clean.scores_N[faces].double()).sum())


def paired_iou(a_N4: npt.NDArray[np.floating], b_N4: npt.NDArray[np.floating]) -> Floats:
    """IoU of box n of the one list with box n of the other, [N]."""
    a, b = (torch.from_numpy(boxes.astype(np.float64))[:, None] for boxes in (a_N4, b_N4))
    overlap: Floats = iou(a, b)[:, 0, 0].numpy()
    return overlap
