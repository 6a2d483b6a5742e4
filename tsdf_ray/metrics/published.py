"""What is measured of published photos themselves: detectors, the eye, and what an attacker's preparation keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch

from tsdf_ray.attackers.prepare import PrepareConfig, Prepared, detect_all, prepare
from tsdf_ray.crew import ALONE, Seat
from tsdf_ray.detectors.base import Boxes, Detector
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.metrics.detection import FLOOR, detection_measures, paired_iou
from tsdf_ray.metrics.forgery import Perceptual
from tsdf_ray.metrics.rows import ROWS, Array, Stage, make_rows
from tsdf_ray.metrics.visibility import psnr, similarity_measures, ssim

T = TypeVar("T")
K = TypeVar("K")


class PublishedEvaluator:
    """Judges what is published of one set of evaluation photos; `photos` are the clean ones.

    Cached per photo set: detections on clean photos, and the preparation of clean photos. Models are on the seat's
    device; workers share the chunks of `batch` photos and make rows of everybody's results, all the same.
    """

    def __init__(
        self,
        detectors: Mapping[str, Detector],
        photos: FaceSet,
        *,
        lpips: Perceptual | None = None,
        batch: int = 32,
        seat: Seat = ALONE,
    ) -> None:
        self._seat = seat
        self._device = torch.device(seat.device)
        self._detectors = detectors
        self._photos = photos
        self._lpips = lpips
        self._batch = seat.micro_batch(batch, None)
        self._boxes: dict[tuple[str, str], list[Boxes]] = {}
        self._clean_prepared: dict[tuple[str, str], Prepared] = {}

    def detection_rows(self, stage: Stage, published: FaceSet) -> pa.Table:
        """Boxes of every detector on the published photos against its own on the clean ones; column model names it."""
        tables = [ROWS.empty_table()]
        for name in self._detectors:
            clean = self._clean_boxes(name)
            found = detect_all(self._detectors[name], published.pixels_BCHW, FLOOR, seat=self._seat)
            tables.append(make_rows(stage, published.ids, detection_measures(clean, found), model=name))
        return pa.concat_tables(tables)

    def visibility_rows(self, stage: Stage, published: FaceSet) -> pa.Table:
        """psnr and ssim of the published photos against the clean ones, and lpips where its weights are given."""
        looks: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {"psnr": psnr, "ssim": ssim}
        if self._lpips is not None:
            looks["lpips"] = self._lpips.distance
        clean_images, images = self._photos.images(), published.images()

        def look(chunk: slice) -> dict[str, torch.Tensor]:
            clean_BCHW, x_BCHW = (photos[chunk].to(self._device) for photos in (clean_images, images))
            return {name: of(clean_BCHW, x_BCHW) for name, of in looks.items()}

        seen = self._shared(len(self._photos), look)
        measures = similarity_measures(seen["psnr"], seen["ssim"])
        if "lpips" in seen:
            measures["lpips"] = seen["lpips"]
        return make_rows(stage, published.ids, measures)

    def preparation_rows(self, stage: Stage, config: PrepareConfig, prepared: Prepared, clean: FaceSet) -> pa.Table:
        """What the attacker could use of the photos it collected; `clean` are the same photos without protection.

        yield (usable or not), face_found, box_reused (with known_boxes), and crop_iou of its boxes (reused ones too)
        with those the same preparation has on the clean photos (where both have one). The detectors that `config` names
        must be among the evaluator's.
        """
        assert len(prepared.has_box_N) == len(clean), "prepared and clean photos must be the same collection"
        key = (clean.digest, config.model_dump_json())
        reference = remember(
            self._clean_prepared, key, 2, lambda: prepare(config, self._detectors, clean, None, self._seat)
        )
        usable_N = np.zeros(len(clean), dtype=np.bool_)
        usable_N[prepared.used_U] = True
        both_N = prepared.has_box_N & reference.has_box_N & usable_N
        overlap_N = np.where(both_N, paired_iou(prepared.boxes_N4, reference.boxes_N4), 0.0)
        measures: dict[str, Array | tuple[Array, Array]] = {
            "yield": usable_N,
            "crop_iou": (overlap_N, both_N.astype(np.float64)),
        }
        if config.detectors:
            measures["face_found"] = prepared.found_N
        if config.known_boxes:
            measures["box_reused"] = prepared.has_box_N & ~prepared.found_N
        model = stage.model or "+".join(config.detectors)
        return make_rows(stage, clean.ids, measures, split="attacker", model=model)

    def _chunks(self, count: int) -> list[slice]:
        return [slice(start, start + self._batch) for start in range(0, count, self._batch)]

    def _shared(self, count: int, look: Callable[[slice], Mapping[str, torch.Tensor]]) -> dict[str, np.ndarray]:
        """`look` at every chunk of `count`, on whichever worker: its tensors by name, whole, in order."""
        chunks = self._chunks(count)

        def own(mine: range) -> list[dict[str, np.ndarray]]:
            with torch.inference_mode():
                return [{name: of.cpu().numpy() for name, of in look(chunks[n]).items()} for n in mine]

        return joined(found for part in self._seat.crew.share(len(chunks), own) for found in part)

    def _clean_boxes(self, name: str) -> list[Boxes]:
        key = (name, self._photos.digest)
        return remember(
            self._boxes,
            key,
            len(self._detectors),
            lambda: detect_all(self._detectors[name], self._photos.pixels_BCHW, FLOOR, seat=self._seat),
        )


def joined(parts: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of the same names, one after another."""
    found: dict[str, list[np.ndarray]] = {}
    for part in parts:
        for name, array in part.items():
            found.setdefault(name, []).append(array)
    return {name: np.concatenate(arrays) for name, arrays in found.items()}


def remember(cache: dict[K, T], key: K, size: int, make: Callable[[], T]) -> T:
    """The value of `key`, made when missing; the oldest of more than `size` entries goes."""
    if key not in cache:
        while len(cache) >= size:
            cache.pop(next(iter(cache)))
        cache[key] = make()
    return cache[key]
