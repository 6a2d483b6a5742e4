"""Reading detector weights: the packaged files (digest checked before use), or a file of the user's."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from tsdf_ray.digest import file_digest
from tsdf_ray.errors import UserError

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "detectors"

PACKAGED = {
    "retinaface": (
        "retinaface_mobilenet025.safetensors",
        "c969bc1c82cfd4881772f0606baa7fa17780d2df57e70e45f418c714f691ef9e",
    ),
    "centerface": (
        "centerface.safetensors",
        "916413da11eeb7eee2b59f01b61b888439ff26556d5b17246bfa7b3d6fd1787f",
    ),
    "mtcnn": ("mtcnn.safetensors", "f195827d2e0e49cbd259c3bbb7b976b4927ebb06f5a6460c51b630a54daf510f"),
}
"""Detector -> file in the package's assets and its SHA-256 (scripts/convert_detectors.py writes and prints them)."""

OFFICIAL = {
    "s3fd": ("sfd_face.pth", "linked from github.com/cs-giung/face-detection-pytorch"),
    "dsfd": ("dsfd_vgg_0.880.pth", "linked from github.com/cs-giung/face-detection-pytorch"),
}
"""Detector without packaged weights -> the official file the user must bring, and where it is found."""


def put_weights(module: nn.Module, name: str, path: Path | None) -> None:
    """Load the packaged weights of detector `name` into `module`, or those of `path` (.safetensors, or .pth/.pt).

    An official PyTorch file is read with `weights_only=True`; a leading `module.` of its names is dropped.

    Raises UserError when the file is missing or unreadable, when no file is given and none is packaged (naming the
    official one), when the packaged file's digest is not the recorded one, and when a tensor is missing, unexpected,
    not floating point or of another shape than the module's.
    """
    check_at_hand(name, path)
    tensors = _packaged(name) if path is None else read_state(path)
    where = path or FOLDER / PACKAGED[name][0]
    wanted = {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    found = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    for key, value in wanted.items():
        if key not in found:
            raise UserError(f"{where}: tensor {key!r} is missing; {name} needs it with shape {tuple(value.shape)}")
        if found[key].shape != value.shape or not found[key].is_floating_point():
            raise UserError(
                f"{where}: tensor {key!r}: expected {tuple(value.shape)} of floats, "
                f"found {tuple(found[key].shape)} of {found[key].dtype}"
            )
    if unexpected := sorted(found.keys() - wanted.keys()):
        raise UserError(f"{where}: tensor {unexpected[0]!r} does not belong to {name}; is this another model's file?")
    module.load_state_dict(found, strict=False)


def check_at_hand(name: str, path: Path | None) -> None:
    """Raises UserError, naming the official file, when `name` has neither packaged weights nor those of `path`.

    Cheap: nothing is read.
    """
    if name in OFFICIAL and (path is None or not path.is_file()):
        file, source = OFFICIAL[name]
        problem = "its weights are not packaged" if path is None else f"no such weights file: {path}"
        raise UserError(f"{name}: {problem}; give the path of the official {file} ({source})")


def _packaged(name: str) -> dict[str, torch.Tensor]:
    file, expected = PACKAGED[name]
    path = FOLDER / file
    if not path.is_file():
        raise UserError(f"{path}: the packaged weights are missing; reinstall tsdf-ray")
    if (found := file_digest(path)) != expected:
        raise UserError(f"{path}: sha256 expected {expected}, found {found}; the file was changed, reinstall tsdf-ray")
    tensors: dict[str, torch.Tensor] = load_file(path)
    return tensors


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A user's state dict, safetensors or torch.save's; a leading `module.` of its names is dropped.

    Raises UserError: no such file, unreadable, or not a mapping of names to tensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: not a readable weights file (.safetensors, or a PyTorch state dict): {error}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: expected a state dict (name -> tensor), found {type(state).__name__}")
    return {str(key).removeprefix("module."): value for key, value in state.items()}
