"""Eq. 12 and 13 on a few anchors, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tsdf_ray.defenders.objectives import (
    CleanView,
    ObjectiveConfig,
    feature_loss,
    feature_targets,
    hiding_loss,
    of_a_face,
    output_loss,
    overlap_with_faces,
    pad_boxes,
)
from tsdf_ray.detectors.base import Anchors, Boxes, RawOutput

SIDE = 100
FACE = [10.0, 10.0, 30.0, 30.0]
FAR = [60.0, 60.0, 80.0, 80.0]


def _anchors(photo: list[int], scores: list[float], boxes: list[list[float]]) -> Anchors:
    scores_N = torch.tensor(scores)
    return Anchors("a", torch.tensor(photo), scores_N, scores_N.logit(), torch.tensor(boxes).reshape(-1, 4))


def _view(anchors: Anchors, faces: list[list[list[float]]]) -> CleanView:
    found = [Boxes(torch.tensor(boxes).reshape(-1, 4), torch.ones(len(boxes))) for boxes in faces]
    return CleanView((), (anchors,), pad_boxes(found))


# Photo 0: a face, its anchor and a far one; photo 1: no face, one far anchor.
CLEAN = _anchors([0, 0, 1], [0.9, 0.1, 0.2], [FACE, FAR, FAR])
VIEW = _view(CLEAN, [[FACE], []])
NOW = RawOutput((), (_anchors([0, 0, 1], [0.8, 0.4, 0.3], [FACE, FAR, FAR]),))


def test_overlap_with_the_faces_of_the_own_photo() -> None:
    half = [20.0, 10.0, 40.0, 30.0]  # shares 200 of 600
    boxes = torch.tensor([FACE, half, FAR, FACE])
    got = overlap_with_faces(boxes, torch.tensor([0, 0, 0, 1]), VIEW.faces_BK4)
    torch.testing.assert_close(got, torch.tensor([1.0, 1 / 3, 0.0, 0.0]))


def test_suppress_squared() -> None:
    # Photo 0: 0.8^2 = 0.64. Box in shares of the image (.1, .1, .3, .3), centre .2, point (.199, .199, .201, .201):
    # every side is 0.099 away. Photo 1 has no face: 0.
    got = output_loss(NOW, VIEW, SIDE, ObjectiveConfig(score_form="squared"))
    torch.testing.assert_close(got, torch.tensor([0.739, 0.0]))


def test_fabricate_squared_and_log_odds() -> None:
    # The other anchors: 0.4 in photo 0, 0.3 in photo 1.
    got = output_loss(NOW, VIEW, SIDE, ObjectiveConfig(objective="fabricate", score_form="squared"))
    torch.testing.assert_close(got, torch.tensor([0.36, 0.49]))
    got = output_loss(NOW, VIEW, SIDE, ObjectiveConfig(objective="fabricate", margin=2.0))
    torch.testing.assert_close(got, torch.tensor([2 - math.log(0.4 / 0.6), 2 - math.log(0.3 / 0.7)]))


def test_hiding_by_log_odds() -> None:
    # Photo 0: log-odds 2 and 0, their softmax weighs them e^2/(1+e^2) = 0.880797: mean 1.761594, plus margin 3.
    # Photo 1: the only anchor is at -3.5, below -3: 0.
    scores = torch.tensor([2.0, 0.0, -3.5]).sigmoid().tolist()
    raw = RawOutput((), (_anchors([0, 0, 1], scores, [FACE, FAR, FAR]),))
    got = hiding_loss(raw, 2, ObjectiveConfig(margin=3.0))
    torch.testing.assert_close(got, torch.tensor([4.761594, 0.0]))
    # Only the strongest one: 2 + 3.
    got = hiding_loss(raw, 2, ObjectiveConfig(margin=3.0, strongest=1))
    torch.testing.assert_close(got, torch.tensor([5.0, 0.0]))


def test_a_cascade_without_crops_is_hidden() -> None:
    nothing = Anchors("onet", torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(0), torch.zeros(0, 4))
    assert hiding_loss(RawOutput((), (nothing,)), 2, ObjectiveConfig()).tolist() == [0.0, 0.0]
    view = CleanView((), (nothing,), VIEW.faces_BK4)
    for objective in ("suppress", "fabricate"):
        config = ObjectiveConfig(objective=objective, score_form="squared")
        assert output_loss(RawOutput((), (nothing,)), view, SIDE, config).tolist() == [0.0, 0.0]


def test_crops_that_changed_are_judged_where_they_are_now() -> None:
    now = _anchors([0, 1], [0.2, 0.2], [FACE, FACE])
    assert of_a_face(now, CLEAN, VIEW.faces_BK4).tolist() == [True, False]
    assert of_a_face(CLEAN, CLEAN, VIEW.faces_BK4).tolist() == [True, False, False]


def test_a_view_of_some_photos() -> None:
    rest = VIEW.take(torch.tensor([False, True]))
    (group,) = rest.groups
    assert group.photo_N.tolist() == [0]
    assert group.scores_N.tolist() == pytest.approx([0.2])
    assert rest.faces_BK4.shape == (1, 1, 4)


def test_feature_loss() -> None:
    # Level 1x2x2 of ones, mask 4x4 with a free left half: area-resized to columns 1, 0. Target -1 + 0.2 * n * M.
    clean = CleanView((torch.ones(1, 1, 2, 2),), (), torch.zeros(1, 1, 4))
    mask = torch.zeros(1, 3, 4, 4)
    mask[..., :2] = 1.0
    (target,) = feature_targets(clean, mask, (torch.full((1, 1, 2, 2), 2.0),), 0.2)
    torch.testing.assert_close(target, torch.tensor([[[[-0.6, -1.0], [-0.6, -1.0]]]]))
    # Clean features are 1.6 and 2 away: 5 * (1.6^2 + 2^2) / 2 = 16.4.
    torch.testing.assert_close(feature_loss(clean.features, (target,), (5.0,)), torch.tensor([16.4]))
