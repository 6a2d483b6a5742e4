"""The evaluator on generators and detectors whose answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tsdf_ray.attackers import PrepareConfig, Retrained, prepare
from tsdf_ray.faces.edits import all_edits
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.base import Family
from tsdf_ray.metrics import Evaluator, Stage
from tsdf_ray.metrics.detection import FLOOR
from tsdf_ray.testing.linear import BrightCells, LinearFamily, dark_photos_with_a_bright_cell

PHOTOS = dark_photos_with_a_bright_cell(6)


class Counting(LinearFamily):
    """Counts its passes."""

    def __init__(self, output: tuple[float, ...] = (1.0, 1.0, 1.0)) -> None:
        super().__init__(output)
        self.passes = 0

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        self.passes += len(x_BCHW)
        return super().edit(x_BCHW, c_BA)


class Asked:
    """A judge that finds an edit where the photo is darker than -.3 on average; notes which edits it was asked for."""

    def __init__(self) -> None:
        self.attributes: list[int] = []

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW.mean((2, 3))

    def knows(self, attribute_P: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(attribute_P, dtype=torch.bool)

    def verdict(self, features_PD: torch.Tensor, attribute_P: torch.Tensor, target_PA: torch.Tensor) -> torch.Tensor:
        assert (target_PA[torch.arange(len(features_PD)), attribute_P] >= 0).all()
        self.attributes += attribute_P.tolist()
        return features_PD.mean(1) < -0.3


def evaluator(initial: Family | None = None, batch: int = 5, judge: Any = None) -> Evaluator:
    detectors = {"bright": BrightCells()}
    return Evaluator(judge or Asked(), detectors, PHOTOS, (initial or LinearFamily()).freeze(), batch=batch)


def shifted(photos: FaceSet, by: int) -> FaceSet:
    return photos.with_pixels(np.clip(photos.pixels_BCHW.astype(int) + by, 0, 255).astype(np.uint8))


def values(rows: pa.Table, metric: str, **keys: Any) -> np.ndarray:
    """Values of a metric's rows that carry a weight."""
    found = [
        row["value"]
        for row in rows.to_pylist()
        if row["metric"] == metric and row["weight"] > 0 and all(row[name] == value for name, value in keys.items())
    ]
    return np.array(found)


BEFORE = Stage(1, 0, "before")


def test_every_photo_with_every_edit_in_order() -> None:
    judge = Asked()
    rows = evaluator(judge=judge).forgery_rows(BEFORE, LinearFamily(), shifted(PHOTOS, 3))
    edits = all_edits(PHOTOS.labels(), PHOTOS.attributes)
    of = [row for row in rows.to_pylist() if row["metric"] == "edit_success"]
    assert [row["photo"] for row in of] == [PHOTOS.ids[p] for p in edits.photo_P.tolist()]
    assert [row["edit"] for row in of] == [PHOTOS.attributes[a] for a in edits.attribute_P.tolist()]
    assert judge.attributes == edits.attribute_P.tolist()
    hair = [row["edit"] for row in rows.to_pylist() if row["metric"] == "hair_edit_success"]
    assert hair == [row["edit"] for row in of if row["edit"].endswith("_Hair")]
    assert {row["model"] for row in of} == {"linear"}


def test_l2_mask_of_a_known_distortion() -> None:
    # G adds .1 per requested label: two labels change a pixel by .6 over RGB (in R), one by .3 (R empty).
    rows = evaluator().forgery_rows(BEFORE, LinearFamily(), shifted(PHOTOS, 51))  # 51 steps are .4
    found = values(rows, "l2_mask")
    two_labels = int((all_edits(PHOTOS.labels(), PHOTOS.attributes).target_PA.sum(1) == 2).sum())
    assert 0 < len(found) == two_labels < len(all_edits(PHOTOS.labels(), PHOTOS.attributes))
    np.testing.assert_allclose(found, 0.16, atol=1e-5)
    assert values(rows, "sr_mask").tolist() == [1.0] * two_labels
    assert values(rows, "l2_mask_excluded").sum() == len(values(rows, "edit_success")) - two_labels
    success, kept = values(rows, "edit_success"), values(rows, "protection")
    excluded = values(rows, "l2_mask_excluded")
    np.testing.assert_array_equal(kept, np.maximum(1 - success, 1 - excluded))
    np.testing.assert_allclose(values(rows, "forgery_psnr"), 10 * np.log10(4 / 0.16), atol=1e-3)


