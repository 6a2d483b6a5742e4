"""HiSD: published names and shapes, the networks written out in functions, tags and styles, the loss by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from tsdf_ray.errors import UserError
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators import HiSD, HiSDConfig, TrainConfig, Trainer, load_family, save_family
from tsdf_ray.generators.hisd_loss import by_tag
from tsdf_ray.randomness import torch_rng
from tsdf_ray.testing.tiny import tiny_faces

State = dict[str, torch.Tensor]
LABELS = ("Bangs", "Eyeglasses", "Black_Hair", "Blond_Hair", "Brown_Hair")
WITH, WITHOUT = 0, 1


def small(**changes: object) -> HiSD:
    sizes: dict[str, object] = {
        "widths": (4, 6),
        "translator_widths": (4, 6, 5),
        "extractor_widths": (4, 5, 6),
        "mapper_widths": (4, 5),
        "choice_widths": (5, 6),
        "style": 7,
        "noise": 3,
        "discriminator_widths": (4, 5, 6),
        "image_size": 32,
    }
    torch.manual_seed(0)
    family = HiSD(HiSDConfig.model_validate(sizes | changes))
    with torch.no_grad():
        for value in family.generator.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return family


def photos(count: int) -> torch.Tensor:
    return tiny_faces(count).images()


def labels(*rows: str) -> torch.Tensor:
    """Label vectors from strings of 0 and 1."""
    return torch.tensor([[float(digit) for digit in row] for row in rows])


@pytest.mark.assets
def test_names_and_shapes_are_the_published_ones(assets: Path) -> None:
    published = json.loads((assets / "state_dicts" / "hisd_generator.json").read_text())
    with torch.device("meta"):
        module = HiSD().parts["generator"]
    assert {name: list(value.shape) for name, value in module.state_dict().items()} == published["tensors"]


def conv(h: torch.Tensor, state: State, name: str) -> torch.Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(h, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def norm(h: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    flat = h.reshape(*h.shape[:2], -1)
    centred = flat - flat.sum(-1, keepdim=True) / flat.shape[-1]
    deviation = (centred.square().sum(-1, keepdim=True) / (flat.shape[-1] - 1)).sqrt()
    return (centred / (deviation + 1e-5) * weight + bias).reshape(h.shape)


def active(h: torch.Tensor) -> torch.Tensor:
    return torch.where(h > 0, h, 0.2 * h)


def block(h: torch.Tensor, state: State, name: str, way: str, styles: list[torch.Tensor] | None = None) -> torch.Tensor:
    """A published residual block: `way` down, up or same; norms from the state, from `styles`, or none."""

    def normed(h: torch.Tensor, k: int) -> torch.Tensor:
        if styles is not None:
            bias, scale = styles[2 * k - 2], styles[2 * k - 1]
            return norm(h, 1 + scale[:, :, None], bias[:, :, None])
        if f"{name}.in{k}.weight" in state:
            return norm(h, state[f"{name}.in{k}.weight"], state[f"{name}.in{k}.bias"])
        return h

    def down(h: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(h, 2) if way == "down" else h

    def up(h: torch.Tensor) -> torch.Tensor:
        return h.repeat_interleave(2, 2).repeat_interleave(2, 3) if way == "up" else h

    inner = down(conv(up(active(normed(h, 1))), state, f"{name}.conv1"))
    inner = conv(active(normed(inner, 2)), state, f"{name}.conv2")
    return (down(up(conv(h, state, f"{name}.sc"))) + inner) / math.sqrt(2)


def encode(state: State, x: torch.Tensor) -> torch.Tensor:
    return block(conv(x, state, "encoder.0"), state, "encoder.1", "down")


def decode(state: State, e: torch.Tensor) -> torch.Tensor:
    return conv(block(e, state, "decoder.0", "up"), state, "decoder.1")


def extract(state: State, x: torch.Tensor, tags: int = 3) -> torch.Tensor:
    h = conv(x, state, "extractors.model.0")
    for i in (1, 2):
        h = block(h, state, f"extractors.model.{i}", "down")
    h = conv(h.mean((2, 3), keepdim=True), state, "extractors.model.4")
    return h.reshape(len(x), tags, -1)


def mapped(state: State, z: torch.Tensor, tag: int, choice: int) -> torch.Tensor:
    def linear(h: torch.Tensor, name: str) -> torch.Tensor:
        return h @ state[f"mappers.{tag}.{name}.weight"].T + state[f"mappers.{tag}.{name}.bias"]

    h = linear(linear(z, "pre_model.0").relu(), "pre_model.1.linear")
    return linear(linear(h.relu(), f"post_models.{choice}.0.linear"), f"post_models.{choice}.1")


def translate(state: State, e: torch.Tensor, style: torch.Tensor, tag: int) -> torch.Tensor:
    name = f"translators.{tag}"
    left = style @ state[f"{name}.style_to_params.weight"].T + state[f"{name}.style_to_params.bias"]
    h = conv(e, state, f"{name}.model.0")
    for i, sizes in ((1, (4, 4, 6, 6)), (2, (6, 6, 5, 5))):
        styles = []
        for size in sizes:
            styles.append(left[:, :size])
            left = left[:, size:]
        h = block(h, state, f"{name}.model.{i}", "same", styles)
    mask = 1 / (1 + (-conv(h, state, f"{name}.masks.0")).exp())
    return conv(h, state, f"{name}.features.0") * mask + e * (1 - mask)


def test_an_edit_is_the_published_chain_of_translators() -> None:
    family = small()
    state, x = family.generator.state_dict(), photos(2)
    assert family.attributes == LABELS
    edited, mid = family.edit_and_features(x, labels("01100", "10001"))

    def latent(choice: str) -> torch.Tensor:
        return torch.randn(1, 3, generator=torch_rng(0, "hisd", choice))

    for b, chosen in enumerate(
        [
            [("no_Bangs", WITHOUT), ("Eyeglasses", WITH), ("Black_Hair", 0)],
            [("Bangs", WITH), ("no_Eyeglasses", WITHOUT), ("Brown_Hair", 2)],
        ]
    ):
        e = encode(state, x[b : b + 1])
        torch.testing.assert_close(mid[b : b + 1], e, atol=1e-5, rtol=1e-5)
        for tag, (name, choice) in enumerate(chosen):
            e = translate(state, e, mapped(state, latent(name), tag, choice), tag)
        torch.testing.assert_close(edited[b : b + 1], decode(state, e), atol=1e-4, rtol=1e-4)


def test_glasses_alone_from_a_reference() -> None:
    """METHOD's protocol: one translator, its style extracted from one photo."""
    reference = photos(3)[2]
    family = small(edited=["Eyeglasses"]).with_reference("Eyeglasses", reference)
    assert family.attributes == ("Eyeglasses",)
    state, x = family.generator.state_dict(), photos(2)
    style = extract(state, reference[None])[:, 1]
    expected = decode(state, translate(state, encode(state, x), style.expand(2, -1), 1))
    torch.testing.assert_close(family.edit(x, labels("1", "1")), expected, atol=1e-4, rtol=1e-4)
    plain = small(edited=["Eyeglasses"])
    assert torch.equal(family.edit(x, labels("0", "0")), plain.edit(x, labels("0", "0")))
    assert not torch.equal(family.edit(x, labels("1", "1")), plain.edit(x, labels("1", "1")))


