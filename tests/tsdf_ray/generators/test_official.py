"""Official checkpoints: recognised by their content, sizes read from the tensors, refused with one clear reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel

from tsdf_ray.digest import array_digest
from tsdf_ray.errors import UserError
from tsdf_ray.generators import (
    AttentionGAN,
    AttentionGANConfig,
    AttGAN,
    AttGANConfig,
    Family,
    HiSD,
    HiSDConfig,
    StarGAN,
    StarGANConfig,
    fresh_family,
    load_family,
    load_official,
    save_family,
)
from tsdf_ray.generators.official import is_checkpoint
from tsdf_ray.generators.official_sizes import State, attgan_config, hisd_config, stargan_config
from tsdf_ray.testing.tiny import tiny_faces

FIVE = StarGANConfig().attributes
SEVEN = (*FIVE, "label_5", "label_6")
TRUNK: dict[str, Any] = {"width": 4, "blocks": 3}
CRITIC: dict[str, Any] = {"image_size": 32, "discriminator_width": 4, "discriminator_layers": 3}
STARGAN = StarGANConfig(attributes=SEVEN, **TRUNK, **CRITIC)
ATTGAN = AttGANConfig(width=8, widest=24, layers=3, hidden=6, shortcut_layers=2, inject_layers=1, **CRITIC)
HISD = HiSDConfig(
    widths=(4, 6, 8),
    translator_widths=(4, 5, 6),
    extractor_widths=(5, 6, 7),
    mapper_widths=(4, 5, 6),
    choice_widths=(6, 7),
    style=9,
    noise=3,
    discriminator_widths=(4, 5),
)


def fresh(kind: type[Family], config: BaseModel) -> Family:
    return fresh_family(kind, config, 3, "test")


def state(family: Family, part: str = "generator") -> dict[str, torch.Tensor]:
    return dict(family.parts[part].state_dict())


def optimiser_state() -> dict[str, Any]:
    weight = torch.nn.Parameter(torch.zeros(2))
    optimiser = torch.optim.Adam([weight])
    weight.sum().backward()
    optimiser.step()
    return optimiser.state_dict()


def files(folder: Path) -> dict[str, tuple[Family, Path]]:
    """One small checkpoint of each kind, with what the published code puts beside the weights."""
    families = {
        "stargan": fresh(StarGAN, STARGAN),
        "attentiongan": fresh(AttentionGAN, AttentionGANConfig(**TRUNK, **CRITIC)),
        "attgan": fresh(AttGAN, ATTGAN),
        "hisd": fresh(HiSD, HISD),
    }
    contents: dict[str, Any] = {name: state(family) for name, family in families.items()}
    contents["attgan"] = {"G": contents["attgan"], "optim_G": optimiser_state()}
    contents["hisd"] = {"gen": state(fresh_family(HiSD, HISD, 4, "raw")), "gen_test": contents["hisd"]}
    for name, content in contents.items():
        torch.save(content, folder / f"{name}.pt")
    return {name: (family, folder / f"{name}.pt") for name, family in families.items()}


@pytest.mark.parametrize("name", ["stargan", "attentiongan", "attgan", "hisd"])
def test_a_generator_alone_loads_and_its_discriminator_starts_afresh(tmp_path: Path, name: str) -> None:
    family, path = files(tmp_path)[name]
    loaded = load_family(path)
    assert loaded.name == name
    assert loaded.attributes == family.attributes
    assert array_digest(loaded.tensors(("generator",))) == array_digest(family.tensors(("generator",)))
    x, c = tiny_faces(2).images(), torch.eye(len(family.attributes))[:2]
    assert torch.equal(loaded.freeze().edit(x, c), family.freeze().edit(x, c))
    assert loaded.fresh_parts == ("discriminator",)
    assert array_digest(load_family(path).tensors()) == array_digest(loaded.tensors()), "fresh, but from a fixed seed"


def test_what_started_afresh_is_still_known_after_saving(tmp_path: Path) -> None:
    _, path = files(tmp_path)["hisd"]
    save_family(tmp_path / "hisd.safetensors", load_family(path))
    assert load_family(tmp_path / "hisd.safetensors").fresh_parts == ("discriminator",)
    save_family(tmp_path / "own.safetensors", fresh(HiSD, HISD))
    assert load_family(tmp_path / "own.safetensors").fresh_parts == ()


def test_sizes_are_read_from_the_files(tmp_path: Path) -> None:
    trunk = load_official(files(tmp_path)["attentiongan"][1])
    assert isinstance(trunk, AttentionGAN)
    assert (trunk.config.width, trunk.config.blocks, trunk.attributes) == (4, 3, FIVE)
    hisd = load_official(files(tmp_path)["hisd"][1])
    assert isinstance(hisd, HiSD)
    assert hisd.config.model_copy(update={"discriminator_widths": (4, 5)}) == HISD


def test_settings_say_what_the_tensors_do_not(tmp_path: Path) -> None:
    """METHOD's protocol of HiSD, and a fresh discriminator for smaller photos."""
    family, path = files(tmp_path)["hisd"]
    glasses = load_official(path, settings={"edited": ["Eyeglasses"], "image_size": 64})
    assert isinstance(glasses, HiSD)
    assert glasses.attributes == ("Eyeglasses",)
    assert glasses.config.image_size == 64
    assert array_digest(glasses.tensors(("generator",))) == array_digest(family.tensors(("generator",)))
    with pytest.raises(UserError, match=r"hisd.pt: settings: .*no tag 'Hats'"):
        load_official(path, settings={"edited": ["Hats"]})
    with pytest.raises(UserError, match=r"'main.0.weight' has shape \(4, 10, 7, 7\), expected \(4, 8, 7, 7\)"):
        load_official(files(tmp_path)["stargan"][1], settings={"attributes": FIVE})


