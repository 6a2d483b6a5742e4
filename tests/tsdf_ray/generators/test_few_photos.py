"""What helps a family to train on few photos: off by default, and what it adds to each family's loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tsdf_ray.digest import array_digest
from tsdf_ray.errors import UserError
from tsdf_ray.faces import FaceSet
from tsdf_ray.generators import (
    AttGAN,
    AttGANConfig,
    Family,
    HiSD,
    HiSDConfig,
    StarGAN,
    StarGANConfig,
    fresh_family,
    load_family,
    save_family,
)
from tsdf_ray.generators.few_photos import AttributeClassifier
from tsdf_ray.generators.pretrain import PretrainConfig, pretrain
from tsdf_ray.testing.tiny import tiny_faces

HAIR_AND_SEX = ["Black_Hair", "Blond_Hair", "Brown_Hair", "Male"]
SMALL: dict[str, dict[str, Any]] = {
    "stargan": {
        "attributes": HAIR_AND_SEX,
        "width": 4,
        "blocks": 1,
        "image_size": 32,
        "discriminator_width": 4,
        "discriminator_layers": 3,
    },
    "attgan": {
        "attributes": HAIR_AND_SEX,
        "width": 4,
        "widest": 16,
        "layers": 3,
        "hidden": 8,
        "image_size": 32,
        "discriminator_width": 4,
        "discriminator_layers": 3,
    },
    "hisd": {
        "tags": [{"name": "HairColor", "labels": HAIR_AND_SEX[:3]}, {"name": "Sex", "labels": ["Male"]}],
        "widths": [4, 6],
        "translator_widths": [4, 4],
        "extractor_widths": [4, 5],
        "mapper_widths": [4, 5],
        "choice_widths": [5, 6],
        "style": 7,
        "noise": 3,
        "discriminator_widths": [4, 5],
        "image_size": 32,
    },
}
KINDS: dict[str, type[Family]] = {"stargan": StarGAN, "attgan": AttGAN, "hisd": HiSD}


def faces_for(family: Family, count: int) -> FaceSet:
    """Photos whose hair colours take turns; the first three are female."""
    tiny = tiny_faces(count)
    labels = np.zeros((count, len(family.attributes)), np.uint8)
    labels[np.arange(count), np.arange(count) % 3] = 1
    labels[3:, 3:] = 1
    return FaceSet(tiny.pixels_BCHW, labels, family.attributes, tiny.ids)


def made(name: str, **more: Any) -> Family:
    kind = KINDS[name]
    return fresh_family(kind, kind.config_class.model_validate(SMALL[name] | more), 0, "few")


def losses(family: Family, seed: int = 0) -> dict[str, float]:
    faces = faces_for(family, 4)
    own = faces.labels()
    target = own.clone()
    target[:, :3] = target[:, :3].roll(1, 1)
    rng = torch.Generator().manual_seed(seed)
    found = family.discriminator_loss(faces.images(), own, target, rng)
    found |= family.generator_loss(faces.images(), own, target, rng)
    return {term: float(value.detach()) for term, value in found.items()}


@pytest.mark.parametrize("name", SMALL)
def test_the_classifier_joins_the_loss_and_stays_frozen(name: str) -> None:
    family = made(name, classifier_width=4, classifier_weight=0.5)
    classifier = family.parts["classifier"]
    assert "classifier" in family.frozen_parts
    assert isinstance(classifier, AttributeClassifier)
    with torch.no_grad():
        classifier.head.weight.zero_()
        classifier.head.bias.zero_()
    found = losses(family)
    # Without an opinion: ln 3 for the hair colour, ln 2 for the sex.
    assert found["g_classifier"] == pytest.approx(0.5 * (math.log(3) + math.log(2)))
    plain = losses(made(name))
    assert found.keys() - plain.keys() == {"g_classifier"}
    # The published terms are what they were: the weights of the other parts are drawn before the classifier's.
    assert {term: found[term] for term in plain} == pytest.approx(plain)


@pytest.mark.parametrize("name", SMALL)
def test_augmentation_is_drawn_anew(name: str) -> None:
    free = {"adversarial": "hinge"} if name == "stargan" else {}  # a penalty's place is drawn too
    shown, plain = made(name, augment=True, **free), made(name, **free)
    term = {"stargan": "g_classification", "attgan": "g_classification", "hisd": "g_adversarial"}[name]
    assert losses(shown, 0)[term] != losses(shown, 1)[term]
    if name != "hisd":  # its styles are drawn
        assert losses(plain, 0)[term] == losses(plain, 1)[term]


def test_the_identity_term_is_the_mean_change_under_the_own_labels() -> None:
    family = made("stargan", identity_weight=2.0)
    faces = faces_for(family, 4)
    x, own = faces.images(), faces.labels()
    terms = family.generator_loss(x, own, own, torch.Generator().manual_seed(0))
    with torch.no_grad():
        change = (family.edit(x[:1], own[:1]) - x[:1]).abs().mean()
    assert float(terms["g_identity"].detach()) == pytest.approx(2.0 * float(change), rel=1e-5)
    assert "g_identity" not in losses(made("stargan"))


def test_hisd_starts_dim_where_it_is_asked_to() -> None:
    x = tiny_faces(2).images()
    bright, dim = made("hisd"), made("hisd", start_scale=0.1)
    assert isinstance(bright, HiSD)
    assert isinstance(dim, HiSD)
    code = bright.generator.encode(x)
    decoded = (dim.generator.decode(code), bright.generator.decode(code))
    torch.testing.assert_close((decoded[0] - 0.01) * 10, decoded[1] - 0.01)  # biases start at 0.01
    torch.testing.assert_close((dim.generator.extract(x) - 0.01) * 10, bright.generator.extract(x) - 0.01)


@pytest.mark.parametrize(("name", "side"), [("stargan", 24), ("attgan", 40)])
def test_a_side_that_the_discriminator_cannot_be_trained_with_is_named(name: str, side: int) -> None:
    family = made(name)
    family.check_side(side, "size")  # forging would do
    with pytest.raises(UserError, match=f"faces.size: .*{side}|faces.size: {side}"):
        family.check_training_side(side, "faces.size")
    family.check_training_side(32, "faces.size")


def config(name: str, **more: Any) -> PretrainConfig:
    content = {"family": name, "settings": SMALL[name], "train": {"steps": 2, "batch": 4}, "classifier_steps": 2}
    return PretrainConfig.model_validate(content | more)


def test_a_training_may_start_from_weights_with_another_loss(tmp_path: Path) -> None:
    faces = faces_for(made("attgan"), 8)
    first = pretrain(config("attgan"), faces, tmp_path / "first")  # half the side is no side for it: no small steps
    begun = config("attgan", start=str(first), settings={"reconstruction_weight": 7.0}).fresh()
    assert (
        begun.config_json()
        == AttGANConfig.model_validate(SMALL["attgan"] | {"reconstruction_weight": 7.0}).model_dump_json()
    )
    assert array_digest(begun.tensors()) == array_digest(load_family(first).tensors())
    again = pretrain(
        config("attgan", start=str(first), settings={}, train={"steps": 0, "batch": 4}), faces, tmp_path / "again"
    )
    assert array_digest(load_family(again).tensors()) == array_digest(load_family(first).tensors())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("attgan", {"start": "STARGAN"}, "start: .*holds stargan, not attgan"),
        ("stargan", {"start": "STARGAN", "settings": {"width": 8}}, "start: .*tensor .*shape"),
        ("stargan", {"start": "nowhere"}, "no such file"),
        ("stargan", {"small_steps": 3}, "small_steps trains at half the side: 16 is less than 32"),
    ],
)
def test_what_cannot_start_is_said(name: str, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_family(tmp_path / "s.safetensors", made("stargan"))
    if change.get("start") == "STARGAN":
        change = change | {"start": str(tmp_path / "s.safetensors")}
    faces = faces_for(made(name), 8)
    with pytest.raises(UserError, match=message):
        pretrain(config(name, **change), faces, tmp_path / "out")


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="device 'nowhere' cannot be used"):
        pretrain(config("stargan"), faces_for(made("stargan"), 8), tmp_path / "out", device="nowhere")


def test_hisd_config_is_as_published_by_default() -> None:
    default = HiSDConfig()
    assert (default.start_scale, default.augment, default.classifier_width) == (1.0, False, None)
    assert StarGANConfig().identity_weight == 0
