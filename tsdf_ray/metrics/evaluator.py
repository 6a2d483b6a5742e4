"""The evaluator: what a published photo does to forgeries, to detectors and to the eye, as rows of one form.

It keeps models and caches, no results. Cached per photo set: see published.py. Cached per generator: the forgeries of
the clean photos, for G_0 and for the generator judged last (56 MB each for 288 pairs of 128 px), and what networks see
in them.

An attacker may purify photos before it forges. Then P(x) stands for the clean photo x and P(y) for the published y in
every measure of a forgery: G(P(y), c) is compared with G(P(x), c), and the region R is where G(P(x), c) differs from
P(x). So a purification that only blurs is no protection. The subtraction of an estimated perturbation is part of P(y)
but not of P(x): without protection there is none to estimate. Detection and visibility are measured on the photos as
published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from tsdf_ray.attackers.retrain import Retrained
from tsdf_ray.crew import ALONE, Seat
from tsdf_ray.detectors.base import Detector
from tsdf_ray.faces.edits import all_edits
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.base import Family
from tsdf_ray.metrics.forgery import Embedder, Judge, Perceptual, hair_edits, identity_error
from tsdf_ray.metrics.forging import Forger, generator_digest
from tsdf_ray.metrics.interruption import interruption_measures, l2_mask, protected, region
from tsdf_ray.metrics.published import PublishedEvaluator
from tsdf_ray.metrics.rows import Array, Stage, make_rows, restage
from tsdf_ray.metrics.seen import SETS, Sight, Vectors, identity_measures
from tsdf_ray.metrics.sets import SetPairs, set_measures
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
"""What phases `later` and `decay` measure; the others also compare the forgeries' pictures (PSNR, SSIM, identity)."""


