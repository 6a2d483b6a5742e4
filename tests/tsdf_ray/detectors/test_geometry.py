from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdf_ray.detectors import geometry
from tsdf_ray.detectors.geometry import area, iou, match, nms

coordinates = st.integers(0, 40)


@st.composite
def boxes(draw: st.DrawFn, most: int = 12) -> torch.Tensor:
    rows = draw(st.lists(st.tuples(coordinates, coordinates, st.integers(1, 30), st.integers(1, 30)), max_size=most))
    return torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rows], dtype=torch.float32).reshape(-1, 4)


def greedy_one_by_one(
    boxes_N4: torch.Tensor, scores_N: torch.Tensor, photo_N: torch.Tensor, threshold: float
) -> list[int]:
    """The textbook loop, photo after photo."""
    kept: list[int] = []
    for photo in sorted(set(photo_N.tolist())):
        mine: list[int] = []
        candidates = [index for index in range(len(boxes_N4)) if photo_N[index] == photo]
        for index in sorted(candidates, key=lambda index: -float(scores_N[index])):
            if all(float(iou(boxes_N4[index : index + 1], boxes_N4[k : k + 1])) <= threshold for k in mine):
                mine.append(index)
        kept += mine
    return kept


def test_overlap_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 10, 10]])
    b = torch.tensor([[5.0, 0, 15, 10], [2, 2, 4, 4], [10, 10, 20, 20], [3, 3, 3, 9]])
    torch.testing.assert_close(iou(a, b), torch.tensor([[50 / 150, 4 / 100, 0.0, 0.0]]))
    torch.testing.assert_close(iou(a, b, "min"), torch.tensor([[0.5, 1.0, 0.0, 0.0]]))


@given(boxes(), boxes())
def test_overlap_is_a_symmetric_share(a: torch.Tensor, b: torch.Tensor) -> None:
    overlap = iou(a, b)
    assert ((overlap >= 0) & (overlap <= 1)).all()
    assert torch.equal(overlap, iou(b, a).T)
    torch.testing.assert_close(iou(a, a).diagonal(), torch.ones(len(a)))
    torch.testing.assert_close(overlap, iou(a * 2 + 3, b * 2 + 3))
    assert (iou(a, b, "min") >= overlap).all()


@settings(deadline=None)
@given(st.data(), boxes(most=20), st.sampled_from([0.0, 0.3, 0.5, 0.7]))
def test_suppression_equals_the_textbook_loop(data: st.DataObject, boxes_N4: torch.Tensor, threshold: float) -> None:
    count = len(boxes_N4)
    photo_N = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)), dtype=torch.int64)
    ranks = data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    scores_N = torch.tensor(ranks, dtype=torch.float32)
    kept = nms(boxes_N4, scores_N, photo_N, threshold)
    assert kept.tolist() == greedy_one_by_one(boxes_N4, scores_N, photo_N, threshold)


def test_suppression_in_blocks_equals_suppression_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    corners = torch.rand(300, 2, generator=rng) * 50
    boxes_N4 = torch.cat([corners, corners + 5 + 20 * torch.rand(300, 2, generator=rng)], dim=1)
    scores_N, photo_N = torch.rand(300, generator=rng), torch.randint(0, 7, (300,), generator=rng)
    at_once = nms(boxes_N4, scores_N, photo_N, 0.3)
    monkeypatch.setattr(geometry, "PAIRS_PER_BLOCK", 1)
    assert torch.equal(nms(boxes_N4, scores_N, photo_N, 0.3), at_once)
    assert 7 < len(at_once) < 300


def test_suppression_looks_at_the_best_boxes_only() -> None:
    boxes_N4 = torch.tensor([[0.0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10]])
    scores_N, photo_N = torch.tensor([0.1, 0.3, 0.2]), torch.zeros(3, dtype=torch.int64)
    assert nms(boxes_N4, scores_N, photo_N, 0.5, limit=2).tolist() == [1, 2]


@given(boxes(), boxes(), st.sampled_from([0.1, 0.5, 0.7]))
def test_matching_is_one_to_one_and_close(found: torch.Tensor, reference: torch.Tensor, threshold: float) -> None:
    pairs = match(found, reference, threshold)
    left, right = [i for i, _ in pairs], [j for _, j in pairs]
    assert len(set(left)) == len(left)
    assert len(set(right)) == len(right)
    overlap = iou(found, reference)
    assert all(overlap[pair] >= threshold for pair in pairs)
    free = [(i, j) for i in range(len(found)) for j in range(len(reference)) if i not in left and j not in right]
    assert all(overlap[pair] < threshold for pair in free)


def test_the_better_box_takes_the_reference() -> None:
    reference = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 13]])
    found = torch.tensor([[0.0, 0, 10, 12], [0, 0, 10, 12.5]])
    assert match(found, reference, 0.5) == [(0, 1), (1, 0)]
    assert match(found, reference, 0.9) == [(0, 1)]


def test_area_of_a_box_turned_inside_out_is_zero() -> None:
    assert area(torch.tensor([[0.0, 0, 2, 3], [2, 0, 0, 3]])).tolist() == [6.0, 0.0]


def test_a_match_at_exactly_the_threshold_counts() -> None:
    whole, half = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 5]])
    assert match(half, whole, 0.5) == [(0, 0)]
    assert match(half, whole, 0.5001) == []