def test_discriminators_are_read_where_there_are_any(tmp_path: Path) -> None:
    stargan, attgan = fresh(StarGAN, STARGAN), fresh(AttGAN, ATTGAN)
    for part in ("generator", "discriminator"):
        torch.save(state(stargan, part), tmp_path / f"{part}.ckpt")
    loaded = load_official(tmp_path / "generator.ckpt", tmp_path / "discriminator.ckpt")
    assert isinstance(loaded, StarGAN)
    assert loaded.config == STARGAN
    assert array_digest(loaded.tensors()) == array_digest(stargan.tensors())
    assert loaded.fresh_parts == ()
    torch.save({"G": state(attgan), "D": state(attgan, "discriminator")}, tmp_path / "weights.9.pth")
    other = load_official(tmp_path / "weights.9.pth")
    assert isinstance(other, AttGAN)
    assert other.config == ATTGAN
    assert array_digest(other.tensors()) == array_digest(attgan.tensors())
    assert other.fresh_parts == ()
    with pytest.raises(UserError, match="attgan takes no discriminator from a second file"):
        load_official(tmp_path / "weights.9.pth", tmp_path / "discriminator.ckpt")


def test_old_files_load_too(tmp_path: Path) -> None:
    """Before PyTorch 1.6: pickle instead of zip; before 0.4.1: no counters beside the running statistics."""
    family = fresh(StarGAN, STARGAN)
    old = {name: value for name, value in state(family).items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state(family))
    torch.save(old, tmp_path / "200000-G.ckpt", _use_new_zipfile_serialization=False)
    loaded = load_family(tmp_path / "200000-G.ckpt")
    assert array_digest(loaded.tensors(("generator",))) == array_digest(family.tensors(("generator",)))


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "read", "expected"),
    [
        ("stargan", lambda parts: stargan_config(StarGANConfig, parts), StarGANConfig()),
        ("attention_gan", lambda parts: stargan_config(AttentionGANConfig, parts), AttentionGANConfig()),
        ("attgan", attgan_config, AttGANConfig()),
        ("hisd", hisd_config, HiSDConfig()),
    ],
)
def test_published_shapes_give_the_default_config(
    assets: Path, name: str, read: Callable[[dict[str, State]], BaseModel], expected: BaseModel
) -> None:
    parts: dict[str, State] = {}
    for part in ("generator", "discriminator"):
        path = assets / "state_dicts" / f"{name}_{part}.json"
        if path.is_file():
            shapes = json.loads(path.read_text())["tensors"]
            # Broadcast from one number: no memory for the weights.
            parts[part] = {key: torch.zeros(()).expand(shape).numpy() for key, shape in shapes.items()}
    assert read(parts) == expected
    assert read({"generator": parts["generator"]}) == expected


