"""Data preparation: find the face in every collected photo, drop photos without one, crop the others.

This is the step that poisoned photos are made to upset: what the detector misses or misplaces is lost for retraining
or teaches the generator something else than faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tsdf_ray.detectors.base import Boxes, Detector
from tsdf_ray.faces.faceset import FaceSet, to_images, to_pixels

CHUNK = 64
"""Photos per detector call."""


class PrepareConfig(BaseModel):
    """How photos become training data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detectors: tuple[str, ...] = Field(
        (),
        description="face detectors in the order they are tried; the first that finds a face decides",
    )
    score_threshold: float = Field(0.7, ge=0.0, lt=1.0, description="a detection counts above this score")
    crop: Literal["none", "box"] = Field(
        "none", description="box: crop to the (largest) face and resize; none: the detection only gates the photo"
    )
    margin: float = Field(0.25, ge=0.0, le=2.0, description="added on each side, as a share of the box's longer side")
    on_miss: Literal["drop", "center_crop", "keep"] = Field("drop", description="a photo in which no face is found")
    center: float = Field(0.75, gt=0.0, le=1.0, description="side of the centre crop as a share of the photo's side")

    @model_validator(mode="after")
    def _crop_needs_a_detector(self) -> PrepareConfig:
        if self.crop == "box" and not self.detectors:
            raise ValueError("crop: box needs at least one detector; name one, or use crop: none")
        if len(set(self.detectors)) != len(self.detectors):
            raise ValueError("a detector is named twice")
        return self


@dataclass(frozen=True)
class Prepared:
    """What is usable of N collected photos; U of them are."""

    photos: FaceSet
    """The U usable photos, same ids and labels, cropped where asked."""
    used_U: npt.NDArray[np.intp]
    """Position of each usable photo among the collected ones."""
    has_box_N: npt.NDArray[np.bool_]
    """In which collected photos a face was found."""
    boxes_N4: npt.NDArray[np.float32]
    """The largest face (x1, y1, x2, y2 in pixels) where has_box_N, else zeros."""
    scores_N: npt.NDArray[np.float32]
    """Its score, else zero."""


def prepare(config: PrepareConfig, detectors: Mapping[str, Detector], photos: FaceSet) -> Prepared:
    """Detect, drop or keep, crop. `detectors` holds at least those the config names."""
    n = len(photos)
    has_box_N = np.zeros(n, dtype=np.bool_)
    boxes_N4 = np.zeros((n, 4), dtype=np.float32)
    scores_N = np.zeros(n, dtype=np.float32)
    for name in config.detectors:
        missing = np.flatnonzero(~has_box_N)
        if not len(missing):
            break
        found = detect_all(detectors[name], photos.pixels_BCHW[missing], config.score_threshold)
        for photo, faces in zip(missing, found, strict=True):
            if len(faces):
                largest = _largest(faces)
                has_box_N[photo] = True
                boxes_N4[photo] = faces.boxes_N4[largest].cpu().numpy()
                scores_N[photo] = float(faces.scores_N[largest])
    if config.detectors and config.on_miss == "drop":
        used_U = np.flatnonzero(has_box_N).astype(np.intp)
    else:
        used_U = np.arange(n, dtype=np.intp)
    usable = photos.take(used_U)
    pixels = np.array(usable.pixels_BCHW)
    for u, photo in enumerate(used_U):
        region = _region(config, boxes_N4[photo] if has_box_N[photo] else None, photos.size)
        if region is not None:
            pixels[u] = crop(photos.pixels_BCHW[photo], region)
    return Prepared(usable.with_pixels(pixels), used_U, has_box_N, boxes_N4, scores_N)


def detect_all(detector: Detector, pixels_BCHW: npt.NDArray[np.uint8], score_threshold: float) -> list[Boxes]:
    """Faces of each photo, a bounded number of photos at a time."""
    boxes: list[Boxes] = []
    weight = next(detector.parameters(), torch.zeros(0))
    with torch.inference_mode():
        for start in range(0, len(pixels_BCHW), CHUNK):
            chunk = torch.from_numpy(np.array(pixels_BCHW[start : start + CHUNK]))
            boxes += detector.detect(to_images(chunk).to(weight.device), score_threshold)
    return boxes


def _largest(faces: Boxes) -> int:
    sides_N2 = (faces.boxes_N4[:, 2:] - faces.boxes_N4[:, :2]).clamp(min=0)
    return int(sides_N2.prod(1).argmax())


def _region(config: PrepareConfig, box_4: npt.NDArray[np.float32] | None, size: int) -> tuple[int, int, int] | None:
    """The square to cut out of a photo as (left, top, side) in pixels; None: the photo as it is."""
    if box_4 is not None and config.crop == "box":
        return square(box_4, config.margin, size)
    if box_4 is None and config.detectors and config.on_miss == "center_crop":
        side = max(1, round(config.center * size))
        return (size - side) // 2, (size - side) // 2, side
    return None


def square(box_4: npt.NDArray[np.float32], margin: float, size: int) -> tuple[int, int, int]:
    """The square around a box with its margin, moved and shrunk into a photo of side `size`: (left, top, side)."""
    x1, y1, x2, y2 = (float(v) for v in box_4)
    side = min(size, max(8, round(max(x2 - x1, y2 - y1) * (1 + 2 * margin))))
    left, top = (round((low + high - side) / 2) for low, high in ((x1, x2), (y1, y2)))
    return min(max(left, 0), size - side), min(max(top, 0), size - side), side


def crop(pixels_CHW: npt.NDArray[np.uint8], region: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Cut out (left, top, side) and resize to the photo's own size: antialiased bilinear, uint8 [3, S, S]."""
    left, top, side = region
    part = torch.from_numpy(np.array(pixels_CHW[:, top : top + side, left : left + side]))[None]
    scaled = F.interpolate(to_images(part), size=pixels_CHW.shape[-2:], mode="bilinear", antialias=True)
    pixels: npt.NDArray[np.uint8] = to_pixels(scaled)[0].numpy()
    return pixels
