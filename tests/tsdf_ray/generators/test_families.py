"""What every family promises: it is trained and resumed by the one loop, saved, restarted, and attacked when frozen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tsdf_ray.digest import array_digest
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators import (
    GENERATORS,
    AttentionGAN,
    AttentionGANConfig,
    AttGAN,
    AttGANConfig,
    Family,
    HiSD,
    HiSDConfig,
    StarGAN,
    StarGANConfig,
    TrainConfig,
    Trainer,
    fresh_family,
    load_family,
    restart,
    save_family,
)
from tsdf_ray.testing.tiny import tiny_editor, tiny_faces

LABELS = ("Bangs", "Eyeglasses", "Black_Hair", "Blond_Hair", "Brown_Hair")
CRITIC = {"image_size": 32, "discriminator_width": 4, "discriminator_layers": 3}
FAMILIES = ("attentiongan", "attgan", "editor", "hisd", "stargan")


def small(name: str) -> Family:
    if name == "editor":
        return tiny_editor(0)
    if name == "attgan":
        sizes = {"attributes": LABELS, "width": 4, "widest": 16, "layers": 3, "hidden": 8, **CRITIC}
        return fresh_family(AttGAN, AttGANConfig.model_validate(sizes), 0, "test")
    if name == "hisd":
        sizes = {
            "widths": (4, 6),
            "translator_widths": (4, 4),
            "extractor_widths": (4, 5),
            "mapper_widths": (4, 5),
            "choice_widths": (5, 6),
            "style": 7,
            "noise": 3,
            "discriminator_widths": (4, 5),
            "image_size": 32,
        }
        family = fresh_family(HiSD, HiSDConfig.model_validate(sizes), 0, "test")
        assert isinstance(family, HiSD)
        return family.with_reference("Eyeglasses", tiny_faces(1).images()[0])
    sizes = {"attributes": LABELS, "width": 4, "blocks": 1, **CRITIC}
    if name == "stargan":
        return fresh_family(StarGAN, StarGANConfig.model_validate(sizes), 0, "test")
    return fresh_family(AttentionGAN, AttentionGANConfig.model_validate(sizes), 0, "test")


def faces_for(family: Family, count: int = 6) -> FaceSet:
    tiny = tiny_faces(count)
    labels = np.zeros((count, len(family.attributes)), np.uint8)
    for b in range(count):
        labels[b, family.attributes.index("Black_Hair") + b % 3] = 1
        labels[b, [a for a, name in enumerate(family.attributes) if not name.endswith("Hair")]] = b // 3
    return FaceSet(tiny.pixels_BCHW, labels, family.attributes, tiny.ids)


def test_every_built_in_family_is_here() -> None:
    assert set(FAMILIES) == set(GENERATORS)
    assert all(GENERATORS[name].name == name for name in FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_training_goes_on_as_the_unbroken_one(name: str, precision: str) -> None:
    family = small(name)
    config = TrainConfig.model_validate(
        {"steps": 3, "batch": 4, "precision": precision, "ema_decay": 0.9, "discriminator_steps": 2}
    )
    before = family.tensors()
    trainer = Trainer(family, faces_for(family), config, 0, ("t",))
    trainer.step(0)
    state = trainer.state()
    losses = trainer.step(1)
    assert all(np.isfinite(value) for value in losses.values())
    other = small(name)
    resumed = Trainer(other, faces_for(other), config, 0, ("t",))
    resumed.load_state(state)
    assert resumed.step(1) == losses
    assert array_digest(resumed.state()) == array_digest(trainer.state())
    trainer.finish()
    after = family.tensors()
    for part in family.parts:
        changed = any(not np.array_equal(before[key], after[key]) for key in after if key.startswith(f"{part}."))
        assert changed == (part not in family.frozen_parts), part


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_edits_alike(name: str, tmp_path: Path) -> None:
    family = small(name)
    faces = faces_for(family)
    save_family(tmp_path / "x.safetensors", family)
    loaded = load_family(tmp_path / "x.safetensors")
    assert type(loaded) is type(family)
    assert array_digest(loaded.tensors()) == array_digest(family.tensors())
    x, c = faces.images(), faces.labels()
    assert torch.equal(loaded.freeze().edit(x, c), family.freeze().edit(x, c))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_restart_keeps_the_frozen_parts_alone(name: str) -> None:
    family = small(name)
    anew = restart(family, 1, "r")
    assert anew.config_json() == family.config_json()
    kept, fresh = family.tensors(family.frozen_parts), family.tensors(("generator",))
    assert array_digest(anew.tensors(family.frozen_parts)) == array_digest(kept)
    assert array_digest(anew.tensors(("generator",))) != array_digest(fresh)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_frozen_family_is_differentiable_to_the_pixel(name: str) -> None:
    family = small(name).freeze()
    faces = faces_for(family)
    x, c = faces.images().requires_grad_(True), faces.labels()
    edited, mid = family.edit_and_features(x, c)
    assert edited.shape == x.shape
    torch.testing.assert_close(family.features(x, c), mid)
    for output in (edited, mid):
        (slope,) = torch.autograd.grad(output.square().sum(), x, retain_graph=True)
        assert bool(torch.isfinite(slope).all())
        assert bool((slope.abs().sum((1, 2, 3)) > 0).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_each_photo_is_edited_by_its_own_labels(name: str) -> None:
    """In evaluation mode no photo depends on its neighbours, and each label has its effect."""
    family = small(name).freeze()
    faces = faces_for(family)
    x, c = faces.images(), faces.labels()
    edited = family.edit(x, c)
    for b in (0, 4):
        torch.testing.assert_close(edited[b : b + 1], family.edit(x[b : b + 1], c[b : b + 1]), atol=1e-4, rtol=1e-4)
    for a, attribute in enumerate(family.attributes):
        if not attribute.endswith("Hair"):
            flipped = c.clone()
            flipped[:, a] = 1 - flipped[:, a]
            assert bool(((family.edit(x, flipped) - edited).abs().amax((1, 2, 3)) > 0).all()), attribute
