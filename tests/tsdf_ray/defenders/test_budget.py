"""Whatever a defence computes, what is published stays inside the budget: any raw tensor, any photo, any epsilon."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tsdf_ray.defenders import DefenceState, Defender, DefenderConfig, Knowledge, to_budget
from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.faceset import HAIR, FaceSet

SIDE = 4


class Anything(Defender):
    """Hands out whatever tensor it was given."""

    name: ClassVar[str] = "anything"
    config_class: ClassVar[type[DefenderConfig]] = DefenderConfig

    def __init__(self, epsilon: float, raw: torch.Tensor) -> None:
        super().__init__(DefenderConfig(epsilon=epsilon))
        self.raw = raw

    def learn(self, knowledge: Knowledge) -> DefenceState:
        return DefenceState(knowledge)

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        return self.raw


def _photos(pixels: np.ndarray) -> FaceSet:
    labels = np.zeros((len(pixels), len(HAIR)), np.uint8)
    return FaceSet(pixels, labels, HAIR, tuple(str(number) for number in range(len(pixels))))


def _state(photos: FaceSet) -> DefenceState:
    return DefenceState(Knowledge(0, 1, {}, {}, photos))


pixels_of_two = hnp.arrays(np.uint8, (2, 3, SIDE, SIDE))
raws = st.sampled_from([1, 2]).flatmap(
    lambda rows: hnp.arrays(np.float32, (rows, 3, SIDE, SIDE), elements=st.floats(-3, 3, width=32))
)


@given(pixels_of_two, raws, st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_published_photos_are_inside_the_budget(pixels: np.ndarray, raw: np.ndarray, epsilon: float) -> None:
    photos = _photos(pixels)
    defender = Anything(epsilon, torch.from_numpy(raw))
    published = defender.protect(_state(photos), photos)
    moved = np.abs(published.pixels_BCHW.astype(int) - pixels.astype(int))
    assert moved.max() * 2 / 255 <= epsilon * (1 + 2e-6)
    assert published.pixels_BCHW.dtype == np.uint8
    # Never further than asked for, and never the other way.
    asked = np.broadcast_to(raw, pixels.shape)
    signed = published.pixels_BCHW.astype(int) - pixels.astype(int)
    assert (signed * asked >= 0).all()
    assert (moved <= np.abs(asked) * 127.5 * (1 + 2e-6)).all()
    if epsilon == 0:
        np.testing.assert_array_equal(published.pixels_BCHW, pixels)


@given(hnp.arrays(np.float32, (1, 3, SIDE, SIDE), elements=st.floats(-3, 3, width=32)), st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_the_perturbation_is_whole_steps_and_stays_when_budgeted_again(raw: np.ndarray, epsilon: float) -> None:
    once = to_budget(torch.from_numpy(raw), epsilon)
    steps = once.double() * 127.5
    assert float((steps - steps.round()).abs().max()) < 1e-4
    torch.testing.assert_close(to_budget(once, epsilon), once, rtol=0, atol=0)


@pytest.mark.parametrize("steps", [1, 6, 10, 64, 127])
def test_a_whole_number_of_steps_is_kept(steps: int) -> None:
    """epsilon = k / 127.5 allows k steps, though k / 127.5 * 127.5 may come out a hair below k."""
    epsilon = steps / 127.5
    got = to_budget(torch.full((1, 3, SIDE, SIDE), -1.0), epsilon)
    assert (got * 127.5).round().unique().tolist() == [-steps]


def test_rounding_is_towards_zero() -> None:
    # In steps of 1/127.5: 1.9 becomes 1, -1.9 becomes -1, 0.9 vanishes; 7.3 is clipped to epsilon's 6.375, then 6.
    raw = torch.tensor([1.9, -1.9, 0.9, 7.3]) / 127.5
    assert (to_budget(raw, 0.05) * 127.5).round().tolist() == [1.0, -1.0, 0.0, 6.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    photos = _photos(np.zeros((2, 3, SIDE, SIDE), np.uint8))
    raw = torch.zeros(2, 3, SIDE, SIDE)
    raw[1, 2, 3, 0] = bad
    with pytest.raises(MatchFailed, match=r"anything.*not finite"):
        Anything(0.05, raw).perturb(_state(photos), photos)


@pytest.mark.parametrize("shape", [(3, SIDE, SIDE), (3, 3, SIDE, SIDE), (2, 1, SIDE, SIDE), (2, 3, SIDE, SIDE + 1)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    photos = _photos(np.zeros((2, 3, SIDE, SIDE), np.uint8))
    with pytest.raises(MatchFailed, match="shape"):
        Anything(0.05, torch.zeros(shape)).perturb(_state(photos), photos)