def test_references_are_saved_with_the_weights(tmp_path: Path) -> None:
    family = small().with_reference("Eyeglasses", photos(1)[0]).with_reference("no_Bangs", photos(2)[1])
    save_family(tmp_path / "hisd.safetensors", family)
    loaded = load_family(tmp_path / "hisd.safetensors")
    assert isinstance(loaded, HiSD)
    assert loaded.config.references == ("Eyeglasses", "no_Bangs")
    assert loaded.references.get_buffer("no_Bangs").equal(torch.from_numpy(tiny_faces(2).pixels_BCHW[1]))
    assert torch.equal(
        loaded.edit(photos(2), labels("01100", "10001")), family.edit(photos(2), labels("01100", "10001"))
    )


def test_bad_references_are_refused() -> None:
    with pytest.raises(UserError, match=r"shape \(3, 16, 16\), expected \(3, 32, 32\)"):
        small().with_reference("Eyeglasses", torch.zeros(3, 16, 16))
    with pytest.raises(UserError, match="no choice 'Glasses'; choices: Bangs, no_Bangs, Eyeglasses"):
        small().with_reference("Glasses", torch.zeros(3, 32, 32))


def test_without_a_hair_colour_the_hair_stays() -> None:
    family = small(edited=["HairColor"])
    x = photos(2)
    edited = family.edit(x, labels("000", "010"))
    code = family.generator.encode(x)
    torch.testing.assert_close(edited[:1], family.generator.decode(code[:1]), atol=1e-4, rtol=0)
    assert (edited[1] - family.generator.decode(code)[1]).abs().max() > 1e-3


