"""Weights on disk: safetensors with the family's name, config, attributes and a digest; packaged ones by name.

No pickle on an input path: official third-party checkpoints are read with `weights_only`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tsdf_ray.digest import array_digest
from tsdf_ray.errors import UserError
from tsdf_ray.generators.attentiongan import AttentionGAN
from tsdf_ray.generators.attgan import AttGAN
from tsdf_ray.generators.base import Family, Tensors
from tsdf_ray.generators.editor import Editor
from tsdf_ray.generators.hisd import HiSD
from tsdf_ray.generators.stargan import StarGAN, StarGANConfig
from tsdf_ray.registry import look_up
from tsdf_ray.store.atomic import whole_file

GENERATORS: dict[str, type[Family]] = {
    "attentiongan": AttentionGAN,
    "attgan": AttGAN,
    "editor": Editor,
    "hisd": HiSD,
    "stargan": StarGAN,
}
"""Built-in families; plug-ins declare an entry point in the group `tsdf_ray.generators`."""

PACKAGED = Path(str(files("tsdf_ray").joinpath("assets", "generators")))


def save_family(path: Path, family: Family) -> None:
    """Write all parts of `family` to one safetensors file, atomically. Metadata: family, config, attributes, digest."""
    tensors = family.tensors()
    metadata = {
        "family": family.name,
        "config": family.config_json(),
        "attributes": json.dumps(family.attributes),
        "digest": array_digest(tensors),
    }
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_family(name_or_path: str | Path) -> Family:
    """A family from packaged weights (`editor-128`) or from a file written by `save_family`.

    Raises UserError: no such file or name, not safetensors, missing metadata, unknown family, config or tensors that do
    not fit (naming the tensor, what was expected and what was found), and a digest that does not match the tensors.
    """
    path = _locate(name_or_path)
    tensors, metadata = _read(path)
    missing = [key for key in ("family", "config", "digest") if key not in metadata]
    if missing:
        raise UserError(f"{path}: not a generator of ours: no {', '.join(missing)} in its metadata")
    kind = look_up("generators", metadata["family"], GENERATORS)
    try:
        config = kind.config_class.model_validate_json(metadata["config"])
    except ValidationError as error:
        raise UserError(f"{path}: its config does not fit the family {metadata['family']!r}: {error}") from error
    family = kind(config)
    check_tensors(str(path), family.tensors(), tensors)
    found = array_digest(tensors)
    if found != metadata["digest"]:
        raise UserError(
            f"{path}: changed or damaged: digest {found[:12]}..., expected {metadata['digest'][:12]}...; "
            "fetch the file again"
        )
    family.load(tensors)
    return family


def check_tensors(
    where: str, expected: Mapping[str, npt.NDArray[np.generic]], found: Mapping[str, npt.NDArray[np.generic]]
) -> None:
    """Raise UserError naming the first tensor that is missing, unknown or of another shape."""
    for name, value in expected.items():
        if name not in found:
            raise UserError(f"{where}: tensor {name!r} is missing (expected shape {value.shape})")
        if value.shape != found[name].shape:
            raise UserError(f"{where}: tensor {name!r} has shape {found[name].shape}, expected {value.shape}")
    for name in found:
        if name not in expected:
            raise UserError(f"{where}: unknown tensor {name!r} (shape {found[name].shape})")


def load_official_stargan(generator: Path, discriminator: Path | None = None) -> StarGAN:
    """StarGAN from official checkpoints (`200000-G.ckpt`, `200000-D.ckpt`): sizes are read from the files.

    Without a discriminator file the discriminator starts fresh, for 128 px. Raises UserError for files that are not
    such a checkpoint.
    """
    parts = {"generator": _read_checkpoint(generator)}
    if discriminator is not None:
        parts["discriminator"] = _read_checkpoint(discriminator)
    tensors: Tensors = {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}
    where = " and ".join(str(path) for path in (generator, discriminator) if path is not None)
    family = StarGAN(_official_config(where, parts))
    check_tensors(where, family.tensors(tuple(parts)), tensors)
    family.load(tensors)
    return family


def _official_config(where: str, parts: Mapping[str, Mapping[str, npt.NDArray[np.generic]]]) -> StarGANConfig:
    state = parts["generator"]
    try:
        width, inputs = state["main.0.weight"].shape[:2]
        blocks = sum(1 for name in state if name.endswith(".main.0.weight"))
        sizes: dict[str, int] = {}
        if "discriminator" in parts:
            critic = parts["discriminator"]
            layers = sum(1 for name in critic if name.startswith("main.") and name.endswith(".weight"))
            sizes = {
                "discriminator_width": critic["main.0.weight"].shape[0],
                "discriminator_layers": layers,
                "image_size": critic["conv2.weight"].shape[-1] * 2**layers,
            }
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{where}: not an official StarGAN checkpoint ({error!r})") from error
    known = StarGANConfig().attributes
    labels = inputs - 3
    if labels < 1:
        raise UserError(f"{where}: tensor 'main.0.weight' has {inputs} input channels, expected 3 and the labels")
    # The checkpoint does not name its labels: five are the paper's, further ones get a number.
    attributes = tuple(known[i] if i < len(known) else f"label_{i}" for i in range(labels))
    return StarGANConfig(attributes=attributes, width=width, blocks=blocks, **sizes)


def _locate(name_or_path: str | Path) -> Path:
    packaged = PACKAGED / f"{name_or_path}.safetensors"
    if isinstance(name_or_path, str) and "/" not in name_or_path and packaged.is_file():
        return packaged
    path = Path(name_or_path)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in PACKAGED.glob("*.safetensors"))) or "none"
        raise UserError(f"generator {str(name_or_path)!r}: no such file and no packaged weights; packaged: {names}")
    return path


def _read(path: Path) -> tuple[Tensors, dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read as safetensors: {error}") from error


def _read_checkpoint(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    import pickle

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: cannot be read as a checkpoint of plain tensors: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: not a state dict (a mapping of tensor names to tensors)")
    return {name: value.numpy() for name, value in state.items()}
