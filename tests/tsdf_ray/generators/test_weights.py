"""Weights on disk: what is saved is what is loaded; damaged or foreign files are refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from tsdf_ray.digest import array_digest
from tsdf_ray.errors import UserError
from tsdf_ray.generators import StarGAN, StarGANConfig, load_family, save_family
from tsdf_ray.testing.tiny import tiny_editor


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118


def test_roundtrip_of_both_families(tmp_path: Path) -> None:
    stargan = StarGAN(StarGANConfig(width=4, blocks=1, image_size=32, discriminator_width=4, discriminator_layers=2))
    for family in (tiny_editor(0), stargan):
        path = tmp_path / "folder" / f"{family.name}.safetensors"
        save_family(path, family)
        loaded = load_family(path)
        assert type(loaded) is type(family)
        assert loaded.config_json() == family.config_json()
        assert loaded.attributes == family.attributes
        assert array_digest(loaded.tensors()) == array_digest(family.tensors())
        assert [p.name for p in path.parent.iterdir() if p.suffix == ".part"] == []


def test_a_changed_tensor_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_family(path, tiny_editor(0))
    tensors, metadata = read(path)
    tensors["generator.head.bias"][3] += 1e-3
    save_file(tensors, path, metadata)
    with pytest.raises(UserError, match="changed or damaged"):
        load_family(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("generator.head.bias"), r"'generator.head.bias' is missing .expected shape \(18,\)"),
        (lambda t: t.update({"generator.head.bias": np.zeros(5, np.float32)}), r"has shape \(5,\), expected \(18,\)"),
        (lambda t: t.update({"generator.extra": np.zeros(5, np.float32)}), r"unknown tensor 'generator.extra'"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "x.safetensors"
    save_family(path, tiny_editor(0))
    tensors, metadata = read(path)
    change(tensors)  # type: ignore[operator]
    save_file(tensors, path, metadata)
    with pytest.raises(UserError, match=message):
        load_family(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "plain.safetensors")
    (tmp_path / "html.safetensors").write_text("<html>")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    path = tmp_path / "whole.safetensors"
    save_family(path, tiny_editor(0))
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-100])
    tensors, metadata = read(path)
    save_file(tensors, tmp_path / "family.safetensors", metadata | {"family": "cyclegan"})
    save_file(tensors, tmp_path / "config.safetensors", metadata | {"config": '{"width": "wide"}'})
    for name, message in {
        "plain": "not a generator",
        "html": "safetensors",
        "empty": "safetensors",
        "cut": "safetensors",
        "family": "attentiongan, attgan, editor, hisd, stargan",
        "config": "width",
        "absent": "no such file",
    }.items():
        with pytest.raises(UserError, match=message):
            load_family(tmp_path / f"{name}.safetensors")


def test_an_unknown_name_lists_the_packaged_ones() -> None:
    with pytest.raises(UserError, match="packaged: attentiongan-128, attgan-128, editor-128, hisd-128"):
        load_family("editor-256")


def test_read_only_arrays_load(tmp_path: Path) -> None:
    family, other = tiny_editor(1), tiny_editor(2)
    tensors = other.tensors()
    for value in tensors.values():
        value.flags.writeable = False
    family.load(tensors)
    assert array_digest(family.tensors()) == array_digest(other.tensors())
    with torch.no_grad():
        family.generator.head.bias.add_(1.0)  # type: ignore[union-attr]
    assert array_digest(family.tensors()) != array_digest(tensors)
