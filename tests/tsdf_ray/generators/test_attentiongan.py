"""AttentionGAN v1: published names and shapes, its blend by a mask, its mid feature, where its gradients go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tsdf_ray.generators import AttentionGAN, AttentionGANConfig
from tsdf_ray.testing.tiny import tiny_faces


def small() -> AttentionGAN:
    torch.manual_seed(0)
    return AttentionGAN(
        AttentionGANConfig(
            attributes=tiny_faces(1).attributes,
            width=4,
            blocks=2,
            image_size=32,
            discriminator_width=4,
            discriminator_layers=3,
        )
    )


@pytest.mark.assets
@pytest.mark.parametrize("part", ["generator", "discriminator"])
def test_names_and_shapes_are_the_published_ones(assets: Path, part: str) -> None:
    published = json.loads((assets / "state_dicts" / f"attention_gan_{part}.json").read_text())
    with torch.device("meta"):
        module = AttentionGAN().parts[part]
    assert {name: list(value.shape) for name, value in module.state_dict().items()} == published["tensors"]


def published_forward(
    state: dict[str, torch.Tensor], x: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The published network of two residual blocks, written out in functions: edit and mid feature."""

    def norm(h: torch.Tensor, name: str) -> torch.Tensor:
        mean, var = h.mean((2, 3), keepdim=True), h.var((2, 3), keepdim=True, correction=0)
        weight, bias = state[f"{name}.weight"][:, None, None], state[f"{name}.bias"][:, None, None]
        return (h - mean) / (var + 1e-5).sqrt() * weight + bias

    def weight(name: str) -> torch.Tensor:
        return state[f"main.{name}.weight"]

    planes = c[:, :, None, None].repeat(1, 1, *x.shape[2:])
    h = F.conv2d(torch.cat([x, planes], 1), weight("0"), padding=3)
    h = norm(h, "main.1").relu()
    for i in (3, 6):
        h = norm(F.conv2d(h, weight(str(i)), stride=2, padding=1), f"main.{i + 1}").relu()
    for i in (9, 10):
        inner = norm(F.conv2d(h, weight(f"{i}.main.0"), padding=1), f"main.{i}.main.1").relu()
        h = h + norm(F.conv2d(inner, weight(f"{i}.main.3"), padding=1), f"main.{i}.main.4")
    mid = h
    for i in (11, 14):
        h = norm(F.conv_transpose2d(h, weight(str(i)), stride=2, padding=1), f"main.{i + 1}").relu()
    h = F.conv2d(h, weight("17"), padding=3)
    mask = 1 / (1 + (-h[:, :1]).exp())
    return mask * h[:, 1:] + (1 - mask) * x, mid


@pytest.mark.parametrize("training", [True, False])
def test_the_network_written_out_in_functions_gives_the_same(training: bool) -> None:
    family = small()
    family.generator.train(training)
    with torch.no_grad():
        for name, value in family.generator.named_parameters():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))) * 0.2)
    faces = tiny_faces(3)
    x, c = faces.images(), faces.labels()
    edited, mid = family.edit_and_features(x, c)
    expected, expected_mid = published_forward(family.generator.state_dict(), x, c)
    torch.testing.assert_close(edited, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mid, expected_mid, atol=1e-5, rtol=1e-5)


def test_encoder_alone_gives_the_mid_feature_without_the_decoder() -> None:
    family = small()
    faces = tiny_faces(2)
    mid = family.edit_and_features(faces.images(), faces.labels())[1]
    assert mid.shape == (2, 16, 8, 8)
    with torch.no_grad():
        for layer in list(family.generator.main)[family.generator.encoder_depth :]:
            for value in layer.parameters():
                value.fill_(float("nan"))
    assert torch.equal(mid, family.features(faces.images(), faces.labels()))


def test_a_closed_mask_leaves_the_photo_as_it_is() -> None:
    family = small()
    faces = tiny_faces(2)
    with torch.no_grad():
        head = family.generator.main[-1].weight
        head.zero_()
        assert torch.allclose(family.edit(faces.images(), faces.labels()), faces.images() / 2)
        # The features under the last layer are positive somewhere around every pixel: the mask goes to 0.
        head[0] = -1e4
    edited = family.edit(faces.images(), faces.labels())
    torch.testing.assert_close(edited, faces.images(), atol=1e-6, rtol=0)


def test_terms_and_where_their_gradients_go() -> None:
    family = small()
    faces = tiny_faces(4)
    x, own, target = faces.images(), faces.labels(), faces.labels().roll(1, 0)
    losses = family.discriminator_loss(x, own, target, torch.Generator().manual_seed(0))
    assert set(losses) == {"d_real", "d_fake", "d_penalty", "d_classification"}
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in family.generator.parameters())
    assert all(p.grad is not None for p in family.discriminator.parameters())
    family.discriminator.requires_grad_(False)
    losses = family.generator_loss(x, own, target, torch.Generator())
    assert set(losses) == {"g_adversarial", "g_classification", "g_cycle"}
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in family.generator.parameters())
