"""Learning through channels: one code for every gradient defence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tsdf_ray.channels import Blur, BlurChannel, Channel, JpegChannel
from tsdf_ray.defenders import DefenceState, Knowledge, make_defender
from tsdf_ray.defenders.eot import draw_view, through
from tsdf_ray.errors import UserError
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.randomness import torch_rng
from tsdf_ray.testing.linear import BrightCells, LinearFamily, dark_photos_with_a_bright_cell

BLUR = {"kind": "blur", "sigma": 2.0}
INTERRUPTIONS: dict[str, dict[str, Any]] = {
    "pgd": {"steps": 3},
    "cmua": {"steps": 2},
    "anti_forgery": {"steps": 4, "lr": 0.01},
    "found": {},
}
POISONS: dict[str, dict[str, Any]] = {
    "face_poison": {"masks": 2, "spectra": 2, "steps": 4},
    "tsdf": {"share": {"fraction": 1.0}, "poison": {"steps": 4, "margin": 50.0}},
}


class RedLost(Channel):
    """No red arrives."""

    name = "red_lost"

    def apply(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW * torch.tensor([0.0, 1.0, 1.0])[:, None, None]


class Negative(Channel):
    """Turns photos into negatives, outside any graph."""

    name = "negative"

    def apply(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(-x_BCHW.detach().numpy())


def _knowledge(photos: FaceSet) -> Knowledge:
    return Knowledge(3, 1, {"g": LinearFamily().freeze()}, {"bright": BrightCells()}, photos)


def test_without_channels_the_photo_is_seen_as_it_is_and_nothing_is_drawn() -> None:
    rng, x = torch_rng(0, "eot"), torch.zeros(1, 3, 16, 16)
    before = rng.get_state()
    assert draw_view((), rng)(x) is x
    assert torch.equal(rng.get_state(), before)


def test_channels_are_drawn_evenly() -> None:
    x = torch.rand(1, 3, 16, 16, generator=torch_rng(0, "x")) * 2 - 1
    channels, rng = (BlurChannel(sigma=1.0), BlurChannel(sigma=2.0)), torch_rng(0, "eot")
    blurred = Blur(channels[0]).apply(x)
    first = sum(torch.equal(draw_view(channels, rng)(x), blurred) for _ in range(400))
    # Binomial(400, 1/2): 5 standard deviations are 50.
    assert 150 <= first <= 250


def test_a_channel_without_a_gradient_lets_it_straight_through() -> None:
    x = torch.full((1, 3, 4, 4), 0.25, requires_grad=True)
    arrived = through(Negative(), x)
    assert bool((arrived == -0.25).all())
    (gradient,) = torch.autograd.grad((3 * arrived).sum(), x)
    assert bool((gradient == 3).all())


def test_a_channel_with_a_gradient_keeps_its_own() -> None:
    x = torch.zeros(1, 3, 16, 16, requires_grad=True)
    weight = torch.rand(1, 3, 16, 16, generator=torch_rng(0, "weight"))
    (gradient,) = torch.autograd.grad((weight * through(Blur(BlurChannel(sigma=1.0)), x)).sum(), x)
    assert float((gradient - weight).abs().mean()) > 0.1  # straight through it would be the weight itself


def test_one_pgd_step_through_blur_by_hand() -> None:
    """Through a linear blur B of a grey photo the loss is |B w|^2, its slope 2 B'B w."""
    labels = np.array([[1, 0, 0, 0]], np.uint8)
    photos = FaceSet(np.full((1, 3, 32, 32), 128, np.uint8), labels, LinearFamily.attributes, ("grey",))
    pgd = make_defender("pgd", {"steps": 1, "eot": [BLUR]})
    w = pgd.apply(DefenceState(_knowledge(photos)), photos)
    start = (torch.rand(3, 32, 32, generator=torch_rng(3, 1, "defender", "start", "grey")) * 2 - 1)[None] * 0.05
    # The Gaussian of sigma 2 on 13 taps as a matrix with reflected edges, one side after the other.
    tap = torch.exp(-(torch.arange(-6, 7).double() ** 2) / 8)
    matrix = torch.zeros(32, 32, dtype=torch.float64)
    for row in range(32):
        for offset, value in zip(range(-6, 7), tap / tap.sum(), strict=True):
            place = abs(row + offset)
            matrix[row, place if place < 32 else 62 - place] += value
    both = matrix.T @ matrix
    slope = both @ start.double() @ both
    sure = slope.abs() > 1e-6
    moved = (start + 0.01 * slope.sign()).clamp(-0.05, 0.05).float()
    torch.testing.assert_close(w[sure], moved[sure], rtol=0, atol=1e-6)
    assert float(sure.float().mean()) > 0.99
    assert float((slope.sign() != start.sign()).float().mean()) > 0.2  # without the blur each entry keeps its sign


@pytest.mark.parametrize("kind", INTERRUPTIONS)
def test_every_interruption_learns_through_its_channels(kind: str) -> None:
    """Through a blur neighbours are pushed the same way: the perturbation is smoother than without."""
    photos = dark_photos_with_a_bright_cell(3)
    survives = []
    for eot in ([], [BLUR]):
        defender = make_defender(kind, INTERRUPTIONS[kind] | {"epsilon": 0.1, "eot": eot})
        knowledge = _knowledge(photos)
        w = defender.apply(defender.learn(knowledge), photos)
        kept = Blur(BlurChannel(sigma=2.0)).apply(w).square().mean() / w.square().mean()
        survives.append(float(kept))
    assert survives[1] > 1.05 * survives[0], survives


@pytest.mark.parametrize("kind", POISONS)
def test_every_poison_learns_through_its_channels(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not arrive has no gradient: red is left alone, green and blue go to the budget's edge."""
    monkeypatch.setattr("tsdf_ray.defenders.eot.make_channel", lambda config: RedLost())
    photos = dark_photos_with_a_bright_cell(3)
    for eot, red in (([], True), ([BLUR], False)):
        config = POISONS[kind] | {"detectors": ["bright"], "epsilon": 0.1, "eot": eot}
        defender = make_defender(kind, config)
        mean_C = defender.apply(defender.learn(_knowledge(photos)), photos).abs().mean(dim=(0, 2, 3))
        assert float(mean_C[1:].min()) > 0.05, mean_C
        assert bool(mean_C[0] > 0.05) == red, mean_C
        assert red or float(mean_C[0]) < 0.002, mean_C


@pytest.mark.parametrize("kind", ["none", "noise"])
def test_a_defence_without_gradients_takes_no_channels(kind: str) -> None:
    with pytest.raises(UserError, match=rf"{kind}\.eot"):
        make_defender(kind, {"eot": [BLUR]})


def test_jpeg_quality_is_one_of_the_channels() -> None:
    photos = dark_photos_with_a_bright_cell(2)
    jpeg = JpegChannel(quality=50).model_dump()
    one, two = (make_defender("found", {"eot": eot}).learn(_knowledge(photos)).tensors["w"] for eot in ([jpeg], []))
    assert not np.array_equal(one, two)
