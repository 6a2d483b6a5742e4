"""AttGAN: published names and shapes, the network written out in functions, labels inside and outside, its losses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from tsdf_ray.generators import AttGAN, AttGANConfig
from tsdf_ray.testing.tiny import tiny_faces


def small(**changes: object) -> AttGAN:
    sizes: dict[str, object] = {
        "attributes": tiny_faces(1).attributes,
        "width": 4,
        "widest": 16,
        "layers": 4,
        "image_size": 32,
        "discriminator_width": 4,
        "discriminator_layers": 3,
        "hidden": 8,
    }
    torch.manual_seed(0)
    return AttGAN(AttGANConfig.model_validate(sizes | changes))


@pytest.mark.assets
@pytest.mark.parametrize("part", ["generator", "discriminator"])
def test_names_and_shapes_are_the_published_ones(assets: Path, part: str) -> None:
    published = json.loads((assets / "state_dicts" / f"attgan_{part}.json").read_text())
    with torch.device("meta"):
        module = AttGAN().parts[part]
    assert {name: list(value.shape) for name, value in module.state_dict().items()} == published["tensors"]


def batch_norm(h: torch.Tensor, state: dict[str, torch.Tensor], name: str, training: bool) -> torch.Tensor:
    mean, var = h.mean((0, 2, 3)), h.var((0, 2, 3), correction=0)
    if not training:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    scale = state[f"{name}.weight"] / (var + 1e-5).sqrt()
    return (h - mean[:, None, None]) * scale[:, None, None] + state[f"{name}.bias"][:, None, None]


def published_forward(
    state: dict[str, torch.Tensor], x: torch.Tensor, c: torch.Tensor, shortcuts: int, injects: int, training: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The published network of four layers, written out in functions: edit and mid feature."""
    inner = torch.where(c > 0.5, 0.5, -0.5)[:, :, None, None]
    codes, h = [], x
    for i in range(4):
        h = F.conv2d(h, state[f"enc_layers.{i}.layers.0.weight"], stride=2, padding=1)
        h = F.leaky_relu(batch_norm(h, state, f"enc_layers.{i}.layers.1", training), 0.01)
        codes.append(h)
    h = torch.cat([h, inner.repeat(1, 1, *h.shape[2:])], 1)
    for i in range(3):
        h = F.conv_transpose2d(h, state[f"dec_layers.{i}.layers.0.weight"], stride=2, padding=1)
        h = batch_norm(h, state, f"dec_layers.{i}.layers.1", training).relu()
        if shortcuts > i:
            h = torch.cat([h, codes[4 - 2 - i]], 1)
        if injects > i:
            h = torch.cat([h, inner.repeat(1, 1, *h.shape[2:])], 1)
    weight, bias = state["dec_layers.3.layers.0.weight"], state["dec_layers.3.layers.0.bias"]
    return F.conv_transpose2d(h, weight, bias, stride=2, padding=1).tanh(), codes[-1]