def test_styles_differ_by_choice_and_by_seed_and_are_fixed() -> None:
    family, other = small(), small(style_seed=1)
    x = photos(1)
    edits = [family.edit(x, labels(row)) for row in ("00100", "10100", "01100", "00010")]
    assert all((edits[i] - edits[j]).abs().max() > 1e-4 for i in range(4) for j in range(i))
    assert torch.equal(edits[0], family.edit(x, labels("00100")))
    assert (edits[0] - other.edit(x, labels("00100"))).abs().max() > 1e-4


def test_features_run_the_encoder_alone() -> None:
    family = small()
    mid = family.edit_and_features(photos(2), labels("01100", "10001"))[1]
    assert mid.shape == (2, 6, 16, 16)
    with torch.no_grad():
        for name, value in family.generator.named_parameters():
            if not name.startswith("encoder."):
                value.fill_(float("nan"))
    assert torch.equal(mid, family.features(photos(2), labels("00100", "00100")))


def test_losses_written_out_in_functions_give_the_same() -> None:
    """Three photos, one changed tag each: glasses put on, hair from blond to brown, bangs taken off."""
    family = small(adversarial_weight=2.0, style_weight=3.0, reconstruction_weight=5.0, penalty_weight=7.0)
    own, target = labels("00100", "00010", "11100"), labels("01100", "00001", "01100")
    tags, owns, targets = (1, 2, 0), (WITHOUT, 1, WITH), (WITH, 2, WITHOUT)
    others = ("0100", "00", "1100")
    conditions = [own[0, [0, 2, 3, 4]], own[1, [0, 1]], own[2, [1, 2, 3, 4]]]
    assert [c.tolist() for c in conditions[1:]] == [[float(d) for d in row] for row in others[1:]]
    state, critic, x = family.generator.state_dict(), family.discriminator.state_dict(), photos(3)
    z = torch.randn(3, 3, generator=torch.Generator().manual_seed(5))

    def judge(photo: torch.Tensor, style: torch.Tensor, b: int, choice: int) -> torch.Tensor:
        h = conv(photo, critic, "conv.0")
        for i in (1, 2):
            h = block(h, critic, f"conv.{i}", "down")
        h = torch.cat([h.mean((2, 3))[0], style[0], conditions[b]])
        scores = critic[f"fcs.{tags[b]}.0.weight"][:, :, 0, 0] @ h + critic[f"fcs.{tags[b]}.0.bias"]
        count = 3 if tags[b] == 2 else 2
        return scores[[choice, count + choice]]

    g: dict[str, list[float]] = {"g_adversarial": [], "g_style": [], "g_reconstruction": []}
    d: dict[str, list[float]] = {"d_real": [], "d_fake": [], "d_cycle": [], "d_penalty": []}
    for b, tag in enumerate(tags):
        photo = x[b : b + 1].clone().requires_grad_(True)
        e, s = encode(state, photo), extract(state, photo)[:, tag]
        s_target = mapped(state, z[b : b + 1], tag, targets[b])
        made = decode(state, translate(state, e, s_target, tag))
        cycle = decode(state, translate(state, encode(state, made), s, tag))
        itself = decode(state, translate(state, e, s, tag))
        real = judge(photo, s.detach(), b, owns[b])
        faked, cycled = judge(made, s_target, b, targets[b]), judge(cycle, s, b, owns[b])
        slopes = [torch.autograd.grad(real[k], photo, retain_graph=True)[0].square().sum() for k in (0, 1)]
        g["g_adversarial"].append((2 * (real.sum() - faked[0] - cycled[1])).item())
        g["g_style"].append((3 * (extract(state, made)[:, tag] - s_target).abs().mean()).item())
        errors = [(p - photo).abs().mean() for p in (decode(state, e), itself, cycle)]
        g["g_reconstruction"].append((5 * torch.stack(errors).sum()).item())
        d["d_real"].append((1 - real).clamp(min=0).sum().item())
        d["d_fake"].append((1 + faked[0]).clamp(min=0).item())
        d["d_cycle"].append((1 + cycled[1]).clamp(min=0).item())
        d["d_penalty"].append((7 * torch.stack(slopes).sum()).item())
    found = family.discriminator_loss(x, own, target, torch.Generator().manual_seed(5))
    assert {k: v.item() for k, v in found.items()} == pytest.approx({k: np.mean(v) for k, v in d.items()}, rel=1e-4)
    found = family.generator_loss(x, own, target, torch.Generator().manual_seed(5))
    assert {k: v.item() for k, v in found.items()} == pytest.approx({k: np.mean(v) for k, v in g.items()}, rel=1e-4)