class Evaluator(PublishedEvaluator):
    """Judges forgeries of one set of evaluation photos, and what is published of it (published.py).

    `photos` are the clean ones; `initial` is G_0, frozen; `precision` bfloat16 runs generator passes under autocast;
    `batch` (photo, edit) pairs at a time; judge, networks and generators are on the seat's device. Sets of forgeries
    are compared by the vectors of `features`, by default of the judge; identities by those of `identity`, if given.
    """

    def __init__(
        self,
        judge: Judge,
        detectors: Mapping[str, Detector],
        photos: FaceSet,
        initial: Family,
        *,
        features: Embedder | None = None,
        identity: Embedder | None = None,
        lpips: Perceptual | None = None,
        precision: str = "float32",
        batch: int = 32,
        seat: Seat = ALONE,
    ) -> None:
        assert photos.attributes == initial.attributes, "photos and generator must have the same labels"
        super().__init__(detectors, photos, lpips=lpips, batch=batch, seat=seat)
        self._judge = judge
        self._sight = Sight(judge, features, identity)
        self._edits = all_edits(photos.labels(), photos.attributes)
        self._pair_photos = [photos.ids[p] for p in self._edits.photo_P.tolist()]
        self._pair_edits = [photos.attributes[a] for a in self._edits.attribute_P.tolist()]
        self._judged_P = judge.knows(self._edits.attribute_P).cpu().numpy()
        self.initial = initial
        """G_0, frozen."""
        chunks = self._chunks(len(self._edits))
        self._forger = Forger(self._edits, chunks, seat, initial, autocast=precision == "bfloat16")

    def forgery_rows(
        self, stage: Stage, generator: Family, published: FaceSet, clean: FaceSet | None = None
    ) -> pa.Table:
        """Every photo of `published` (the evaluation photos, protected) with every edit that differs from it.

        edit_success (judge), hair_edit_success, l2_mask and sr_mask (reference: the clean forgery by `generator`),
        l2_mask_initial and sr_mask_initial (reference: by G_0), protection, and except in the phases later and decay
        forgery_psnr and forgery_ssim against the clean forgery; with an identity network identity_similarity to the
        clean photo and identity_similarity_clean to the clean forgery. Before and after retraining also, per photo,
        frechet_NAME and kernel_NAME: how far the set is from the clean forgeries (sets.py).

        Both sets as the generator gets them: of an attacker that purifies, P(y) as `published` and P(x) as `clean`
        (default: x itself), see above. Pass the clean ones twice for the unprotected reference.
        """
        rows, pairs = self.compared(stage, generator, published, clean, sets=stage.phase in SETS)
        if pairs is None:
            return rows
        sets = set_measures(self.sets_name, pairs, len(self._photos))
        return pa.concat_tables([rows, make_rows(stage, self._photos.ids, sets, model=stage.model or generator.name)])

    @property
    def sets_name(self) -> str:
        """Of the network that compares sets, as it stands in `frechet_NAME`."""
        return self._sight.sets_name

    def compared(
        self, stage: Stage, generator: Family, published: FaceSet, clean: FaceSet | None = None, *, sets: bool
    ) -> tuple[pa.Table, SetPairs | None]:
        """The rows of `forgery_rows` but for the distances of sets, and with `sets` what those are computed from."""
        clean = clean or self._photos
        for photos in (published, clean):
            assert photos.ids == self._photos.ids, "photos must be the evaluation photos, in order"
        references = self._forger.clean(generator, clean), self._forger.clean(self.initial, clean)
        unprotected = published.digest == clean.digest
        clean_images = clean.images()
        images = clean_images if unprotected else published.images()
        pictures = stage.phase not in {"later", "decay"}
        kinds, key = self._sight.kinds(sets=sets, pictures=pictures), (generator_digest(generator), clean.digest)

        def twins(kind: str) -> Vectors:
            return self._sight.see_clean(
                kind, key, lambda: self._seen(kind, len(self._edits), lambda chunk: references[0][chunk.start])
            )

        def look(chunk: slice) -> dict[str, torch.Tensor]:
            x_PCHW = clean_images[self._edits.photo_P[chunk]].to(self._device)
            clean_PCHW, initial_PCHW = (of[chunk.start].to(self._device) for of in references)
            forged_PCHW = clean_PCHW if unprotected else self._forger.pairs(generator, images, chunk)
            found = {
                "l2": l2_mask(region(x_PCHW, clean_PCHW), clean_PCHW, forged_PCHW),
                "l2_initial": l2_mask(region(x_PCHW, initial_PCHW), initial_PCHW, forged_PCHW),
            }
            if pictures:
                found |= {"psnr": psnr(clean_PCHW, forged_PCHW), "ssim": ssim(clean_PCHW, forged_PCHW)}
            if not unprotected:
                found |= {f"seen {kind}": self._sight.see(kind, forged_PCHW) for kind in kinds}
            return found

        whole = self._shared(len(self._edits), look)
        forged = {kind: twins(kind) if unprotected else whole[f"seen {kind}"] for kind in kinds}
        success_P = self._verdict(forged["judge"])
        # An edit that the judge does not know has weight 0.
        judged_P = self._judged_P.astype(np.float64)
        measures: dict[str, Array | tuple[Array, Array]] = {"edit_success": (success_P * judged_P, judged_P)}
        measures |= interruption_measures(whole["l2"])
        measures |= interruption_measures(whole["l2_initial"], "_initial")
        measures["protection"] = (protected(success_P, whole["l2"]) * judged_P, judged_P)
        if pictures:
            measures |= similarity_measures(whole["psnr"], whole["ssim"], "forgery_")
        if "identity" in forged:
            person_BD = self._sight.see_clean(
                "identity", ("", clean.digest), lambda: self._seen("identity", len(clean), lambda c: clean_images[c])
            )
            measures |= identity_measures(forged["identity"], person_BD[self._edits.photo_P.numpy()], twins("identity"))
        hair = hair_edits(self._pair_edits)
        model = stage.model or generator.name
        rows = pa.concat_tables(
            [
                make_rows(stage, self._pair_photos, measures, self._pair_edits, model=model),
                make_rows(
                    stage,
                    [self._pair_photos[p] for p in hair],
                    {"hair_edit_success": (success_P[hair] * judged_P[hair], judged_P[hair])},
                    [self._pair_edits[p] for p in hair],
                    model=model,
                ),
            ]
        )
        return rows, self._sight.pairs(forged, twins, self._edits.photo_P) if sets else None

    def clean_rows(self, stage: Stage, generator: Family, clean: FaceSet | None = None) -> pa.Table:
        """The unprotected forgery: the rows of `forgery_rows` on the clean photos, and identity_error per photo."""
        clean = clean or self._photos
        images, labels_BA = clean.images(), self._photos.labels()

        def look(chunk: slice) -> dict[str, torch.Tensor]:
            x_BCHW = images[chunk].to(self._device)
            return {"identity_error": identity_error(x_BCHW, self._forger.forge(generator, x_BCHW, labels_BA[chunk]))}

        errors = self._shared(len(self._photos), look)
        identity = make_rows(stage, self._photos.ids, errors, model=stage.model or generator.name)
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

    def _seen(self, kind: str, count: int, pictures: Callable[[slice], torch.Tensor]) -> Vectors:
        """What a network sees in `count` pictures, given by chunk."""
        seen: Vectors = self._shared(
            count, lambda chunk: {kind: self._sight.see(kind, pictures(chunk).to(self._device))}
        )[kind]
        return seen

    def _verdict(self, seen_PD: Vectors) -> np.ndarray:
        """bool [P]: did the edits happen, by what the judge sees?"""
        asked = self._edits.attribute_P, self._edits.target_PA
        with torch.inference_mode():
            found: np.ndarray = (
                self._judge.verdict(*(of.to(self._device) for of in (torch.from_numpy(seen_PD), *asked))).cpu().numpy()
            )
        return found
