"""Where the faces of a photo of any size are, as squares framed like the photos generators are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from tsdf_ray.detectors import Detector
from tsdf_ray.detectors.base import MAX_SIDE, MIN_SIDE
from tsdf_ray.faces import to_images

Pixels = npt.NDArray[np.uint8]

FACE_SHARE, FACE_CENTRE = 0.72, 0.55
"""Height of the face's box and of its centre, as shares of the frame. Medians of RetinaFace's boxes on aligned photos
at 128 px: height .65 (CelebA, 64 photos) and .76 (synthetic faces, 64); centre .58 and .54, in the middle sideways."""
SURE = 0.7
TOGETHER = 1 << 18
"""Pixels that a detector is given in one call (16 photos of 128 px): more is slower on a CPU."""
SMALLEST = 24
"""Frames with a smaller side in pixels are left alone: at 128 px nothing of such a face could be learned."""


@dataclass(frozen=True)
class Region:
    """A square of a photo, in pixels; wholly inside it."""

    left: int
    top: int
    side: int

    def cut(self, image_HWC: Pixels) -> Pixels:
        """The part of an image: a view [side, side, C]."""
        return image_HWC[self.top : self.top + self.side, self.left : self.left + self.side]


def face_regions(image_HWC: Pixels, detectors: Sequence[Detector]) -> list[Region]:
    """Frames of all faces, largest first, by the first detector that finds any; empty when none does.

    `image_HWC`: uint8 [H, W, 3], any size. Detection runs on a copy with a long side of at most 1024 pixels.
    """
    return all_face_regions([image_HWC], detectors)[0]


def all_face_regions(images: Sequence[Pixels], detectors: Sequence[Detector]) -> list[list[Region]]:
    """As `face_regions`, of many photos: those of one size are looked at together, a bounded area at a time."""
    found: list[list[Region]] = [[] for _ in images]
    sizes: dict[tuple[int, ...], list[int]] = {}
    for index, image_HWC in enumerate(images):
        sizes.setdefault(image_HWC.shape[:2], []).append(index)
    for (height, width), alike in sizes.items():
        seen = min(1.0, MAX_SIDE / max(height, width)) ** 2 * height * width
        step = max(1, int(TOGETHER // seen))
        for chunk in (alike[first : first + step] for first in range(0, len(alike), step)):
            left = chunk
            for detector in detectors:
                views = [_for_detection(images[index]) for index in left]
                with torch.inference_mode():
                    boxes = detector.detect(torch.cat([x_1CHW for x_1CHW, _ in views]), SURE)
                for index, (_, scale), box in zip(left, views, boxes, strict=True):
                    frames = {frame(b, height, width) for b in (box.boxes_N4.cpu() / scale).tolist()}
                    kept = {f for f in frames if f.side >= SMALLEST}
                    found[index] = sorted(kept, key=lambda f: (-f.side, f.top, f.left))
                left = [index for index in left if not found[index]]
                if not left:
                    break
    return found


def frame(box: Sequence[float], height: int, width: int) -> Region:
    """The square around a face's box (x1, y1, x2, y2), moved and shrunk into a photo of `height` x `width`."""
    x1, y1, x2, y2 = box
    side = max(1, min(height, width, round(max(y2 - y1, x2 - x1) / FACE_SHARE)))
    left = round((x1 + x2) / 2 - side / 2)
    top = round((y1 + y2) / 2 - side * FACE_CENTRE)
    return Region(min(max(left, 0), width - side), min(max(top, 0), height - side), side)


def centre_square(image_HWC: Pixels) -> Region:
    """The largest square in the middle."""
    height, width = image_HWC.shape[:2]
    side = min(height, width)
    return Region((width - side) // 2, (height - side) // 2, side)


def stretch(steps_CSS: npt.NDArray[np.int16], side: int) -> npt.NDArray[np.int16]:
    """A perturbation in whole steps of the 8-bit grid, [3, S, S], at another size: [side, side, 3], nearest neighbour.

    Nearest keeps every value whole and inside the budget. Of dense noise enlarged from 128 px to 160-1000 px, a
    forger's antialiased bicubic reduction leaves 0.62-0.65 along the original, against 0.61 with bicubic and 0.46 with
    bilinear enlargement.
    """
    size = steps_CSS.shape[-1]
    index = (np.arange(side) * 2 + 1) * size // (2 * side)
    return np.ascontiguousarray(steps_CSS[:, index][:, :, index].transpose(1, 2, 0))


def _for_detection(image_HWC: Pixels) -> tuple[torch.Tensor, float]:
    """float32 [1, 3, h, w] in a size detectors take, and h / H. Slivers are padded at the right and the bottom."""
    height, width = image_HWC.shape[:2]
    scale = min(1.0, MAX_SIDE / max(height, width))
    if min(height, width) * scale < MIN_SIDE:
        scale = min(MIN_SIDE / min(height, width), MAX_SIDE / max(height, width))
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    x_1CHW = torch.from_numpy(np.ascontiguousarray(image_HWC.transpose(2, 0, 1)))[None]
    if (h, w) != (height, width):
        # On bytes: a float copy of a large photo would take four times its memory.
        x_1CHW = F.interpolate(x_1CHW, size=(h, w), mode="bilinear", antialias=True)
    x_1CHW = F.pad(x_1CHW, (0, max(0, MIN_SIDE - w), 0, max(0, MIN_SIDE - h)))
    return to_images(x_1CHW), scale