def test_where_the_gradients_go() -> None:
    family = small()
    own, target = labels("00100", "00010", "11100"), labels("01100", "00001", "01100")
    x, rng = photos(3), torch.Generator()
    sum(family.discriminator_loss(x, own, target, rng).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in family.generator.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in family.discriminator.parameters())
    family.discriminator.requires_grad_(False)
    sum(family.generator_loss(x, own, target, rng).values()).backward()  # type: ignore[union-attr]
    # The mappers' parts for choices that nobody asked for stay untouched: no_Eyeglasses, Black_Hair, Bangs ...
    silent = {name for name, p in family.generator.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    parts = ("0.post_models.0", "1.post_models.1", "2.post_models.0", "2.post_models.1")
    assert silent == {n for n, _ in family.generator.named_parameters() if n[8:].startswith(parts)}


def test_rows_come_back_in_the_order_of_the_batch() -> None:
    tags = torch.tensor([2, 0, 2, 1, 0])
    rows = by_tag(tags, lambda tag, index: 10.0 * tag + index[:, None].float())
    assert rows[:, 0].tolist() == [20.0, 1.0, 22.0, 13.0, 4.0]


def test_mappers_are_trained_at_a_hundredth_of_the_step_size() -> None:
    """Adam's first step moves every weight by the step size (its gradient's sign), whatever the gradient's size."""
    family = small()
    before = {name: value.clone() for name, value in family.generator.state_dict().items()}
    rows = np.array([[0, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1], [1, 1, 1, 0, 0]], np.uint8)
    tiny = tiny_faces(4)
    faces = FaceSet(tiny.pixels_BCHW, rows, LABELS, tiny.ids)
    trainer = Trainer(family, faces, TrainConfig(steps=1, batch=4, learning_rate=1e-3, precision="float32"), 0, ("t",))
    losses = trainer.step(0)
    assert set(losses) == {
        *("d_real", "d_fake", "d_cycle", "d_penalty"),
        *("g_adversarial", "g_style", "g_reconstruction"),
    }
    moved = {name: float((value - before[name]).abs().max()) for name, value in family.generator.state_dict().items()}
    assert moved["encoder.0.weight"] == pytest.approx(1e-3, rel=0.01)
    assert max(value for name, value in moved.items() if name.startswith("mappers.")) == pytest.approx(1e-5, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edited": ["Glasses"]}, "no tag 'Glasses'; tags: Bangs, Eyeglasses, HairColor"),
        ({"edited": ["Bangs", "Bangs"]}, "each edited tag may be named once"),
        ({"references": ["Red_Hair"]}, "no choice 'Red_Hair'"),
        ({"choice_widths": (6, 6)}, "choice_widths must start with the last of mapper_widths, 5"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small(**changes)
