"""Data preparation: find the face in every collected photo, drop photos without one, crop the others.

This is the step that poisoned photos are made to upset: what the detector misses or misplaces is lost for retraining
or teaches the generator something else than faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tsdf_ray.attackers.work import Work, Worklog
from tsdf_ray.crew import ALONE, Seat, pieces
from tsdf_ray.detectors.base import Boxes, Detector
from tsdf_ray.faces.faceset import FaceSet, to_images, to_pixels

CHUNK = 64
"""Photos per detector call."""


class PrepareConfig(BaseModel):
    """How photos become training data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detectors: tuple[str, ...] = Field((), description="face detectors that are asked; none: every photo is usable")
    combine: Literal["any", "majority"] = Field(
        "any",
        description="a face counts when any, or more than half, of the detectors find one; the surest gives the box",
    )
    score_threshold: float = Field(0.7, ge=0.0, lt=1.0, description="a detection counts above this score")
    enlarge: float = Field(1.0, ge=1.0, le=8.0, description="photos are enlarged by this factor before detecting")
    flip: bool = Field(False, description="a detector that finds nothing is asked again with the mirrored photo")
    known_boxes: bool = Field(
        False, description="photos without a find take the mean box of the round's photos with one (aligned frames)"
    )
    crop: Literal["none", "box"] = Field(
        "none", description="box: crop to the (largest) face and resize; none: the detection only gates the photo"
    )
    margin: float = Field(0.25, ge=0.0, le=2.0, description="added on each side, as a share of the box's longer side")
    on_miss: Literal["drop", "center_crop", "keep"] = Field("drop", description="a photo in which no face is found")
    center: float = Field(0.75, gt=0.0, le=1.0, description="side of the centre crop as a share of the photo's side")

    @model_validator(mode="after")
    def _crop_needs_a_detector(self) -> PrepareConfig:
        for key, wanted in (("crop: box", self.crop == "box"), ("known_boxes", self.known_boxes)):
            if wanted and not self.detectors:
                raise ValueError(f"{key} needs at least one detector; name one, or leave {key} out")
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
    found_N: npt.NDArray[np.bool_]
    """In which collected photos a face was found."""
    has_box_N: npt.NDArray[np.bool_]
    """Which have a box: those, and with known_boxes the others too (where any was found)."""
    boxes_N4: npt.NDArray[np.float32]
    """The face (x1, y1, x2, y2 in pixels of the photo) where has_box_N, else zeros."""
    scores_N: npt.NDArray[np.float32]
    """Its score where found_N, else zero."""
    work: tuple[Work, ...] = ()


def prepare(
    config: PrepareConfig,
    detectors: Mapping[str, Detector],
    photos: FaceSet,
    log: Worklog | None = None,
    seat: Seat = ALONE,
) -> Prepared:
    """Detect, drop or keep, crop. `detectors` holds at least those the config names. Workers share the looking."""
    log = log or Worklog()
    n = len(photos)
    votes_N = np.zeros(n, dtype=np.intp)
    boxes_N4 = np.zeros((n, 4), dtype=np.float32)
    scores_N = np.zeros(n, dtype=np.float32)
    for name in config.detectors:
        look = partial(find_faces, config, detectors[name], photos.pixels_BCHW, seat)
        found_N, own_N4, own_N = log.timed(f"detect {name}", n, look)
        votes_N += found_N
        surer_N = found_N & (own_N > scores_N)
        boxes_N4[surer_N], scores_N[surer_N] = own_N4[surer_N], own_N[surer_N]
    needed = 1 if config.combine == "any" else len(config.detectors) // 2 + 1
    found_N = votes_N >= needed
    boxes_N4[~found_N], scores_N[~found_N] = 0.0, 0.0
    has_box_N = found_N.copy()
    if config.known_boxes and found_N.any():
        boxes_N4[~found_N] = boxes_N4[found_N].mean(0, dtype=np.float64)
        has_box_N[:] = True
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
    return Prepared(usable.with_pixels(pixels), used_U, found_N, has_box_N, boxes_N4, scores_N, log.done)


def find_faces(
    config: PrepareConfig, detector: Detector, pixels_BCHW: npt.NDArray[np.uint8], seat: Seat = ALONE
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """One detector's largest face in each photo: found [B], boxes [B, 4] in pixels of the photo, scores [B] (else 0).

    Detected on the enlarged photo, and where that fails and `flip` asks for it on its mirror image; boxes are mapped
    back.
    """
    count, size = len(pixels_BCHW), pixels_BCHW.shape[-1]
    found_B = np.zeros(count, dtype=np.bool_)
    boxes_B4 = np.zeros((count, 4), dtype=np.float32)
    scores_B = np.zeros(count, dtype=np.float32)
    for mirrored in (False, True) if config.flip else (False,):
        asked = np.flatnonzero(~found_B)
        view_BCHW = pixels_BCHW[asked]
        if mirrored:
            view_BCHW = view_BCHW[..., ::-1]
        for photo, faces in zip(
            asked, detect_all(detector, view_BCHW, config.score_threshold, config.enlarge, seat), strict=True
        ):
            if len(faces):
                largest = _largest(faces)
                x1, y1, x2, y2 = faces.boxes_N4[largest].cpu().numpy()
                found_B[photo] = True
                boxes_B4[photo] = (size - x2, y1, size - x1, y2) if mirrored else (x1, y1, x2, y2)
                scores_B[photo] = float(faces.scores_N[largest])
    return found_B, boxes_B4, scores_B


def detect_all(
    detector: Detector,
    pixels_BCHW: npt.NDArray[np.uint8],
    score_threshold: float,
    enlarge: float = 1.0,
    seat: Seat = ALONE,
) -> list[Boxes]:
    """Faces of each photo, a bounded number of photos at a time; boxes in pixels of the photo as given, on the CPU.

    `enlarge` scales the photo for the detector (bilinear, to whole pixels); boxes are scaled back.
    """
    weight = next(detector.parameters(), torch.zeros(0))
    size = pixels_BCHW.shape[-1]
    side = round(enlarge * size)
    parts = pieces(len(pixels_BCHW), seat.micro_batch(CHUNK, None))

    def look(mine: range) -> list[Boxes]:
        boxes: list[Boxes] = []
        for part in (parts[n] for n in mine):
            x_BCHW = to_images(torch.from_numpy(np.array(pixels_BCHW[part.start : part.stop]))).to(weight.device)
            if side != size:
                x_BCHW = F.interpolate(x_BCHW, size=(side, side), mode="bilinear", align_corners=False)
            for found in detector.detect(x_BCHW, score_threshold):
                scaled_N4 = found.boxes_N4 if side == size else found.boxes_N4 * (size / side)
                boxes.append(Boxes(scaled_N4.cpu(), found.scores_N.cpu()))
        return boxes

    with torch.inference_mode():
        return [boxes for own in seat.crew.share(len(parts), look) for boxes in own]


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
