"""Each test of the detectors' contract fails for a detector that breaks what it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tsdf_ray.detectors import Boxes, Detector, RawOutput
from tsdf_ray.testing.detector_contract import DetectorContract
from tsdf_ray.testing.linear import BrightCells, dark_photos_with_a_bright_cell


class Sound(BrightCells):
    """Bright cells."""


class LogOddsForScores(Sound):
    def raw(self, x_BCHW: torch.Tensor) -> RawOutput:
        out = super().raw(x_BCHW)
        return replace(out, groups=tuple(replace(group, scores_N=group.log_odds_N) for group in out.groups))


class ALevelWithoutAName(Sound):
    feature_levels = ("cells",)


class ScalesThePhotosInPlace(Sound):
    def raw(self, x_BCHW: torch.Tensor) -> RawOutput:
        return super().raw(x_BCHW.mul_(0.9))


class OtherFeaturesAlone(Sound):
    def raw(self, x_BCHW: torch.Tensor) -> RawOutput:
        out = super().raw(x_BCHW)
        return replace(out, features=tuple(2 * level for level in out.features))


class ChangesBoxes(Sound):
    def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list[Boxes]:
        return [self.change(boxes, score_threshold) for boxes in super().detect(x_BCHW, score_threshold)]

    def change(self, boxes: Boxes, threshold: float) -> Boxes:
        raise NotImplementedError


class CornersSwapped(ChangesBoxes):
    def change(self, boxes: Boxes, threshold: float) -> Boxes:
        return replace(boxes, boxes_N4=boxes.boxes_N4[:, [2, 3, 0, 1]])


class WorstFirst(ChangesBoxes):
    def change(self, boxes: Boxes, threshold: float) -> Boxes:
        return Boxes(boxes.boxes_N4.flip(0), boxes.scores_N.flip(0))


class PercentForShares(ChangesBoxes):
    def change(self, boxes: Boxes, threshold: float) -> Boxes:
        return replace(boxes, scores_N=100 * boxes.scores_N)


class BesideThePhoto(ChangesBoxes):
    def change(self, boxes: Boxes, threshold: float) -> Boxes:
        return replace(boxes, boxes_N4=boxes.boxes_N4 + 1000)


class NoRowsNoColumns(ChangesBoxes):
    def change(self, boxes: Boxes, threshold: float) -> Boxes:
        return boxes if len(boxes) else Boxes(torch.zeros(0), torch.zeros(0))


class OtherBoxesPerThreshold(ChangesBoxes):
    def change(self, boxes: Boxes, threshold: float) -> Boxes:
        return replace(boxes, boxes_N4=boxes.boxes_N4 + threshold)


class FindsNothing(ChangesBoxes):
    def change(self, boxes: Boxes, threshold: float) -> Boxes:
        return Boxes(boxes.boxes_N4[:0], boxes.scores_N[:0])


class NormsTheBatch(Sound):
    def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list[Boxes]:
        return super().detect(x_BCHW - 0.01 * x_BCHW.mean(), score_threshold)


class CutsDarkBorders(Sound):
    """Its feature shapes depend on what is in the photo."""

    def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cells, halved = super().features(x_BCHW)
        return cells, halved[..., : 1 + int(halved.mean() < 0)]


class BlindOnTheLeft(Sound):
    def raw(self, x_BCHW: torch.Tensor) -> RawOutput:
        half = x_BCHW.shape[-1] // 2
        return super().raw(torch.cat([x_BCHW[..., :half].detach(), x_BCHW[..., half:]], -1))


class BoxesWithoutGradient(Sound):
    def raw(self, x_BCHW: torch.Tensor) -> RawOutput:
        out = super().raw(x_BCHW)
        return replace(out, groups=tuple(replace(group, boxes_N4=group.boxes_N4.detach()) for group in out.groups))


class TwiceTheGradient(Sound):
    def raw(self, x_BCHW: torch.Tensor) -> RawOutput:
        return super().raw(2 * x_BCHW - x_BCHW.detach())


class Trainable(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.gain.requires_grad_(True)


class AlwaysTraining(Sound):
    def train(self, mode: bool = True) -> AlwaysTraining:
        super().train(True)
        return self


class LearnsWhileDetecting(Sound):
    def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list[Boxes]:
        with torch.no_grad():
            self.gain.add_(0.1)
        return super().detect(x_BCHW, score_threshold)


class DetectsWithAGradient(ChangesBoxes):
    def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list[Boxes]:
        (cells,) = self.raw(x_BCHW).groups
        return [Boxes(cells.boxes_N4, cells.scores_N) for _ in x_BCHW]


class Noisy(Sound):
    def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return super().features(x_BCHW + 1e-3 * torch.randn_like(x_BCHW))


class NoisyInSecret(Sound):
    """Draws from the global generator and puts it back."""

    def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.random.fork_rng(devices=[]):
            return super().features(x_BCHW + 1e-3 * torch.randn_like(x_BCHW))


CASES = [
    (LogOddsForScores, "test_the_raw_pass_is_what_it_says", "leaves [0, 1]"),
    (ALevelWithoutAName, "test_the_raw_pass_is_what_it_says", "feature_levels"),
    (ScalesThePhotosInPlace, "test_the_raw_pass_is_what_it_says", "the photos were changed"),
    (OtherFeaturesAlone, "test_features_alone_are_those_of_the_whole_pass", "cells"),
    (CornersSwapped, "test_finds_are_sound", "corners"),
    (WorstFirst, "test_finds_are_sound", "not best first"),
    (PercentForShares, "test_finds_are_sound", "out of range"),
    (BesideThePhoto, "test_finds_are_sound", "beside the photo"),
    (FindsNothing, "test_finds_are_sound", "nothing is found"),
    (NoRowsNoColumns, "test_a_photo_without_finds_has_an_empty_list", ""),
    (OtherBoxesPerThreshold, "test_a_higher_threshold_gives_a_part_of_the_finds", ""),
    (NormsTheBatch, "test_a_photo_does_not_depend_on_its_company", ""),
    (CutsDarkBorders, "test_any_size", "shapes"),
    (BlindOnTheLeft, "test_every_region_gets_a_gradient", "a region"),
    (BoxesWithoutGradient, "test_every_region_gets_a_gradient", "boxes: no gradient"),
    (TwiceTheGradient, "test_gradients_agree_with_finite_differences", "in truth"),
    (Trainable, "test_weights_are_frozen", "gain asks"),
    (AlwaysTraining, "test_weights_are_frozen", "in training mode"),
    (LearnsWhileDetecting, "test_weights_are_frozen", "gain changed"),
    (DetectsWithAGradient, "test_detection_has_no_gradient", ""),
    (Noisy, "test_no_draw_changes_what_is_found", "the global generator was used"),
    (NoisyInSecret, "test_no_draw_changes_what_is_found", ""),
]


def contract(kind: type[Any]) -> DetectorContract:
    class Contract(DetectorContract):
        def make(self) -> Detector:
            detector: Detector = kind().eval()
            return detector

        def photos(self) -> torch.Tensor:
            # Two halves side by side: a bright cell in each, one of them a little brighter.
            left, right = (dark_photos_with_a_bright_cell(4, seed=seed).images() for seed in (1, 2))
            return F.pad(torch.cat([left, right * 1.02], -1), (0, 0, 0, 32), value=-0.5)

    return Contract()


@pytest.mark.parametrize(("kind", "name", "words"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_it_is_caught(caught: Callable[..., str], kind: type[Detector], name: str, words: str) -> None:
    assert words in caught(contract(Sound), contract(kind), name)


def test_every_test_of_the_contract_can_fail() -> None:
    assert {name for _, name, _ in CASES} == {name for name in dir(DetectorContract) if name.startswith("test_")}