def test_the_initial_reference_counts_drift_and_the_other_does_not() -> None:
    drifted = LinearFamily((2.0, 2.0, 2.0)).freeze()
    rows = evaluator().clean_rows(Stage(1, 1, "reference", model="none"), drifted)
    assert (values(rows, "l2_mask") == 0).all()
    assert (values(rows, "sr_mask") == 0).all()
    assert (values(rows, "sr_mask_initial") == 1).all()
    np.testing.assert_array_equal(values(rows, "protection"), 1 - values(rows, "edit_success"))
    # mean |clip(2 x + .1 sum(own)) - x|: a forgery is a picture
    own = PHOTOS.labels().sum(1)[:, None, None, None]
    wanted = ((2 * PHOTOS.images() + 0.1 * own).clamp(-1, 1) - PHOTOS.images()).abs().mean((1, 2, 3))
    np.testing.assert_allclose(values(rows, "identity_error"), wanted, atol=1e-6)
    # Identical forgeries have an infinite PSNR: left out and counted.
    assert len(values(rows, "forgery_psnr")) == 0
    assert (values(rows, "forgery_psnr_excluded") == 1).all()


def test_clean_forgeries_are_made_once_per_generator() -> None:
    initial = Counting()
    judge = evaluator(initial)
    pairs = len(all_edits(PHOTOS.labels(), PHOTOS.attributes))
    later = Counting((1.2, 1.0, 1.0))
    for by in (1, 2):
        judge.forgery_rows(BEFORE, later, shifted(PHOTOS, by))
    assert later.passes == 3 * pairs  # clean once, published twice
    assert initial.passes == pairs
    judge.forgery_rows(BEFORE, initial, shifted(PHOTOS, 1))
    assert initial.passes == 2 * pairs  # G_0's clean forgeries are still there
    judge.forgery_rows(BEFORE, later, PHOTOS)
    assert later.passes == 3 * pairs  # and so are the last generator's, which are also those of the clean photos


def test_the_cache_is_bounded_and_does_not_change_results() -> None:
    judge, published = evaluator(), shifted(PHOTOS, 9)
    families = [LinearFamily((gain, 1.0, 1.0)).freeze() for gain in (1.0, 1.3, 0.7)]
    first = [judge.forgery_rows(BEFORE, family, published) for family in families]
    again = [judge.forgery_rows(BEFORE, family, published) for family in reversed(families)]
    assert len(judge._forger._clean) == 2
    for one, other in zip(first, reversed(again), strict=True):
        assert one.equals(other)


def test_purified_photos_take_the_place_of_both_sides() -> None:
    """G adds .1 per label: from photos 20 steps (.157) darker on both sides the measures are those of undarkened ones,
    because forged and reference, and R, all start from what the generator gets."""
    judge = evaluator()
    plain = judge.forgery_rows(BEFORE, LinearFamily(), shifted(PHOTOS, 51))
    assert PHOTOS.pixels_BCHW.min() >= 20
    darker = judge.forgery_rows(BEFORE, LinearFamily(), shifted(PHOTOS, 31), shifted(PHOTOS, -20))
    for metric in ("l2_mask", "l2_mask_initial", "sr_mask", "l2_mask_excluded"):
        np.testing.assert_allclose(values(darker, metric), values(plain, metric), atol=1e-5)
    washed = judge.forgery_rows(BEFORE, LinearFamily(), PHOTOS, PHOTOS)
    assert len(values(washed, "l2_mask")) == len(values(plain, "l2_mask"))
    assert (values(washed, "l2_mask") == 0).all()
    # Another clean side for the same generator is another reference, whatever was cached.
    again = judge.forgery_rows(BEFORE, LinearFamily(), shifted(PHOTOS, 31), PHOTOS)
    np.testing.assert_allclose(values(again, "l2_mask"), (31 / 127.5) ** 2, atol=1e-5)
    assert len(judge._forger._clean) == 1  # here the generator is G_0 itself


def test_batches_do_not_change_results() -> None:
    published = shifted(PHOTOS, 9)
    one, other = (evaluator(batch=b).forgery_rows(BEFORE, LinearFamily((1.5, 1, 1)), published) for b in (1, 100))
    for name in ("photo", "edit", "metric"):
        assert one[name].equals(other[name])
    np.testing.assert_allclose(one["value"].to_numpy(), other["value"].to_numpy(), atol=1e-5)


def test_later_phases_leave_the_pictures_out() -> None:
    rows = evaluator().forgery_rows(Stage(1, 2, "later"), LinearFamily(), shifted(PHOTOS, 5))
    assert "forgery_ssim" not in set(rows["metric"].to_pylist())


def test_other_photos_are_refused() -> None:
    with pytest.raises(AssertionError, match="in order"):
        evaluator().forgery_rows(BEFORE, LinearFamily(), PHOTOS.take([1, 0, 2, 3, 4, 5]))


