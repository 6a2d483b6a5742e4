"""`tsdf-ray weights`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from typer.testing import CliRunner

from tsdf_ray.cli import app
from tsdf_ray.digest import array_digest
from tsdf_ray.generators import AttGAN, AttGANConfig, save_family
from tsdf_ray.testing.tiny import tiny_editor


def rows(output: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in output.splitlines())


def test_list_names_packaged_weights_and_official_releases() -> None:
    result = CliRunner().invoke(app, ["weights", "list"])
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["editor-128", "editor", "Black_Hair,", "Blond_Hair,", "Brown_Hair,", "Male"] in lines
    releases = {line[1]: line[0] for line in lines if line[-1].startswith("github.com/")}
    assert releases == {
        "stargan": "200000-G.ckpt",
        "attentiongan": "200000-G.ckpt",
        "attgan": "weights.N.pth",
        "hisd": "gen_00600000.pt",
    }


def test_check_of_a_file_of_ours(tmp_path: Path) -> None:
    family, path = tiny_editor(0), tmp_path / "tiny.safetensors"
    save_family(path, family)
    result = CliRunner().invoke(app, ["weights", "check", str(path)])
    assert result.exit_code == 0
    found = rows(result.stdout)
    count = sum(weight.numel() for weight in family.generator.parameters())
    assert found["family"] == "editor"
    assert found["size"].startswith(f"generator {count:,}, discriminator ")
    assert found["attributes"] == "Black_Hair, Blond_Hair, Brown_Hair, Male"
    assert found["digest"] == array_digest(family.tensors())
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "discriminator" not in found


def test_check_of_an_official_generator_says_what_is_missing(tmp_path: Path) -> None:
    family = AttGAN(AttGANConfig(width=8, layers=3, image_size=32, discriminator_layers=3, hidden=8))
    path = tmp_path / "weights.49.pth"
    torch.save({"G": family.generator.state_dict()}, path)
    result = CliRunner().invoke(app, ["weights", "check", str(path)])
    assert result.exit_code == 0
    found = rows(result.stdout)
    count = sum(weight.numel() for weight in family.generator.parameters())
    assert found["family"] == "attgan (official checkpoint)"
    assert found["size"] == f"generator {count:,} parameters"
    assert found["digest"] == array_digest(family.tensors(("generator",)))
    assert found["discriminator"] == "never trained; retraining starts from a fresh one"


def test_check_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "page.ckpt").write_text("<html>")
    for name in ("page.ckpt", "absent.ckpt"):
        result = CliRunner().invoke(app, ["weights", "check", str(tmp_path / name)])
        assert result.exit_code == 2
        assert f"{tmp_path / name}" in result.stderr
        assert result.stdout == ""
