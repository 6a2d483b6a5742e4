"""A few evaluation photos as pictures for the report: published, forged before and after, with the detectors' boxes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tsdf_ray.detectors import Detector
from tsdf_ray.faces import FaceSet, all_edits, to_pixels
from tsdf_ray.generators import Family

Pictures = dict[str, npt.NDArray[Any]]
Purify = Callable[[FaceSet, bool], FaceSet]
"""What the attacker does to (photos, are they protected) before it forges."""


class Samples:
    """The first photos of the evaluation split, each with one edit; the edits take turns."""

    def __init__(
        self, clean: FaceSet, count: int, detectors: Mapping[str, Detector], precision: str, device: str
    ) -> None:
        self._clean = clean.take(range(min(count, len(clean))))
        self._detectors = detectors
        self._device = device
        self._autocast = precision == "bfloat16"
        edits = all_edits(self._clean.labels(), clean.attributes)
        chosen = []
        for k in range(len(self._clean)):
            own = torch.nonzero(edits.photo_P == k).flatten()
            chosen.append(int(own[k % len(own)]))
        self._target_BA = edits.target_PA[chosen]
        names = [clean.attributes[a] for a in edits.attribute_P[chosen].tolist()]
        self.notes = {"ids": json.dumps(self._clean.ids), "edits": json.dumps(names)}

    def before(self, generator: Family, published: FaceSet, purify: Purify) -> Pictures:
        """photo, published, forgeries by G_{r-1}, and boxes (see docs/run-directory.md)."""
        shown = published.take(range(len(self._clean)))
        pictures: Pictures = {
            "photo": self._clean.pixels_BCHW,
            "published": shown.pixels_BCHW,
            "forgery_clean": self._forge(generator, purify(self._clean, False)),
            "forgery_before": self._forge(generator, purify(shown, True)),
        }
        for name, detector in self._detectors.items():
            pictures[f"clean_boxes.{name}"] = self._boxes(detector, self._clean)
            pictures[f"boxes.{name}"] = self._boxes(detector, shown)
        return pictures

    def after(self, generator: Family, published: FaceSet, purify: Purify) -> Pictures:
        """Forgeries by G_r."""
        shown = published.take(range(len(self._clean)))
        return {
            "forgery_after": self._forge(generator, purify(shown, True)),
            "forgery_clean_after": self._forge(generator, purify(self._clean, False)),
        }

    def _forge(self, generator: Family, photos: FaceSet) -> npt.NDArray[np.uint8]:
        with (
            torch.inference_mode(),
            torch.autocast(torch.device(self._device).type, torch.bfloat16, enabled=self._autocast),
        ):
            forged_BCHW = generator.edit(photos.images().to(self._device), self._target_BA.to(self._device))
            pixels: npt.NDArray[np.uint8] = to_pixels(forged_BCHW).cpu().numpy()
        return pixels

    def _boxes(self, detector: Detector, photos: FaceSet) -> npt.NDArray[np.float32]:
        """float32 [M, 6]: sample index, x1, y1, x2, y2, score."""
        rows = [
            [k, *box, score]
            for k, found in enumerate(detector.detect(photos.images().to(self._device)))
            for box, score in zip(found.boxes_N4.tolist(), found.scores_N.tolist(), strict=True)
        ]
        return np.array(rows, dtype=np.float32).reshape(-1, 6)
