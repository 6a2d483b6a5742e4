"""Official checkpoints as their authors publish them, read with `weights_only`; sizes come from the tensors.

StarGAN and AttentionGAN: `200000-G.ckpt`, a state dict (and `200000-D.ckpt`, its discriminator); AttGAN:
`weights.N.pth` with "G" and sometimes "D"; HiSD: `gen_00600000.pt` with "gen_test", the moving average. What a file
does not hold is named in `Family.fresh_parts`: those weights are untrained, from a fixed seed.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ValidationError

from tsdf_ray.errors import UserError
from tsdf_ray.generators.attentiongan import AttentionGAN, AttentionGANConfig
from tsdf_ray.generators.attgan import AttGAN
from tsdf_ray.generators.base import Family, check_tensors
from tsdf_ray.generators.fresh import fresh_family
from tsdf_ray.generators.hisd import HiSD
from tsdf_ray.generators.official_sizes import State, attgan_config, hisd_config, stargan_config
from tsdf_ray.generators.stargan import StarGAN, StarGANConfig


@dataclass(frozen=True)
class Release:
    """One official release: its file's name and where its authors publish it."""

    family: str
    file: str
    source: str


RELEASES = (
    Release("stargan", "200000-G.ckpt", "github.com/yunjey/stargan"),
    Release("attentiongan", "200000-G.ckpt", "github.com/Ha0Tang/AttentionGAN"),
    Release("attgan", "weights.N.pth", "github.com/elvisyjlin/AttGAN-PyTorch"),
    Release("hisd", "gen_00600000.pt", "github.com/imlixinyang/HiSD"),
)


def is_checkpoint(path: Path) -> bool:
    """Whether a file starts as torch.save's do (zip, or the older pickle), and not as a safetensors file."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:
        return False
    # A safetensors file is a length of eight bytes, which may look like anything, and then JSON.
    return start[8:9] != b"{" and (start.startswith(b"PK\x03\x04") or start[:1] == b"\x80")


def load_official(path: Path, discriminator: Path | None = None, settings: Mapping[str, Any] | None = None) -> Family:
    """A family from an official checkpoint; `discriminator` is a second file, for StarGAN and AttentionGAN.

    `settings` are keys of the family's config that its tensors do not tell: names of the attributes, a fresh
    discriminator's `image_size`, HiSD's `edited`. Raises UserError: a file that cannot be read as plain tensors, that
    is none of the known checkpoints, or whose tensors do not fit (naming the tensor, what was expected and what was
    found), and settings that do not fit the family.
    """
    content = _read(path)
    parts: dict[str, State] = {}
    read: Callable[[Mapping[str, State]], BaseModel]
    kind: type[Family]
    if "gen_test" in content:
        kind, read = HiSD, hisd_config
        parts["generator"] = _state(path, content["gen_test"])
    elif "G" in content:
        kind, read = AttGAN, attgan_config
        parts["generator"] = _state(path, content["G"])
        if "D" in content:
            parts["discriminator"] = _state(path, content["D"])
    else:
        parts["generator"] = _state(path, content)
        kind, read = _label_gan(path, parts["generator"])
    where = {"generator": path, "discriminator": path}
    if discriminator is not None:
        if not issubclass(kind, StarGAN):
            raise UserError(f"{discriminator}: {kind.name} takes no discriminator from a second file")
        parts["discriminator"] = _state(discriminator, _read(discriminator))
        where["discriminator"] = discriminator
    try:
        config = read(parts)
    except (KeyError, IndexError, ValueError) as error:
        reason = _first(error) if isinstance(error, ValidationError) else repr(error)
        files = " and ".join(str(file) for file in dict.fromkeys(where.values()))
        raise UserError(f"{files}: not an official {kind.name} checkpoint ({reason})") from error
    try:
        config = kind.config_class.model_validate(config.model_dump() | dict(settings or {}))
    except ValidationError as error:
        raise UserError(f"{path}: settings: {_first(error)}") from error
    family = fresh_family(kind, config, 0, "official")
    for part, state in parts.items():
        own = family.parts[part].state_dict()
        for name, value in own.items():
            if name.endswith("num_batches_tracked"):
                # Counters that PyTorch before 0.4.1 did not write; nothing depends on them.
                state.setdefault(name, value.numpy())
        check_tensors(str(where[part]), {name: value.numpy() for name, value in own.items()}, state)
        family.load({f"{part}.{name}": value for name, value in state.items()})
    trained = set(family.parts) - set(family.frozen_parts)
    family.fresh_parts = tuple(sorted(trained - set(parts)))
    return family


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _label_gan(path: Path, state: State) -> tuple[type[Family], Callable[[Mapping[str, State]], BaseModel]]:
    """StarGAN or AttentionGAN: the last layer has three maps or four."""
    if "conv1.weight" in state:
        raise UserError(f"{path}: a discriminator's checkpoint; name the generator's (`200000-G.ckpt`)")
    last = max((int(name.split(".")[1]) for name in state if name.startswith("main.")), default=-1)
    head = state.get(f"main.{last}.weight")
    if head is None:
        found = ", ".join(sorted(state)[:3])
        raise UserError(
            f"{path}: none of the official checkpoints: no tensors 'main.*', 'G' or 'gen_test', but {found}"
        )
    if head.shape[0] == 4:
        return AttentionGAN, lambda parts: stargan_config(AttentionGANConfig, parts)
    if head.shape[0] == 3:
        return StarGAN, lambda parts: stargan_config(StarGANConfig, parts)
    raise UserError(
        f"{path}: tensor 'main.{last}.weight' has {head.shape[0]} output channels, "
        "expected 3 (stargan) or 4 (attentiongan)"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: cannot be read as a checkpoint of plain tensors: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{path}: not a state dict (a mapping of tensor names to tensors)")
    return content


def _state(path: Path, content: object) -> dict[str, npt.NDArray[np.generic]]:
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path}: not a state dict (a mapping of tensor names to tensors)")
    return {str(name): value.numpy() for name, value in content.items()}
