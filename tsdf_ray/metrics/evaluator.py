"""The evaluator: what a published photo does to forgeries, to detectors and to the eye, as rows of one form.

It keeps models and caches, no results. Cached per photo set: detections on clean photos. Cached per generator: the
forgeries of the clean photos, for G_0 and for the generator judged last (56 MB each for 288 pairs of 128 px).

An attacker may purify photos before it forges. Then P(x) stands for the clean photo x and P(y) for the published y in
every measure of a forgery: G(P(y), c) is compared with G(P(x), c), and the region R is where G(P(x), c) differs from
P(x). So a purification that only blurs is no protection. The subtraction of an estimated perturbation is part of P(y)
but not of P(x): without protection there is none to estimate. Detection and visibility are measured on the photos as
published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch

from tsdf_ray.attackers.prepare import PrepareConfig, Prepared, detect_all, prepare
from tsdf_ray.attackers.retrain import Retrained
from tsdf_ray.detectors.base import Boxes, Detector
from tsdf_ray.digest import array_digest
from tsdf_ray.faces.edits import all_edits
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.base import Family
from tsdf_ray.metrics.detection import FLOOR, detection_measures, paired_iou
from tsdf_ray.metrics.forgery import Judge, hair_edits, identity_error
from tsdf_ray.metrics.interruption import interruption_measures, l2_mask, protected, region
from tsdf_ray.metrics.rows import ROWS, Array, Stage, make_rows, restage
from tsdf_ray.metrics.visibility import psnr, similarity_measures, ssim

DECAY_METRICS = (
    "edit_success",
    "hair_edit_success",
    "l2_mask",
    "l2_mask_excluded",
    "sr_mask",
    "l2_mask_initial",
    "l2_mask_initial_excluded",
    "sr_mask_initial",
    "protection",
)
"""What phases `later` and `decay` measure; the others also compare the forgeries' pictures (PSNR, SSIM)."""

T = TypeVar("T")
K = TypeVar("K")


