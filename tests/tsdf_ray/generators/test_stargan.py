"""StarGAN: published names and shapes, its losses, its mid feature."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tsdf_ray.generators import StarGAN, StarGANConfig
from tsdf_ray.generators.stargan import InstanceNorm
from tsdf_ray.testing.tiny import tiny_faces


def small(**changes: object) -> StarGAN:
    sizes: dict[str, object] = {
        "attributes": tiny_faces(1).attributes,
        "width": 4,
        "blocks": 2,
        "image_size": 32,
        "discriminator_width": 4,
        "discriminator_layers": 3,
    }
    torch.manual_seed(0)
    return StarGAN(StarGANConfig.model_validate(sizes | changes))


@pytest.mark.assets
@pytest.mark.parametrize("part", ["generator", "discriminator"])
def test_names_and_shapes_are_the_published_ones(assets: Path, part: str) -> None:
    published = json.loads((assets / "state_dicts" / f"stargan_{part}.json").read_text())
    with torch.device("meta"):
        module = StarGAN().parts[part]
    assert {name: list(value.shape) for name, value in module.state_dict().items()} == published["tensors"]
    counted = sum(p.numel() for p in module.parameters())
    trained = sum(int(np.prod(s)) for n, s in published["tensors"].items() if "running" not in n and "num_b" not in n)
    assert counted == trained


def test_mid_feature_is_a_quarter_of_the_side_after_the_last_block() -> None:
    family = small()
    faces = tiny_faces(2)
    edited, mid = family.edit_and_features(faces.images(), faces.labels())
    assert edited.shape == (2, 3, 32, 32)
    assert edited.abs().max() <= 1
    assert mid.shape == (2, 16, 8, 8)
    assert torch.equal(mid, family.features(faces.images(), faces.labels()))
    # By hand: the published Sequential, block by block.
    planes = faces.labels()[:, :, None, None].expand(-1, -1, 32, 32)
    h = torch.cat([faces.images(), planes], 1)
    for layer in list(family.generator.main)[: 9 + 2]:
        h = layer(h)
    assert torch.equal(mid, h)


def test_instance_norm_is_the_published_one_in_training_mode_in_either_mode() -> None:
    own = InstanceNorm(3)
    published = torch.nn.InstanceNorm2d(3, affine=True, track_running_stats=True).train()
    with torch.no_grad():
        own.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        published.weight.copy_(own.weight)
    h = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    for mode in (True, False):
        torch.testing.assert_close(own.train(mode)(h), published(h))


@pytest.mark.parametrize(
    ("adversarial", "terms"),
    [
        ("wgan-gp", {"d_real", "d_fake", "d_penalty", "d_classification"}),
        ("hinge", {"d_real", "d_fake", "d_classification"}),
    ],
)
def test_terms_and_where_their_gradients_go(adversarial: str, terms: set[str]) -> None:
    family = small(adversarial=adversarial)
    faces = tiny_faces(4)
    x, own, target = faces.images(), faces.labels(), faces.labels().roll(1, 0)
    losses = family.discriminator_loss(x, own, target, torch.Generator().manual_seed(0))
    assert set(losses) == terms
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in family.generator.parameters())
    assert all(p.grad is not None for p in family.discriminator.parameters())
    family.discriminator.requires_grad_(False)
    losses = family.generator_loss(x, own, target, torch.Generator())
    assert set(losses) == {"g_adversarial", "g_classification", "g_cycle"}
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in family.generator.parameters())


def test_wgan_losses_of_a_linear_discriminator() -> None:
    """With a score that is linear in the pixels, the slope is known, and so is the penalty 10 (|slope| - 1)^2."""
    family = small()
    faces = tiny_faces(4)

    class Linear(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return 0.25 * x[:, :1, :4, :4], x.new_zeros(len(x), 4)

    family.discriminator = Linear()  # type: ignore[assignment]
    x, own = faces.images(), faces.labels()
    terms = family.discriminator_loss(x, own, own, torch.Generator().manual_seed(0), fake_BCHW=torch.zeros_like(x))
    assert float(terms["d_penalty"].detach()) == pytest.approx(
        10 * (0.25 * 4 - 1) ** 2, abs=1e-6
    )  # 16 pixels: |slope| = 1
    assert float(terms["d_real"]) == pytest.approx(-0.25 * float(x[:, 0, :4, :4].mean()), abs=1e-6)
    assert float(terms["d_fake"]) == pytest.approx(0.0, abs=1e-7)
    assert float(terms["d_classification"]) == pytest.approx(4 * np.log(2), rel=1e-5)  # summed over the labels


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValidationError, match="multiple"):
        StarGANConfig(image_size=96)