class Colour:
    """Sees the mean colour: a network of three numbers; counts its photos."""

    name = "colour"

    def __init__(self) -> None:
        self.photos = 0

    def embed(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        self.photos += len(x_BCHW)
        return x_BCHW.mean((2, 3))


def test_sets_are_compared_before_and_after_by_the_network_given() -> None:
    photos = dark_photos_with_a_bright_cell(80)
    colour, edits = Colour(), all_edits(photos.labels(), photos.attributes)
    assert len(edits) >= 200
    family = LinearFamily().freeze()
    judge = Evaluator(Asked(), {}, photos, family, features=colour)
    rows = judge.forgery_rows(BEFORE, family, shifted(photos, 51))
    assert colour.photos == 2 * len(edits)
    # G adds the same to every pixel, so all colours move by .4 and nothing else: .4^2 per channel.
    found = values(rows, "frechet_colour")
    assert found.mean() == pytest.approx(3 * 0.16, abs=1e-5)
    assert [row["photo"] for row in rows.to_pylist() if row["metric"] == "frechet_colour"] == list(photos.ids)
    assert (values(judge.forgery_rows(BEFORE, family, photos), "kernel_colour") == 0).all()
    assert colour.photos == 2 * len(edits)  # clean forgeries are seen once
    names = {name for name in rows["metric"].to_pylist() if name.startswith(("frechet_", "kernel_"))}
    assert names == {"frechet_colour", "kernel_colour"}
    for phase in ("later", "decay", "reference"):
        rows = judge.forgery_rows(Stage(1, 1, phase), family, shifted(photos, 51))
        assert not names & set(rows["metric"].to_pylist())
    assert colour.photos == 2 * len(edits)
    # Without a network it is the judge's; six photos are too few for a number.
    small = evaluator().forgery_rows(BEFORE, LinearFamily(), shifted(PHOTOS, 51)).to_pylist()
    assert {row["weight"] for row in small if row["metric"] in {"frechet_judge", "kernel_judge"}} == {0.0}


def test_identity_is_compared_with_the_photo_and_with_the_unprotected_forgery() -> None:
    colour = Colour()
    judge = Evaluator(Asked(), {}, PHOTOS, LinearFamily().freeze(), identity=colour)
    generator = LinearFamily((1.0, 1.0, -1.0)).freeze()
    rows = judge.forgery_rows(BEFORE, generator, shifted(PHOTOS, 51))
    edits = all_edits(PHOTOS.labels(), PHOTOS.attributes)
    gain, added = torch.tensor([1.0, 1.0, -1.0])[:, None, None], 0.1 * edits.target_PA.sum(1)[:, None, None, None]

    def forged(photos: FaceSet) -> np.ndarray:
        means = (gain * photos.images()[edits.photo_P] + added).clamp(-1, 1).mean((2, 3))
        return (means / means.norm(dim=1, keepdim=True)).numpy()

    person = PHOTOS.images()[edits.photo_P].mean((2, 3)).numpy()
    person = person / np.linalg.norm(person, axis=1, keepdims=True)
    made, twin = forged(shifted(PHOTOS, 51)), forged(PHOTOS)
    np.testing.assert_allclose(values(rows, "identity_similarity"), (made * person).sum(1), atol=1e-5)
    np.testing.assert_allclose(values(rows, "identity_similarity_clean"), (made * twin).sum(1), atol=1e-5)
    assert values(rows, "identity_similarity").std() > 0.01
    reference = judge.clean_rows(Stage(0, 0, "reference", model="none"), generator)
    np.testing.assert_allclose(values(reference, "identity_similarity_clean"), 1, atol=1e-6)
    np.testing.assert_allclose(values(reference, "identity_similarity"), (twin * person).sum(1), atol=1e-5)
    assert colour.photos == len(PHOTOS) + 2 * len(edits)
    later = judge.forgery_rows(Stage(1, 2, "later"), generator, shifted(PHOTOS, 51))
    assert "identity_similarity" not in set(later["metric"].to_pylist())


def test_untouched_photos_and_hidden_faces() -> None:
    judge, stage = evaluator(), Stage(1, 1, "detection")
    same = judge.detection_rows(stage, PHOTOS)
    assert set(same["model"].to_pylist()) == {"bright"}
    assert (values(same, "duq") == 1).all()
    assert (values(same, "score_change") == 0).all()
    dark = judge.detection_rows(stage, PHOTOS.with_pixels(np.zeros_like(PHOTOS.pixels_BCHW)))
    assert (values(dark, "duq") == 0).all()
    assert (values(dark, "recall") == 0).all()
    assert (values(dark, "fn") == 1).all()
    clean = torch.tensor([float(found.scores_N[0]) for found in BrightCells().detect(PHOTOS.images(), FLOOR)])
    np.testing.assert_allclose(values(dark, "score_change"), -clean, atol=1e-6)


class Brighter:
    """In the place of LPIPS: how much brighter the published photo is."""

    def distance(self, a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
        return (b_BCHW - a_BCHW).mean((1, 2, 3)).double()


def test_visibility_of_a_known_shift() -> None:
    rows = evaluator().visibility_rows(Stage(1, 1, "visibility"), shifted(PHOTOS, 10))
    np.testing.assert_allclose(values(rows, "psnr"), 20 * np.log10(255 / 10), atol=1e-3)
    assert "lpips" not in set(rows["metric"].to_pylist())
    seen = Evaluator(Asked(), {}, PHOTOS, LinearFamily().freeze(), lpips=Brighter(), batch=4)
    rows = seen.visibility_rows(Stage(1, 1, "visibility"), shifted(PHOTOS, 10))
    np.testing.assert_allclose(values(rows, "lpips"), 10 / 127.5, atol=1e-6)
    same = evaluator().visibility_rows(Stage(1, 1, "visibility"), PHOTOS)
    assert len(values(same, "psnr")) == 0
    np.testing.assert_allclose(values(same, "ssim"), 1, atol=1e-6)


def test_preparation_counts_what_is_usable_and_where_the_boxes_are() -> None:
    judge, config, detectors = evaluator(), PrepareConfig(detectors=("bright",)), {"bright": BrightCells()}
    collected = dark_photos_with_a_bright_cell(8, seed=5)
    pixels = collected.pixels_BCHW.copy()
    pixels[:3] = 0  # hidden
    published = collected.with_pixels(pixels)
    rows = judge.preparation_rows(Stage(1, 1, "preparation"), config, prepare(config, detectors, published), collected)
    assert values(rows, "yield").tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(values(rows, "crop_iou"), 1)
    assert len(values(rows, "crop_iou")) == 5
    assert set(rows["split"].to_pylist()) == {"attacker"}
    assert rows["photo"].to_pylist()[:8] == list(collected.ids)
    kept = PrepareConfig(detectors=("bright",), on_miss="keep")
    rows = judge.preparation_rows(Stage(1, 1, "preparation"), kept, prepare(kept, detectors, published), collected)
    assert values(rows, "yield").mean() == 1
    assert values(rows, "face_found").tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert "box_reused" not in rows["metric"].to_pylist()
    reused = PrepareConfig(detectors=("bright",), known_boxes=True)
    rows = judge.preparation_rows(Stage(1, 1, "preparation"), reused, prepare(reused, detectors, published), collected)
    assert values(rows, "box_reused").tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert values(rows, "face_found").tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert len(values(rows, "crop_iou")) == 8  # a reused box counts, however bad


SHARES = (0.0, 0.5, 1.0)


def test_the_decay_curve_uses_both_ends_and_the_snapshots() -> None:
    judge, published = evaluator(), shifted(PHOTOS, 51)
    old, new, middle = (LinearFamily((gain, 1.0, 1.0)).freeze() for gain in (1.0, 3.0, 2.0))
    before = judge.forgery_rows(BEFORE, old, published)
    after = judge.forgery_rows(Stage(1, 1, "after"), new, published)
    retrained = Retrained(new.tensors(), {0.5: middle.tensors(("generator",))}, 10, {}, photos=80)
    rows = judge.decay_rows(1, LinearFamily().freeze(), retrained, published, before, after, SHARES)
    wanted = {0.0: before, 1.0: after, 0.5: judge.forgery_rows(Stage(1, 1, "decay", 0.5), middle, published)}
    for share, expected in wanted.items():
        for metric in ("edit_success", "l2_mask", "sr_mask_initial"):
            np.testing.assert_array_equal(values(rows, metric, step_share=share), values(expected, metric))
        assert values(rows, "steps", step_share=share).tolist() == [share * 10]
        assert values(rows, "photos_seen", step_share=share).tolist() == [share * 80]
    assert set(rows["phase"].to_pylist()) == {"decay"}


def test_the_decay_of_a_starved_attacker_is_flat() -> None:
    judge, published, family = evaluator(), shifted(PHOTOS, 51), Counting()
    before = judge.forgery_rows(BEFORE, family, published)
    passes = family.passes
    retrained = Retrained(family.tensors(), {}, 0, {}, reason="3 usable photos, fewer than a batch of 16")
    rows = judge.decay_rows(1, family, retrained, published, before, before, SHARES)
    assert family.passes == passes
    curves = [values(rows, "l2_mask", step_share=share).tolist() for share in SHARES]
    assert curves[0] == curves[1] == curves[2]
    assert len(values(rows, "steps")) == 0
