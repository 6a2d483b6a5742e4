"""Stage 1 against a case of two linear generators computed by hand.

Photos of 32 px, so that nothing is resized; a grey photo, so that nothing is clamped; no input diversity. w is constant
per colour channel: (0.2, -0.1, 0.05). Generator A doubles red (output gain 2, feature gain 0); B keeps green (output
gain 1) and has twice green as its feature. Means run over 3 x 32 x 32 = 3072 entries, of which 1024 per channel.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tsdf_ray.defenders.base import Knowledge
from tsdf_ray.defenders.descent import sign_step, with_momentum
from tsdf_ray.defenders.interruption import Interruption, InterruptionConfig, Visit
from tsdf_ray.defenders.learning import Course, model_weights
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.randomness import torch_rng
from tsdf_ray.testing.linear import LinearFamily

W = (0.2, -0.1, 0.05)
RNG = torch_rng(0, "golden")


def _per_channel(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 3, 1, 1).expand(1, 3, 32, 32).clone()


def _case(config: InterruptionConfig, families: dict[str, LinearFamily]) -> tuple[Interruption, Visit]:
    attributes = LinearFamily.attributes
    grey = FaceSet(
        np.full((2, 3, 32, 32), 128, np.uint8), np.array([[1, 0, 0, 0], [0, 1, 0, 1]], np.uint8), attributes, ("a", "b")
    )
    frozen = {name: family.freeze() for name, family in families.items()}
    work = Interruption(config, Knowledge(0, 1, frozen, {}, grey), grey)
    return work, work.visit([0, 1], lambda own_BA, names: torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]]))


def _ab() -> dict[str, LinearFamily]:
    return {"A": LinearFamily((2.0, 0.0, 0.0), (0.0, 0.0, 0.0)), "B": LinearFamily((0.0, 1.0, 0.0), (0.0, 2.0, 0.0))}


def test_two_end_to_end_steps_by_hand() -> None:
    config = InterruptionConfig(epsilon=0.5, step_size=0.1, diversity=False, temperature=0.01)
    work, visit = _case(config, _ab())
    course = Course(0.0, torch.zeros(2, 1))

    # L_A = -0.7 * (2 * 0.2)^2 / 3 = -0.7 * 0.16 / 3 = -0.0373333
    # L_B = -(0.7 * 0.1^2 + 0.3 * (2 * 0.1)^2) / 3 = -(0.007 + 0.012) / 3 = -0.0063333
    # Weights 1/2 each. Gradients times 3072: red 1/2 * -1.4 * 4 * 0.2 = -0.56;
    # green 1/2 * (1.4 * 0.1 + 0.6 * 4 * 0.1) = 0.19; blue 0. Their mean magnitude is 0.75 / 3 = 0.25.
    w = course.output_step(work, _per_channel(W), visit, RNG)
    torch.testing.assert_close(course.gradient, _per_channel((-2.24, 0.76, 0.0)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(course.running_MR.flatten(), torch.tensor([-0.00373333, -0.00063333]))
    # Against the gradient's sign: red up, green down, blue stays.
    torch.testing.assert_close(w, _per_channel((0.3, -0.2, 0.05)))

    # Weights: softmax(-0.373333, -0.063333), ratio exp(0.31) = 1.3634251: a_A = 1 / 2.3634251 = 0.4231147.
    # Gradients times 3072: red 0.4231147 * -1.4 * 4 * 0.3 = -0.7108327;
    # green 0.5768853 * (1.4 + 2.4) * 0.2 = 0.4384328;
    # mean magnitude 1.1492655 / 3 = 0.3830885: -1.8555313 and 1.1444687. Plus 0.8 times (-2.24, 0.76).
    w = course.output_step(work, w, visit, RNG)
    torch.testing.assert_close(course.gradient, _per_channel((-3.6475313, 1.7524687, 0.0)), rtol=1e-4, atol=1e-5)
    # L_A = -0.7 * 0.6^2 / 3 = -0.084; L_B = -(0.7 * 0.04 + 0.3 * 0.16) / 3 = -0.0253333
    # EMA: 0.9 * -0.00373333 - 0.0084 = -0.01176; 0.9 * -0.00063333 - 0.00253333 = -0.00310333
    torch.testing.assert_close(course.running_MR.flatten(), torch.tensor([-0.01176, -0.00310333]))
    torch.testing.assert_close(w, _per_channel((0.4, -0.3, 0.05)))


def test_feature_gradients_by_hand() -> None:
    """A's feature is red, B's is minus green. Per model both grow; summed, only their difference counts."""
    families = {"A": LinearFamily(features=(1.0, 0.0, 0.0)), "B": LinearFamily(features=(0.0, -1.0, 0.0))}
    w = _per_channel((0.2, 0.1, 0.05))

    # Per model, summed over 2 photos: L = -2 * (red^2 + green^2) / 3; gradients -4 * 0.2 / 3072 and -4 * 0.1 / 3072.
    work, visit = _case(InterruptionConfig(diversity=False), families)
    got = work.feature_gradient(w, visit, RNG)
    torch.testing.assert_close(got * 3072, _per_channel((-0.8, -0.4, 0.0)), rtol=1e-4, atol=1e-6)

    # Summed, S = red - green = 0.1 on one map of 1024: L = -2 * mean S^2, gradient -4 * 0.1 / 1024 and its opposite.
    work, visit = _case(InterruptionConfig(diversity=False, feature_loss="summed"), families)
    got = work.feature_gradient(w, visit, RNG)
    torch.testing.assert_close(got * 1024, _per_channel((-0.4, 0.4, 0.0)), rtol=1e-4, atol=1e-6)


def test_sign_step_by_hand() -> None:
    # Down where the gradient is positive, up where negative, kept where zero, and clipped to +-0.05.
    w = sign_step(torch.tensor([0.02, 0.02, 0.02, 0.045]), torch.tensor([3.0, -0.1, 0.0, -7.0]), 0.01, 0.05)
    torch.testing.assert_close(w, torch.tensor([0.01, 0.03, 0.02, 0.05]))


def test_momentum_by_hand() -> None:
    # Two rows, each divided by its own mean magnitude (2 and 0.5), plus 0.8 * 1.
    gradient = torch.tensor([[1.0, -3.0], [0.5, 0.5]]).reshape(2, 1, 1, 2)
    got = with_momentum(gradient, torch.ones(2, 1, 1, 2), 0.8).flatten()
    torch.testing.assert_close(got, torch.tensor([0.5 + 0.8, -1.5 + 0.8, 1.0 + 0.8, 1.0 + 0.8]))


def test_the_least_disrupted_model_weighs_most() -> None:
    # Losses -0.02 and -0.01 over 0.1: the second, disrupted less, has exp(0.1) times the first's weight.
    first, second = model_weights(torch.tensor([[-0.02], [-0.01]]), 0.1).flatten().tolist()
    assert second / first == pytest.approx(math.exp(0.1), rel=1e-5)
    assert first + second == pytest.approx(1.0)
    assert model_weights(torch.zeros(4, 1), 0.1).flatten().tolist() == [0.25] * 4