class Evaluator:
    """Judges forgeries of one set of evaluation photos.

    `photos` are the clean ones; `initial` is G_0, frozen; `precision` bfloat16 runs generator passes under autocast;
    `batch` (photo, edit) pairs at a time; judge and generators are on `device`.
    """

    def __init__(
        self,
        judge: Judge,
        detectors: Mapping[str, Detector],
        photos: FaceSet,
        initial: Family,
        *,
        precision: str = "float32",
        batch: int = 32,
        device: str = "cpu",
    ) -> None:
        assert photos.attributes == initial.attributes, "photos and generator must have the same labels"
        self._device = torch.device(device)
        self._judge = judge
        self._detectors = detectors
        self._photos = photos
        self._autocast = precision == "bfloat16"
        self._batch = batch
        self._edits = all_edits(photos.labels(), photos.attributes)
        self._target_PA = self._edits.target_PA.to(self._device)
        self._attribute_P = self._edits.attribute_P.to(self._device)
        self._pair_photos = [photos.ids[p] for p in self._edits.photo_P.tolist()]
        self._pair_edits = [photos.attributes[a] for a in self._edits.attribute_P.tolist()]
        self.initial = initial
        """G_0, frozen."""
        self._initial_digest = _digest(initial)
        self._clean: dict[tuple[str, str], list[torch.Tensor]] = {}
        self._boxes: dict[tuple[str, str], list[Boxes]] = {}
        self._clean_prepared: dict[tuple[str, str], Prepared] = {}

    def forgery_rows(
        self, stage: Stage, generator: Family, published: FaceSet, clean: FaceSet | None = None
    ) -> pa.Table:
        """Every photo of `published` (the evaluation photos, protected) with every edit that differs from it.

        edit_success (judge), hair_edit_success, l2_mask and sr_mask (reference: the clean forgery by `generator`),
        l2_mask_initial and sr_mask_initial (reference: by G_0), protection, and except in the phases later and decay
        forgery_psnr and forgery_ssim against the clean forgery. Both sets as the generator gets them: of an attacker
        that purifies, P(y) as `published` and P(x) as `clean` (default: x itself), see above. Pass the clean ones twice
        for the unprotected reference.
        """
        clean = clean or self._photos
        for photos in (published, clean):
            assert photos.ids == self._photos.ids, "photos must be the evaluation photos, in order"
        references = self._clean_forgeries(generator, clean), self._clean_forgeries(self.initial, clean)
        clean_images = clean.images().to(self._device)
        images = clean_images if published.digest == clean.digest else published.images().to(self._device)
        pictures = stage.phase not in {"later", "decay"}
        parts: dict[str, list[np.ndarray]] = {}
        with torch.inference_mode():
            for chunk, clean_PCHW, initial_PCHW in zip(self._chunks(len(self._edits)), *references, strict=True):
                photo_P, target_PA = self._edits.photo_P[chunk], self._target_PA[chunk]
                x_PCHW = clean_images[photo_P]
                if images is clean_images:
                    forged_PCHW = clean_PCHW
                else:
                    forged_PCHW = self._edit(generator, images[photo_P], target_PA)
                found = {
                    "success": self._judge.succeeds(forged_PCHW, self._attribute_P[chunk], target_PA),
                    "l2": l2_mask(region(x_PCHW, clean_PCHW), clean_PCHW, forged_PCHW),
                    "l2_initial": l2_mask(region(x_PCHW, initial_PCHW), initial_PCHW, forged_PCHW),
                }
                if pictures:
                    found |= {"psnr": psnr(clean_PCHW, forged_PCHW), "ssim": ssim(clean_PCHW, forged_PCHW)}
                for name, value in found.items():
                    parts.setdefault(name, []).append(value.cpu().numpy())
        whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        success_P = whole["success"].astype(np.bool_)
        measures: dict[str, Array | tuple[Array, Array]] = {"edit_success": success_P}
        measures |= interruption_measures(whole["l2"])
        measures |= interruption_measures(whole["l2_initial"], "_initial")
        measures["protection"] = protected(success_P, whole["l2"])
        if pictures:
            measures |= similarity_measures(whole["psnr"], whole["ssim"], "forgery_")
        hair = hair_edits(self._pair_edits)
        model = stage.model or generator.name
        return pa.concat_tables(
            [
                make_rows(stage, self._pair_photos, measures, self._pair_edits, model=model),
                make_rows(
                    stage,
                    [self._pair_photos[p] for p in hair],
                    {"hair_edit_success": success_P[hair]},
                    [self._pair_edits[p] for p in hair],
                    model=model,
                ),
            ]
        )

    def clean_rows(self, stage: Stage, generator: Family, clean: FaceSet | None = None) -> pa.Table:
        """The unprotected forgery: the rows of `forgery_rows` on the clean photos, and identity_error per photo."""
        clean = clean or self._photos
        errors = []
        with torch.inference_mode():
            images = clean.images().to(self._device)
            labels_BA = self._photos.labels().to(self._device)
            for chunk in self._chunks(len(self._photos)):
                x_BCHW = images[chunk]
                errors.append(identity_error(x_BCHW, self._edit(generator, x_BCHW, labels_BA[chunk])).cpu().numpy())
        identity = make_rows(
            stage,
            self._photos.ids,
            {"identity_error": np.concatenate(errors)},
            model=stage.model or generator.name,
        )
        return pa.concat_tables([self.forgery_rows(stage, generator, clean, clean), identity])

    def decay_rows(
        self,
        round: int,
        generator: Family,
        retrained: Retrained,
        published: FaceSet,
        before: pa.Table,
        after: pa.Table,
        shares: Sequence[float],
        clean: FaceSet | None = None,
    ) -> pa.Table:
        """w_r within its round: `before` (G_{r-1}) at share 0, `after` (G_r) at 1, snapshots between.

        And at every share the `steps` made and `photos_seen` (as often as they stood in a batch).

        `generator` lends its structure and its other parts; its weights are left at the last snapshot.
        """
        tables = []
        for share in shares:
            stage = Stage(round, round, "decay", share)
            if share in retrained.snapshots:
                generator.load(retrained.snapshots[share])
                tables.append(self.forgery_rows(stage, generator, published, clean))
            else:
                # Nothing was trained, or an end of the curve: measured already.
                tables.append(restage(before if share == 0 else after, stage, DECAY_METRICS))
            trained = np.array([float(retrained.steps > 0)])
            made = retrained.step_at(share)
            seen = made * retrained.photos / max(1, retrained.steps)
            steps = {"steps": (np.array([made]), trained), "photos_seen": (np.array([seen]), trained)}
            tables.append(make_rows(stage, [""], steps, model=stage.model or generator.name))
        return pa.concat_tables(tables)

    def detection_rows(self, stage: Stage, published: FaceSet) -> pa.Table:
        """Boxes of every detector on the published photos against its own on the clean ones; column model names it."""
        tables = [ROWS.empty_table()]
        for name in self._detectors:
            clean = self._clean_boxes(name)
            found = detect_all(self._detectors[name], published.pixels_BCHW, FLOOR)
            tables.append(make_rows(stage, published.ids, detection_measures(clean, found), model=name))
        return pa.concat_tables(tables)

    def visibility_rows(self, stage: Stage, published: FaceSet) -> pa.Table:
        """psnr and ssim of the published photos against the clean ones."""
        values: list[tuple[np.ndarray, np.ndarray]] = []
        with torch.inference_mode():
            clean_images, images = (photos.images().to(self._device) for photos in (self._photos, published))
            for chunk in self._chunks(len(self._photos)):
                x, y = clean_images[chunk], images[chunk]
                values.append((psnr(x, y).cpu().numpy(), ssim(x, y).cpu().numpy()))
        psnr_B, ssim_B = (np.concatenate(part) for part in zip(*values, strict=True))
        return make_rows(stage, published.ids, similarity_measures(psnr_B, ssim_B))

    def preparation_rows(self, stage: Stage, config: PrepareConfig, prepared: Prepared, clean: FaceSet) -> pa.Table:
        """What the attacker could use of the photos it collected; `clean` are the same photos without protection.

        yield (usable or not), face_found, box_reused (with known_boxes), and crop_iou of its boxes (reused ones too)
        with those the same preparation has on the clean photos (where both have one). The detectors that `config` names
        must be among the evaluator's.
        """
        assert len(prepared.has_box_N) == len(clean), "prepared and clean photos must be the same collection"
        key = (clean.digest, config.model_dump_json())
        reference = _remember(self._clean_prepared, key, 2, lambda: prepare(config, self._detectors, clean))
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

    def _edit(self, generator: Family, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            # A forgery is a picture: some families' last layer is not bounded.
            return generator.edit(x_BCHW, c_BA).float().clamp(-1.0, 1.0)

    def _clean_forgeries(self, generator: Family, clean: FaceSet) -> list[torch.Tensor]:
        """G(x, c) of every pair, by chunk. Kept: G_0's and the last generator's, of the last `clean` photos."""
        key = _digest(generator), clean.digest
        if key not in self._clean:
            images = clean.images().to(self._device)
            with torch.inference_mode():
                forged = [
                    self._edit(generator, images[self._edits.photo_P[chunk]], self._target_PA[chunk])
                    for chunk in self._chunks(len(self._edits))
                ]
            self._clean = {
                other: kept
                for other, kept in self._clean.items()
                if other[1] == key[1] and self._initial_digest in {other[0], key[0]}
            }
            self._clean[key] = forged
        return self._clean[key]

    def _clean_boxes(self, name: str) -> list[Boxes]:
        key = (name, self._photos.digest)
        return _remember(
            self._boxes,
            key,
            len(self._detectors),
            lambda: detect_all(self._detectors[name], self._photos.pixels_BCHW, FLOOR),
        )


def _remember(cache: dict[K, T], key: K, size: int, make: Callable[[], T]) -> T:
    """The value of `key`, made when missing; the oldest of more than `size` entries goes."""
    if key not in cache:
        while len(cache) >= size:
            cache.pop(next(iter(cache)))
        cache[key] = make()
    return cache[key]


def _digest(generator: Family) -> str:
    return array_digest(generator.tensors(("generator",)))