@pytest.mark.parametrize(("shortcuts", "injects"), [(1, 0), (0, 0), (2, 3), (1, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_the_network_written_out_in_functions_gives_the_same(shortcuts: int, injects: int, training: bool) -> None:
    family = small(shortcut_layers=shortcuts, inject_layers=injects)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in family.generator.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=rng) * 0.3)
    faces = tiny_faces(3)
    x, c = faces.images(), faces.labels()
    state = {name: value.clone() for name, value in family.generator.state_dict().items()}
    family.generator.train(training)
    edited, mid = family.edit_and_features(x, c)
    expected, expected_mid = published_forward(state, x, c, shortcuts, injects, training)
    torch.testing.assert_close(edited, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mid, expected_mid, atol=1e-5, rtol=1e-5)


def test_the_discriminator_written_out_in_functions_gives_the_same() -> None:
    family = small()
    state = family.discriminator.state_dict()
    h = tiny_faces(3).images()
    with torch.no_grad():
        for i in range(3):
            state[f"conv.{i}.layers.1.weight"].add_(0.5)
            state[f"conv.{i}.layers.1.bias"].add_(0.25)
        verdict, logits = family.discriminator(h)
    for i in range(3):
        h = F.conv2d(h, state[f"conv.{i}.layers.0.weight"], stride=2, padding=1)
        h = (h - h.mean((2, 3), keepdim=True)) / (h.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
        h = F.leaky_relu(1.5 * h + 0.25, 0.01)
    for head, found in (("fc_adv", verdict), ("fc_cls", logits)):
        hidden = (h.flatten(1) @ state[f"{head}.0.layers.0.weight"].T + state[f"{head}.0.layers.0.bias"]).relu()
        expected = hidden @ state[f"{head}.1.layers.0.weight"].T + state[f"{head}.1.layers.0.bias"]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert verdict.shape == (3, 1)
    assert logits.shape == (3, 4)


def test_encoder_alone_gives_the_mid_feature_without_the_decoder() -> None:
    family = small()
    family.freeze()
    faces = tiny_faces(2)
    mid = family.edit_and_features(faces.images(), faces.labels())[1]
    assert mid.shape == (2, 16, 2, 2)
    with torch.no_grad():
        for value in family.generator.dec_layers.parameters():
            value.fill_(float("nan"))
    assert torch.equal(mid, family.features(faces.images(), 1 - faces.labels()))


def test_a_frozen_family_edits_each_photo_by_itself() -> None:
    family = small()
    faces = tiny_faces(4)
    x, c = faces.images(), faces.labels()
    family.generator.train()
    family.edit(x, c)  # fills the running statistics
    family.freeze()
    torch.testing.assert_close(family.edit(x, c)[1:2], family.edit(x[1:2], c[1:2]), atol=1e-6, rtol=0)


def test_losses_by_hand() -> None:
    """A critic that is linear in the pixels, slope 1 on 16 of them, and label logits of 0."""
    family = small()
    faces = tiny_faces(4)
    x, own, target = faces.images(), faces.labels(), faces.labels().roll(1, 0)

    class Linear(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return 0.5 * x[:, 0, :4, :4].sum((1, 2))[:, None], x.new_zeros(len(x), 4)

    family.discriminator = Linear()  # type: ignore[assignment]
    fake = torch.full_like(x, 0.25)
    terms = family.discriminator_loss(x, own, target, torch.Generator().manual_seed(0), fake)
    assert float(terms["d_real"]) == pytest.approx(-0.5 * float(x[:, 0, :4, :4].sum()) / 4, rel=1e-5)
    assert float(terms["d_fake"]) == pytest.approx(0.5 * 16 * 0.25, rel=1e-6)
    assert float(terms["d_penalty"].detach()) == pytest.approx(10 * (0.5 * 4 - 1) ** 2, rel=1e-5)
    assert float(terms["d_classification"]) == pytest.approx(math.log(2), rel=1e-5)  # mean over the labels
    family.freeze()
    terms = family.generator_loss(x, own, target, torch.Generator(), fake)
    assert float(terms["g_adversarial"]) == pytest.approx(-2.0, rel=1e-6)
    assert float(terms["g_classification"]) == pytest.approx(10 * math.log(2), rel=1e-5)
    distance = float((family.edit(x, own) - x).abs().mean())
    assert float(terms["g_reconstruction"]) == pytest.approx(100 * distance, rel=1e-5)


def test_where_the_gradients_go() -> None:
    family = small()
    faces = tiny_faces(4)
    x, own, target = faces.images(), faces.labels(), faces.labels().roll(1, 0)
    sum(family.discriminator_loss(x, own, target, torch.Generator()).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in family.generator.parameters())
    assert all(p.grad is not None for p in family.discriminator.parameters())
    family.discriminator.requires_grad_(False)
    sum(family.generator_loss(x, own, target, torch.Generator()).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in family.generator.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 96, "discriminator_layers": 6}, "multiple of 2"),
        ({"image_size": 32, "discriminator_layers": 5}, "at least twice"),
        ({"shortcut_layers": 4}, "shortcut_layers 4 must be less than layers 4"),
        ({"inject_layers": 4}, "inject_layers 4 must be less than layers 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small(**changes)
