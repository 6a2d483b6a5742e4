"""Face detectors, differentiable to the pixel: one file per family."""

from __future__ import annotations

from pathlib import Path

from tsdf_ray.detectors.base import Anchors, Boxes, Detector, RawOutput
from tsdf_ray.detectors.centerface import CenterFace
from tsdf_ray.detectors.dsfd import DSFD
from tsdf_ray.detectors.mtcnn import MTCNN
from tsdf_ray.detectors.retinaface import RetinaFace
from tsdf_ray.detectors.s3fd import S3FD
from tsdf_ray.registry import look_up

__all__ = ["DETECTORS", "Anchors", "Boxes", "Detector", "RawOutput", "load_detector"]

DETECTORS: dict[str, type[Detector]] = {
    "retinaface": RetinaFace,
    "mtcnn": MTCNN,
    "centerface": CenterFace,
    "s3fd": S3FD,
    "dsfd": DSFD,
}


def load_detector(name: str, weights: Path | None = None) -> Detector:
    """The detector `name`, built in or a plug-in's, frozen and in evaluation mode.

    `weights`: a file of the user's instead of the packaged one, whose SHA-256 is checked before use. `s3fd` and `dsfd`
    have no packaged one. Raises UserError for an unknown name (listing the valid ones) and for weights that are missing
    (naming the official file) or do not fit.
    """
    return look_up("detectors", name, DETECTORS).load(weights)