def test_other_tags_and_labels_get_numbers() -> None:
    changed = {"tags": [{"name": "a", "labels": ["a"]}, {"name": "b", "labels": ["b", "c", "d", "e"]}]}
    family = HiSD(HiSDConfig.model_validate(HISD.model_dump() | changed))
    config = hisd_config({"generator": {name: value.numpy() for name, value in state(family).items()}})
    assert [tag.labels for tag in config.tags] == [
        ("tag_0",),
        ("tag_1_label_0", "tag_1_label_1", "tag_1_label_2", "tag_1_label_3"),
    ]
    attgan = AttGAN(ATTGAN.model_copy(update={"attributes": ("x", "y")}))
    read = attgan_config({"generator": {name: value.numpy() for name, value in state(attgan).items()}})
    assert read.attributes == ("label_0", "label_1")
    assert (read.shortcut_layers, read.inject_layers) == (2, 1)


def broken(change: Callable[[dict[str, Any]], object], kind: type[Family], config: BaseModel) -> dict[str, Any]:
    content = state(fresh(kind, config))
    change(content)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda: broken(lambda s: s.update({"main.3.weight": torch.zeros(8, 4, 3, 3)}), StarGAN, STARGAN),
            r"tensor 'main.3.weight' has shape \(8, 4, 3, 3\), expected \(8, 4, 4, 4\)",
        ),
        (
            lambda: broken(lambda s: s.pop("main.1.bias"), StarGAN, STARGAN),
            r"tensor 'main.1.bias' is missing \(expected shape \(4,\)\)",
        ),
        (
            lambda: {"G": broken(lambda s: s.update({"extra": torch.zeros(2)}), AttGAN, ATTGAN)},
            r"unknown tensor 'extra' \(shape \(2,\)\)",
        ),
        (
            lambda: {
                "G": broken(
                    lambda s: s.update({"dec_layers.1.layers.0.weight": torch.zeros(7, 16, 4, 4)}), AttGAN, ATTGAN
                )
            },
            r"'dec_layers.1.layers.0.weight' has shape \(7, 16, 4, 4\), expected \(40, 16, 4, 4\)",
        ),
        (
            lambda: {"gen_test": broken(lambda s: s.pop("translators.1.masks.0.bias"), HiSD, HISD)},
            r"tensor 'translators.1.masks.0.bias' is missing \(expected shape \(8,\)\)",
        ),
        (lambda: {"gen_test": {"main.0.weight": torch.zeros(1)}}, "not an official hisd checkpoint"),
        (lambda: {"G": {"main.0.weight": torch.zeros(1)}}, "not an official attgan checkpoint"),
        (lambda: {"G": 3}, "not a state dict"),
        (lambda: torch.zeros(3), "not a state dict"),
        (lambda: {"other.weight": torch.zeros(1)}, "none of the official checkpoints"),
        (lambda: {"main.0.weight": torch.zeros(5, 8, 7, 7)}, r"has 5 output channels, expected 3 .* or 4"),
        (lambda: {"main.0.weight": torch.zeros(3, 3, 7, 7)}, "3 input channels, expected 3 and the labels"),
        (lambda: {"main.0.weight": torch.zeros(3, 8, 7, 7)}, "width: Input should be greater than or equal to 4"),
        (lambda: state(fresh(StarGAN, STARGAN), "discriminator"), "a discriminator's checkpoint; name the generator's"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_a_reason(
    tmp_path: Path, content: Callable[[], object], message: str
) -> None:
    torch.save(content(), tmp_path / "file.pt")
    with pytest.raises(UserError, match=message) as caught:
        load_official(tmp_path / "file.pt")
    assert str(caught.value).startswith(str(tmp_path / "file.pt"))


def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return print, ("run",)

    torch.save({"main.0.weight": Evil()}, tmp_path / "evil.ckpt")
    (tmp_path / "html.ckpt").write_text("<html>not found</html>")
    for name in ("evil", "html", "absent"):
        with pytest.raises(UserError, match=f"{name}.ckpt: cannot be read"):
            load_official(tmp_path / f"{name}.ckpt")
    assert capsys.readouterr().out == ""


def test_what_looks_like_a_checkpoint(tmp_path: Path) -> None:
    family, path = files(tmp_path)["stargan"]
    save_family(tmp_path / "own.safetensors", family)
    own = (tmp_path / "own.safetensors").read_bytes()
    assert own[8:9] == b"{"
    (tmp_path / "unlucky.safetensors").write_bytes(b"\x80\x02" + own[2:])
    assert is_checkpoint(path)
    assert not is_checkpoint(tmp_path / "own.safetensors")
    assert not is_checkpoint(tmp_path / "unlucky.safetensors")
    assert not is_checkpoint(tmp_path / "absent")
