"""How a detector's boxes on published photos compare with its own boxes on the clean ones (METHOD section 7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tsdf_ray.detectors.base import Boxes
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


def iou(a_N4: npt.NDArray[np.floating], b_M4: npt.NDArray[np.floating]) -> Floats:
    """Intersection over union of every pair, [N, M] in [0, 1]; boxes are (x1, y1, x2, y2)."""
    a, b = a_N4.astype(np.float64), b_M4.astype(np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(2)
    areas = [np.clip(box[:, 2:] - box[:, :2], 0, None).prod(1) for box in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - both
    overlap: Floats = both / np.where(union > 0, union, 1.0)
    return overlap


def match(clean_N4: npt.NDArray[np.floating], published_M4: npt.NDArray[np.floating], overlap: float) -> int:
    """True positives: each published box, best first, takes the free clean box it overlaps most, IoU >= `overlap`."""
    overlaps_MN = iou(published_M4, clean_N4)
    taken = 0
    for row in overlaps_MN:
        best = int(row.argmax()) if row.size else -1
        if best >= 0 and row[best] >= overlap:
            overlaps_MN[:, best] = -1.0
            taken += 1
    return taken


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
        tp = np.array([match(a, b, overlap) for a, b in pairs], dtype=np.float64)
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


def _above(boxes: Boxes, score: float) -> npt.NDArray[np.float32]:
    kept: npt.NDArray[np.float32] = boxes.boxes_N4[boxes.scores_N > score].cpu().numpy()
    return kept


def _score_change(clean: Boxes, published: Boxes) -> float:
    """Sum over the clean boxes of the score of the same face on the published photo minus the clean score."""
    faces = clean.scores_N > SCORE
    scores = published.scores_N.cpu().numpy().astype(np.float64)
    same = iou(clean.boxes_N4[faces].cpu().numpy(), published.boxes_N4.cpu().numpy()) >= SAME_FACE
    after = np.where(same, scores[None, :], 0.0).max(1, initial=0.0)
    return float((after - clean.scores_N[faces].cpu().numpy().astype(np.float64)).sum())


def paired_iou(a_N4: npt.NDArray[np.floating], b_N4: npt.NDArray[np.floating]) -> Floats:
    """IoU of box n of the one list with box n of the other, [N]."""
    return np.array([iou(a[None], b[None])[0, 0] for a, b in zip(a_N4, b_N4, strict=True)], dtype=np.float64)
