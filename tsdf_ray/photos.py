"""What protection does to one photo, whoever asks for it: its frames, its pixels, and what can be seen of it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from PIL import Image

from tsdf_ray.armour import Armour
from tsdf_ray.detectors import Detector
from tsdf_ray.faces import FaceSet, to_images
from tsdf_ray.metrics.visibility import psnr, ssim
from tsdf_ray.regions import Pixels, Region, all_face_regions, centre_square, stretch

LOCATORS = ("retinaface", "mtcnn")
"""Detectors in the order they are tried on a photo."""
BATCH = 32
"""Faces perturbed at once."""
SSIM_SIDE = 1024
"""SSIM is taken on the middle of larger frames: its cost grows with the area, its value hardly."""

SEEN = (
    ("width", pa.int64()),
    ("height", pa.int64()),
    ("faces", pa.int64()),
    ("psnr", pa.float64()),
    ("ssim", pa.float64()),
    ("max_delta", pa.float64()),
    ("max_steps", pa.int64()),
    ("note", pa.string()),
)
"""Columns that say of a photo what was done to it and what can be seen of that."""

Steps = npt.NDArray[np.int16]
Faces = Literal["find", "whole"]
"""Faces are looked for, or every photo is one: its middle square is the frame (aligned data sets)."""
NoFace = Literal["skip", "whole"]
"""A photo in which no face is found is left out, or its middle square is treated as one."""


@dataclass(frozen=True)
class Framed:
    """Where a photo is changed."""

    regions: list[Region]
    faces: int
    """How many of them are faces: 0 where none was found and the middle square is taken."""

    @property
    def note(self) -> str:
        """What the user should know of it, or nothing."""
        if self.faces:
            return ""
        return "no face found: middle square" if self.regions else "no face found: left out"


def framed(images: Sequence[Pixels], detectors: Sequence[Detector], faces: Faces, no_face: NoFace) -> list[Framed]:
    """The frames of photos, uint8 [H, W, 3] of any size. With `faces: whole` the detectors are not asked."""
    if faces == "whole":
        return [Framed([centre_square(image_HWC)], 1) for image_HWC in images]
    found = all_face_regions(images, detectors)
    spare = no_face == "whole"
    return [
        Framed(regions or ([centre_square(image_HWC)] if spare else []), len(regions))
        for image_HWC, regions in zip(images, found, strict=True)
    ]


def whole_steps(armour: Armour, frames: FaceSet, tell: Callable[[int, int], None] = lambda done, total: None) -> Steps:
    """The perturbation of every frame in whole steps of the 8-bit grid: [N or 1, 3, S, S]."""
    parts = []
    for first in range(0, len(frames), BATCH):
        tell(first, len(frames))
        part = armour.perturb(frames.take(range(first, min(first + BATCH, len(frames)))))
        parts.append((part * 127.5).round().to(torch.int16).numpy())
        if parts[0].shape[0] == 1:
            # Universal, the same for every frame (or there is one frame).
            break
    return np.concatenate(parts)


def moved(before: Pixels, regions: list[Region], steps: Steps, first: int) -> Pixels:
    """A copy of a photo with `steps` (of frame `first` on, or one for all) added in `regions`, largest first.

    Where frames overlap the larger keeps its own: no pixel is moved twice.
    """
    after = before.copy()
    free = np.ones((*before.shape[:2], 1), dtype=bool)
    for k, region in enumerate(regions):
        own = steps[0] if len(steps) == 1 else steps[first + k]
        part = region.cut(after)
        part[:] = (part + stretch(own, region.side) * region.cut(free)).clip(0, 255).astype(np.uint8)
        region.cut(free)[:] = False
    return after


def seen(before: Pixels, after: Pixels, regions: Sequence[Region]) -> dict[str, Any]:
    """psnr and ssim (means over the frames), max_delta on the [-1, 1] scale, max_steps in steps of 1/255.

    psnr is None where nothing changed.
    """
    values = [_visibility(region.cut(before), region.cut(after)) for region in regions]
    largest = max(int(np.abs(r.cut(after).astype(np.int16) - r.cut(before)).max()) for r in regions)
    known = [value for value, _ in values if math.isfinite(value)]
    return {
        "psnr": sum(known) / len(known) if known else None,
        "ssim": sum(value for _, value in values) / len(values),
        "max_delta": largest / 127.5,
        "max_steps": largest,
    }


def noted(measured: dict[str, Any], frames: Framed) -> str:
    """The note on a photo that was protected."""
    return frames.note if measured["max_steps"] else "unchanged: PSNR is infinite"


def _visibility(before: Pixels, after: Pixels) -> tuple[float, float]:
    """PSNR of a frame, and SSIM of its middle."""
    a, b = (to_images(torch.from_numpy(np.array(part.transpose(2, 0, 1))))[None] for part in (before, after))
    cut = max(0, (a.shape[-1] - SSIM_SIDE) // 2)
    middle = slice(cut, cut + SSIM_SIDE)
    return float(psnr(a, b)[0]), float(ssim(a[..., middle, middle], b[..., middle, middle])[0])


def png(pixels_HWC: Pixels, data: bytes) -> bytes:
    """A PNG of these pixels with the colour profile of the photo `data`: without it the numbers would show others."""
    with Image.open(io.BytesIO(data)) as photo:
        profile = photo.info.get("icc_profile") if photo.mode == "RGB" else None
    written = io.BytesIO()
    Image.fromarray(pixels_HWC).save(written, format="PNG", **({"icc_profile": profile} if profile else {}))
    return written.getvalue()
