"""What roles start from: a generator whose file held no discriminator stays "fresh" until someone trained one."""

from __future__ import annotations

from pathlib import Path

from tsdf_ray.game.materials import family_with
from tsdf_ray.generators import TrainConfig, save_family, train
from tsdf_ray.testing.tiny import tiny_editor, tiny_faces


def test_a_fresh_discriminator_is_fresh_until_it_is_trained(tmp_path: Path) -> None:
    family = tiny_editor(0)
    family.fresh_parts = ("discriminator",)
    path = tmp_path / "official.safetensors"
    save_family(path, family)
    first = family_with(str(path), family.tensors())
    assert first.fresh_parts == ("discriminator",)
    # An attacker that did not train its discriminator (too few photos) still has a fresh one.
    other_generator = tiny_editor(1).tensors(("generator",))
    assert family_with(str(path), family.tensors() | other_generator).fresh_parts == ("discriminator",)
    train(first, tiny_faces(8), TrainConfig(steps=1, batch=4), 0, ())
    assert family_with(str(path), first.tensors()).fresh_parts == ()


def test_weights_of_ours_have_no_fresh_part(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_family(path, tiny_editor(0))
    assert family_with(str(path), tiny_editor(0).tensors()).fresh_parts == ()
